"""What an engine is: two steps with the host in between, because the host reads the counts.

Dimension letters: B batch, S canvas side, C classes, D width, K queries, L levels, h w cells of a level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.letterbox import FloatArray


class DeviceArray(Protocol):
    """An array that lies where the engine computes, and comes to the host only if somebody asks."""

    def numpy(self) -> FloatArray:
        """The values on the host."""
        ...


@dataclass(frozen=True)
class Encoded:
    """Outputs of the encoder graph for a batch.

    Attributes:
        memory: L x (B, D, h, w), on the engine's device or on the host.
        queries: (B, k_max, D), best proposals first.
        reference_boxes: (B, k_max, 4) cxcywh in fractions of the canvas.
        count: (B,) estimated number of objects.
        density: (B, 1, h_0, w_0), objects per cell; sums to the count.
        class_heat: L x (B, C, h, w) in [0, 1].
        heat: L x (B, 4, h, w) in [0, 1]; channels class, bbox, mixed, mask.
    """

    memory: tuple[DeviceArray | FloatArray, ...]
    queries: FloatArray
    reference_boxes: FloatArray
    count: FloatArray
    density: FloatArray
    class_heat: tuple[FloatArray, ...]
    heat: tuple[FloatArray, ...]

    def __len__(self) -> int:
        return len(self.count)


@dataclass(frozen=True)
class EncodedRow:
    """One picture of an encoded batch."""

    batch: Encoded
    row: int

    @property
    def count(self) -> FloatArray:
        """(1,) estimated number of objects."""
        return self.batch.count[self.row : self.row + 1]


@dataclass(frozen=True)
class DecoderInputs:
    """What the decoder reads of a batch: B pictures that may come from different runs of the encoder.

    Attributes:
        memory: L x (B, D, h, w).
        queries: (B, k_max, D).
        reference_boxes: (B, k_max, 4).
    """

    memory: tuple[DeviceArray | FloatArray, ...]
    queries: FloatArray
    reference_boxes: FloatArray

    @classmethod
    def of_batch(cls, encoded: Encoded) -> "DecoderInputs":
        """A whole encoded batch, where it lies."""
        return cls(encoded.memory, encoded.queries, encoded.reference_boxes)

    @classmethod
    def of_rows(cls, rows: Sequence[EncodedRow]) -> "DecoderInputs":
        """Put pictures together. A whole encoded batch in its own order is taken as it is, where it lies."""
        first = rows[0].batch
        if [row.row for row in rows] == list(range(len(first))) and all(row.batch is first for row in rows):
            return cls.of_batch(first)
        levels = range(len(first.memory))
        memory = tuple(np.stack([on_host(row.batch.memory[level])[row.row] for row in rows]) for level in levels)
        queries = np.stack([row.batch.queries[row.row] for row in rows])
        return cls(memory, queries, np.stack([row.batch.reference_boxes[row.row] for row in rows]))


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

    @property
    def cuts_canvas(self) -> bool:
        """Whether pictures should come without their padding: a run then costs less, but is of a shape of its own."""
        ...

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Run the encoder on (B, 3, H, W) RGB, sides multiples of the largest stride.

        Raises:
            OutOfMemoryError, EngineError.
        """
        ...

    def decode(self, inputs: DecoderInputs, query_counts: Sequence[int]) -> Decoded:
        """Run the decoder with `query_counts[i]` queries for row i; the batch runs at the largest of them.

        Raises:
            OutOfMemoryError, EngineError.
        """
        ...


def on_host(values: DeviceArray | FloatArray) -> FloatArray:
    """The values in the host's memory, without a copy if they are there already."""
    return values if isinstance(values, np.ndarray) else values.numpy()
