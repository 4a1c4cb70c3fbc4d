"""Picture bytes in, everything the answers are made of out: the steps before and after the model, in blocking code."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.analysis import Analysis, HeatMaps, ModelResult
from service.detections import DetectionOptions
from service.engines.base import DecoderInputs, Engine
from service.imaging import Picture, decode_picture
from service.letterbox import Letterbox
from service.manifest import ModelFolder
from service.picture_tiles import TileOption, Tiling, cut_window, join_results, plan_tiles, tile_size
from service.queries import query_counts


@dataclass(frozen=True)
class Prepared:
    """A picture ready for the model.

    Attributes:
        frame: where the picture lies in canvas pixels; of all windows, if there are several.
        tiling: None where the picture goes on one canvas as a whole.
        canvases: each draws (3, H, W); the windows of the tiling and its overview last.
        timing_ms: milliseconds by step so far.
    """

    image_id: str
    upload: bytes
    frame: Letterbox
    tiling: Tiling | None
    canvases: tuple[Callable[[], NDArray[np.uint8]], ...]
    notes: tuple[str, ...]
    timing_ms: dict[str, float]


class Predictor:
    """One model, ready to analyse pictures."""

    def __init__(self, folder: ModelFolder, engine: Engine, max_pixels: int, max_tiles: int) -> None:
        self.manifest = folder.manifest  # and not the folder: it holds the bytes of the graphs
        self.parity = folder.parity
        self.sha256 = folder.sha256
        self.precision = folder.precision
        self.engine = engine
        self._max_pixels = max_pixels
        self._max_tiles = max_tiles

    def prepare(self, data: bytes, tile: TileOption = "off") -> Prepared:
        """Decode an upload and bring it to the scale of the model.

        Raises:
            ServiceError: see `decode_picture` and `plan_tiles`.
        """
        begun = perf_counter()
        spec = self.manifest.input
        picture = decode_picture(data, self._max_pixels, background=spec.pad_value)
        decoded = perf_counter()
        frame, tiling, canvases = self._lay_out(picture, tile)
        notes = picture.notes if tiling is None else (*picture.notes, f"cut into {len(tiling.plan)} tiles")
        timing = {"read_image": (decoded - begun) * 1e3, "preprocess": (perf_counter() - decoded) * 1e3}
        return Prepared(hashlib.sha256(data).hexdigest()[:32], data, frame, tiling, canvases, notes, timing)

    def _lay_out(
        self, picture: Picture, tile: TileOption
    ) -> tuple[Letterbox, Tiling | None, tuple[Callable[[], NDArray[np.uint8]], ...]]:
        spec, (width, height) = self.manifest.input, picture.image.size
        side = tile_size(tile, width, height, spec.size)
        if side is None:
            frame = Letterbox.fit(width, height, spec.size)
            canvas = frame.draw(picture.image, spec.pad_value, spec.multiple_of if self.engine.cuts_canvas else None)
            return frame, None, (lambda: canvas,)
        tiling = plan_tiles(width, height, side, spec.size, self.manifest.strides[-1], self._max_tiles)
        overview = tiling.overview.draw(picture.image, spec.pad_value)
        size = (tiling.frame.new_width, tiling.frame.new_height)
        pixels = np.asarray(picture.image.resize(size, Image.Resampling.BILINEAR))
        windows = [partial(cut_window, pixels, window, spec.size, spec.pad_value) for window in tiling.plan]
        return tiling.frame, tiling, (*windows, lambda: overview)

    def finish(self, prepared: Prepared, results: Sequence[ModelResult]) -> Analysis:
        """Put together what the model says of each canvas of a picture."""
        if prepared.tiling is None:
            (result,) = results
        else:
            result = join_results(prepared.tiling, results[:-1], results[-1])
        return Analysis(
            image_id=prepared.image_id,
            upload=prepared.upload,
            frame=prepared.frame,
            estimated_count=result.estimated_count,
            query_count=result.query_count,
            boxes=result.boxes,
            scores=result.scores,
            maps=result.maps,
            notes=prepared.notes,
            timing_ms=prepared.timing_ms | {step: seconds * 1e3 for step, seconds in result.seconds.items()},
        )

    def analyse(self, data: bytes, tile: TileOption = "off") -> Analysis:
        """All steps in the calling thread, one canvas after the other: for benchmarks and the warm-up.

        Raises:
            ServiceError: see `prepare` and `Engine`.
        """
        prepared = self.prepare(data, tile)
        return self.finish(prepared, [self.run(canvas()) for canvas in prepared.canvases])

    def run(self, canvas: NDArray[np.uint8]) -> ModelResult:
        """Both graphs on one canvas (3, H, W), in the calling thread.

        Raises:
            ServiceError: see `Engine`.
        """
        begun = perf_counter()
        encoded = self.engine.encode(canvas[None])  # (3, H, W) -> (1, 3, H, W)
        between = perf_counter()
        counts = query_counts(encoded.count, self.manifest.query, encoded.queries.shape[1])
        decoded = self.engine.decode(DecoderInputs.of_batch(encoded), counts)
        return ModelResult(
            estimated_count=float(encoded.count[0]),
            query_count=counts[0],
            boxes=decoded.boxes[0],
            scores=decoded.scores[0],
            maps=HeatMaps.of_row(encoded, 0),
            seconds={"encode": between - begun, "decode": perf_counter() - between},
        )

    def warm_up(self) -> None:
        """Take a small blank picture the whole way, so that the first caller does not wait for lazy imports."""
        buffer = BytesIO()
        spec = self.manifest.input
        Image.new("RGB", (spec.size, spec.multiple_of)).save(buffer, "PNG")
        self.analyse(buffer.getvalue()).detections(DetectionOptions.from_manifest(self.manifest, threshold=0))
