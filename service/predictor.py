"""Picture bytes in, everything the answers are made of out. Plain blocking code; the pool runs it."""

import hashlib
from collections.abc import Sequence
from io import BytesIO
from time import perf_counter

import numpy as np
from PIL import Image

from service.analysis import Analysis, HeatMaps
from service.detections import DetectionOptions
from service.engines.base import Engine
from service.errors import EngineError
from service.imaging import decode_picture
from service.letterbox import FloatArray, Letterbox
from service.manifest import ModelFolder, QuerySpec


class Predictor:
    """One model, ready to analyse pictures."""

    def __init__(self, folder: ModelFolder, engine: Engine, max_pixels: int) -> None:
        self.manifest = folder.manifest  # and not the folder: it holds the bytes of the graphs
        self.parity = folder.parity
        self.sha256 = folder.sha256
        self.precision = folder.precision
        self.engine = engine
        self._max_pixels = max_pixels

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
        clock.lap("preprocess")
        encoded = self.engine.encode(canvas[None])  # (3, S, S) -> (1, 3, S, S)
        clock.lap("encode")
        counts = query_counts(encoded.count, self.manifest.query, encoded.queries.shape[1])
        decoded = self.engine.decode(encoded, counts)
        clock.lap("decode")
        return Analysis(
            image_id=hashlib.sha256(data).hexdigest()[:32],
            upload=data,
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


class _Stopwatch:
    """Milliseconds between laps."""

    def __init__(self) -> None:
        self.laps_ms: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.laps_ms[name] = (now - self._last) * 1e3
        self._last = now
