"""What is to be done with a scene, and the scene made ready for it: opened once, checked, and cut in tiles."""

import hashlib
import json
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pydantic import TypeAdapter

from service.detections import DetectionOptions
from service.georeference import Georeference
from service.letterbox import FloatArray
from service.manifest import Manifest
from service.raster import RasterOptions, RasterTile, open_raster
from service.raster_scaling import Scaling
from service.scene_schemas import LEAST_SCORE
from service.tiling import ScenePlan, overlap_of, plan_scene

Resolution = Literal["model", "file"]
_RESULTS_VERSION = 1  # raise it with every change of what a tile's result is: older tables are then not gone on with


class SceneModel(Protocol):
    """The model that a scene is for; a `ModelFolder` and a `Predictor` both are."""

    @property
    def manifest(self) -> Manifest: ...

    @property
    def sha256(self) -> str: ...

    @property
    def precision(self) -> str: ...


@dataclass(frozen=True)
class SceneRequest:
    """What to do with a scene, complete: nothing is looked up later.

    Attributes:
        overlap: of neighbouring tiles, in pixels of the scene as the model sees it.
        floor: scores at or below it are not kept; results can be asked for above it.
        heat: whether density and heat are kept, too.
    """

    raster: RasterOptions
    overlap: int
    floor: float = LEAST_SCORE
    heat: bool = False

    @classmethod
    def for_model(
        cls,
        manifest: Manifest,
        bands: tuple[int, int, int] | None = None,
        scaling: Scaling = "auto",
        resolution: float | Resolution = "model",
        overlap: int | None = None,
        heat: bool = False,
    ) -> "SceneRequest":
        """Fill what is not given from the model.

        Args:
            resolution: centimetres of ground that a pixel shall show, or those that the model was trained on, or those
                that the file has.
        Raises:
            InvalidParameterError: the overlap does not fit the model's tiles.
        """
        size, stride = manifest.input.size, manifest.strides[-1]
        floor = min(LEAST_SCORE, float(DetectionOptions.from_manifest(manifest).thresholds.min()))
        overlap = overlap_of(size, stride, manifest.largest_object_px) if overlap is None else overlap
        plan_scene(size, size, size, stride, overlap)  # says what is wrong with the overlap before a file is sent
        match resolution:
            case "model":
                wanted = manifest.resolution_cm
            case "file":
                wanted = None
            case _:
                wanted = resolution
        return cls(RasterOptions(bands, scaling, wanted), overlap, floor, heat)

    def to_json(self) -> str:
        """For a table or a file."""
        return _REQUEST.dump_json(self).decode()

    @classmethod
    def from_json(cls, text: str) -> "SceneRequest":
        """What `to_json` gave."""
        return _REQUEST.validate_json(text)


_REQUEST = TypeAdapter(SceneRequest)


class TileReader(Protocol):
    """Reads windows of an open scene; for one thread."""

    def read(self, left: int, top: int, width: int, height: int) -> RasterTile: ...


@dataclass(frozen=True)
class Scene:
    """A scene ready to be worked on.

    Attributes:
        width, height: in native pixels, as displayed.
        scale: pixels that the model sees for each native one.
        thresholds: (C,) the model's own, from which a box is called an object while the work goes on.
        nms_iou: the model's own; two boxes of one class in one tile that overlap more are one object.
        fingerprint: of the file, the model and the request: of all that a tile's result follows from.
    """

    path: Path
    request: SceneRequest
    plan: ScenePlan
    width: int
    height: int
    scale: float
    georeference: Georeference | None
    notes: tuple[str, ...]
    pad_value: int
    thresholds: FloatArray
    nms_iou: float | None
    fingerprint: str

    def open(self) -> AbstractContextManager[TileReader]:
        """Open the file once more, for the thread that calls."""
        return open_raster(self.path, self.request.raster, self.pad_value)


def prepare_scene(path: Path, request: SceneRequest, model: SceneModel) -> Scene:
    """Check the file and plan its tiles; nothing of it is decoded yet.

    Raises:
        ServiceError: the file is not a raster that can be read, or asks for too much.
    """
    manifest = model.manifest
    size, stride, pad_value = manifest.input.size, manifest.strides[-1], manifest.input.pad_value
    with open_raster(path, request.raster, pad_value) as raster:
        plan = plan_scene(raster.scaled_width, raster.scaled_height, size, stride, request.overlap)
        return Scene(
            path=path,
            request=request,
            plan=plan,
            width=raster.width,
            height=raster.height,
            scale=raster.scale,
            georeference=raster.georeference,
            notes=raster.notes,
            pad_value=pad_value,
            thresholds=DetectionOptions.from_manifest(manifest).thresholds,
            nms_iou=manifest.postprocess.nms_iou,
            fingerprint=_fingerprint(path, request, model, plan),
        )


def _fingerprint(path: Path, request: SceneRequest, model: SceneModel, plan: ScenePlan) -> str:
    """A file is the same if its size and time are: reading gigabytes to compare them would take minutes."""
    found = path.stat()
    file, cut = (found.st_size, found.st_mtime_ns), (plan.width, plan.height, plan.size, plan.overlap)
    parts = [_RESULTS_VERSION, file, cut, model.sha256, model.precision, request.to_json()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
