"""What an engine is: two steps with the host in between, because the host reads the counts.

Dimension letters: B batch, S canvas side, C classes, D width, K queries, L levels, h w cells of a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.letterbox import FloatArray


@dataclass(frozen=True)
class Encoded:
    """Outputs of the encoder graph for a batch.

    Attributes:
        memory: L x (B, D, h, w).
        queries: (B, k_max, D), best proposals first.
        reference_boxes: (B, k_max, 4) cxcywh in fractions of the canvas.
        count: (B,) estimated number of objects.
        density: (B, 1, h_0, w_0), objects per cell; sums to the count.
        class_heat: L x (B, C, h, w) in [0, 1].
        heat: L x (B, 4, h, w) in [0, 1]; channels class, bbox, mixed, mask.
    """

    memory: tuple[FloatArray, ...]
    queries: FloatArray
    reference_boxes: FloatArray
    count: FloatArray
    density: FloatArray
    class_heat: tuple[FloatArray, ...]
    heat: tuple[FloatArray, ...]


@dataclass(frozen=True)
class Decoded:
    """Outputs of the decoder graph.

    Attributes:
        boxes: (B, K, 4) xyxy in canvas pixels.
        scores: (B, K, C) in [0, 1]; 0 for queries beyond an image's own count.
    """

    boxes: FloatArray
    scores: FloatArray


class Engine(Protocol):
    """Runs the two graphs of a model folder. Both calls may come from several threads at once."""

    @property
    def provider(self) -> str:
        """Name of the execution provider really in use."""
        ...

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Run the encoder on (B, 3, S, S) RGB.

        Raises:
            OutOfMemoryError, EngineError.
        """
        ...

    def decode(self, encoded: Encoded, query_counts: Sequence[int]) -> Decoded:
        """Run the decoder with `query_counts[i]` queries for row i; the batch runs at the largest of them.

        Raises:
            OutOfMemoryError, EngineError.
        """
        ...
