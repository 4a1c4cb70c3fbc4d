"""Picture bytes in, everything the answers are made of out. Plain blocking code; the pool runs it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.detections import DetectionOptions, Detections, select_detections
from service.engines.base import Encoded, Engine
from service.errors import EngineError
from service.imaging import decode_picture
from service.letterbox import FloatArray, Letterbox
from service.manifest import ModelFolder, QuerySpec


@dataclass(frozen=True)
class HeatMaps:
    """Heat of one picture on the canvas's cells; see `Encoded` for the meaning of the maps.

    Attributes:
        density: (h_0, w_0).
        class_heat: L x (C, h, w).
        heat: L x (4, h, w); channels class, bbox, mixed, mask.
    """

    density: FloatArray
    class_heat: tuple[FloatArray, ...]
    heat: tuple[FloatArray, ...]

    @classmethod
    def of_row(cls, encoded: Encoded, row: int) -> "HeatMaps":
        """Take one picture out of a batch."""
        return cls(
            encoded.density[row, 0].copy(),
            tuple(level[row].copy() for level in encoded.class_heat),
            tuple(level[row].copy() for level in encoded.heat),
        )

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.density.nbytes + sum(level.nbytes for level in (*self.class_heat, *self.heat))


@dataclass(frozen=True)
class Analysis:
    """All that one run of the model says of one picture, before any threshold.

    Attributes:
        image_id: first 32 hex digits of the sha256 of the uploaded bytes.
        view: (h, w, 3) RGB as displayed, no side longer than HEATQUERY_VIEW_SIDE.
        frame: where the picture lies on the canvas.
        boxes: (K, 4) xyxy in canvas pixels.
        scores: (K, C).
        timing_ms: milliseconds by step.
    """

    image_id: str
    view: NDArray[np.uint8]
    frame: Letterbox
    estimated_count: float
    query_count: int
    boxes: FloatArray
    scores: FloatArray
    maps: HeatMaps
    notes: tuple[str, ...]
    timing_ms: dict[str, float]

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.view.nbytes + self.boxes.nbytes + self.scores.nbytes + self.maps.nbytes

    def detections(self, options: DetectionOptions) -> Detections:
        """Detections in picture pixels; boxes that lie wholly in the padding are dropped and take no place."""
        boxes = self.frame.boxes_to_picture(self.boxes)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        found = select_detections(self.boxes[inside], self.scores[inside], options)
        return Detections(self.frame.boxes_to_picture(found.boxes), found.scores, found.labels)


class Predictor:
    """One model, ready to analyse pictures."""

    def __init__(self, folder: ModelFolder, engine: Engine, max_pixels: int, view_side: int) -> None:
        self.manifest = folder.manifest  # and not the folder: it holds the bytes of the graphs
        self.parity = folder.parity
        self.sha256 = folder.sha256
        self.precision = folder.precision
        self.engine = engine
        self._max_pixels = max_pixels
        self._view_side = view_side

    def analyse(self, data: bytes) -> Analysis:
        """Decode, encode, decide K, decode.

        Raises:
            ServiceError: see `decode_picture` and `Engine`.
        """
        clock = _Stopwatch()
        spec = self.manifest.input
        picture = decode_picture(data, self._max_pixels, background=spec.pad_value)
        clock.lap("read_image")
        frame = Letterbox.fit(*picture.image.size, spec.size)
        canvas = frame.draw(picture.image, spec.pad_value)
        view = _shrink(picture.image, self._view_side)
        clock.lap("preprocess")
        encoded = self.engine.encode(canvas[None])  # (3, S, S) -> (1, 3, S, S)
        clock.lap("encode")
        counts = query_counts(encoded.count, self.manifest.query, encoded.queries.shape[1])
        decoded = self.engine.decode(encoded, counts)
        clock.lap("decode")
        return Analysis(
            image_id=hashlib.sha256(data).hexdigest()[:32],
            view=view,
            frame=frame,
            estimated_count=float(encoded.count[0]),
            query_count=counts[0],
            boxes=decoded.boxes[0],
            scores=decoded.scores[0],
            maps=HeatMaps.of_row(encoded, 0),
            notes=picture.notes,
            timing_ms=clock.laps_ms,
        )

    def warm_up(self) -> None:
        """Take a blank picture the whole way, so that the first caller does not wait for lazy imports."""
        buffer = BytesIO()
        side = self.manifest.input.size
        Image.new("RGB", (side, side)).save(buffer, "PNG")
        self.analyse(buffer.getvalue()).detections(DetectionOptions.from_manifest(self.manifest, threshold=0))


def query_counts(count: FloatArray, spec: QuerySpec, available: int) -> Sequence[int]:
    """K per image from (B,) estimated counts: round half to even, between k_min and what there is.

    Raises:
        EngineError: a count is not a number or infinite.
    """
    if not np.isfinite(count).all():
        raise EngineError(f"the model estimated a count of {count[~np.isfinite(count)][0]} objects on this picture")
    upper = min(spec.k_max, available)
    rounded = np.rint(np.float32(spec.t) * count)
    return [int(k) for k in np.clip(rounded, min(spec.k_min, upper), upper)]


def _shrink(image: Image.Image, side: int) -> NDArray[np.uint8]:
    """The picture with no side longer than `side`, as (h, w, 3)."""
    scale = side / max(image.size)
    if scale < 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(image)


class _Stopwatch:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps_ms[name] = (now - self._last) * 1e3
        self._last = now
