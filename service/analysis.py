"""What one run of the model says of one picture, kept so that a heat map can be drawn of it later."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detections import DetectionOptions, Detections, select_detections
from service.engines.base import Encoded
from service.letterbox import FloatArray, Letterbox
from service.manifest import Manifest

HeatArray = NDArray[np.uint16]
_FULL_HEAT = 65_535


def keep_heat(heat: FloatArray) -> HeatArray:
    """Heat in [0, 1] as it is kept."""
    return np.rint(np.clip(heat, 0, 1) * np.float32(_FULL_HEAT)).astype(np.uint16)


def read_heat(kept: HeatArray) -> FloatArray:
    """Heat in [0, 1] from what is kept."""
    return np.divide(kept, _FULL_HEAT, dtype=np.float32)


@dataclass(frozen=True)
class HeatMaps:
    """Heat of one picture on the canvas's cells; see `Encoded` for the meaning of the maps.

    Attributes:
        density: (h_0, w_0).
        class_heat: L x (C, h, w).
        heat: L x (4, h, w); channels class, bbox, mixed, mask.

    Heat lies in [0, 1] and is kept in steps of 1/65535, far finer than any colour: half the bytes of float32, and made
    in a tenth of the time of float16. The density is kept as it is, because it sums to the count.
    """

    density: FloatArray
    class_heat: tuple[HeatArray, ...]
    heat: tuple[HeatArray, ...]

    @classmethod
    def of_row(cls, encoded: Encoded, row: int) -> "HeatMaps":
        """Take one picture out of a batch."""
        return cls(
            encoded.density[row, 0].copy(),
            tuple(keep_heat(level[row]) for level in encoded.class_heat),
            tuple(keep_heat(level[row]) for level in encoded.heat),
        )

    @property
    def nbytes(self) -> int:
        """Memory held, in bytes."""
        return self.density.nbytes + sum(level.nbytes for level in (*self.class_heat, *self.heat))


@dataclass(frozen=True)
class ModelResult:
    """What the model says of one canvas, or of all windows of a picture together.

    Attributes:
        boxes: (K, 4) xyxy in canvas pixels.
        scores: (K, C).
        seconds: by step: queue, encode, decode.
    """

    estimated_count: float
    query_count: int
    boxes: FloatArray
    scores: FloatArray
    maps: HeatMaps
    seconds: dict[str, float]


@dataclass(frozen=True)
class Analysis:
    """All that one run of the model says of one picture, before any threshold.

    Attributes:
        image_id: first 32 hex digits of the sha256 of the uploaded bytes.
        upload: those bytes, from which a heat map is drawn later.
        frame: where the picture lies on the canvas.
        boxes: (K, 4) xyxy in canvas pixels.
        scores: (K, C).
        timing_ms: milliseconds by step.
    """

    image_id: str
    upload: bytes
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
        return len(self.upload) + self.boxes.nbytes + self.scores.nbytes + self.maps.nbytes

    def is_of(self, manifest: Manifest) -> bool:
        """Whether its shapes are those that this model gives; what comes from a shared store may not be."""
        maps, strides, classes = self.maps, manifest.strides, len(manifest.classes)
        rows, columns = (cells * strides[0] for cells in maps.density.shape)
        levels = [(rows // stride, columns // stride) for stride in strides]
        return (
            self.frame.size == manifest.input.size
            and self.frame.new_height <= rows
            and self.frame.new_width <= columns
            and self.scores.shape[1] == classes
            and [level.shape for level in maps.class_heat] == [(classes, *cells) for cells in levels]
            and [level.shape[1:] for level in maps.heat] == levels
        )

    def detections(self, options: DetectionOptions) -> Detections:
        """Detections in picture pixels; boxes that lie wholly in the padding are dropped and take no place."""
        boxes = self.frame.boxes_to_picture(self.boxes)
        inside = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        found = select_detections(self.boxes[inside], self.scores[inside], options)
        return Detections(self.frame.boxes_to_picture(found.boxes), found.scores, found.labels)
