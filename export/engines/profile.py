"""Sizes that an engine is made for. TensorRT tunes for the typical size, and refuses what is outside the range.

Letters as in `model.structures`; K queries that are decoded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from onnx import ModelProto

from export.manifest import Manifest

Shape: TypeAlias = tuple[int, ...]
Shapes: TypeAlias = dict[str, tuple[Shape, Shape, Shape]]
"""Input to its smallest, typical and largest shape."""


@dataclass(frozen=True)
class Range:
    """Smallest, typical and largest size."""

    low: int
    typical: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.typical <= self.high:
            raise ValueError(f"sizes {self.low} {self.typical} {self.high}: from 1, smallest, typical, largest")

    def clipped(self, low: int, high: int) -> "Range":
        """The part between two sizes."""
        return Range(*(min(max(size, low), high) for size in (self.low, self.typical, self.high)))


def refuse_outside(shapes: Shapes, found: Mapping[str, Shape]) -> None:
    """Raise ValueError if these are not the inputs that an engine was made for."""
    if set(found) != set(shapes):
        raise ValueError(f"the engine takes {sorted(shapes)}, not {sorted(found)}")
    for name, (low, _, high) in shapes.items():
        shape = found[name]
        if len(shape) != len(low) or not all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True)):
            raise ValueError(f"the engine takes {name} from {low} to {high}, not {shape}; build it for more")


@dataclass(frozen=True)
class Profile:
    """What the inputs of both graphs depend on."""

    batch: Range
    queries: Range
    """K."""
    side: Range
    """Of the square canvas in pixels."""
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        for side in (self.side.low, self.side.typical, self.side.high):
            if side % self.strides[-1]:
                raise ValueError(f"canvas side {side} is not a multiple of the largest stride {self.strides[-1]}")

    @classmethod
    def of(
        cls, manifest: Manifest, batch: Range, typical_queries: int | None = None, side: Range | None = None
    ) -> "Profile":
        """The sizes that a host may ask of a model.

        Args:
            typical_queries: K to tune for; without it k_min, which is what most pictures get.
            side: without it, the canvas of the model and no other.
        Raises:
            ValueError: a size is out of order, no multiple of the stride, or K is outside k_min to k_max.
        """
        size, query = manifest.input.size, manifest.query
        side = side or Range(size, size, size)
        typical = query.k_min if typical_queries is None else typical_queries
        if not query.k_min <= typical <= query.k_max:
            raise ValueError(f"{typical} queries: the model decodes {query.k_min} to {query.k_max}")
        fewest, most = (sum((end // stride) ** 2 for stride in manifest.strides) for end in (side.low, side.high))
        queries = Range(min(query.k_min, fewest), typical, query.k_max).clipped(1, most)
        return cls(batch, queries, side, manifest.strides)

    def shapes(self, graph: ModelProto) -> Shapes:
        """Shapes of a graph's inputs, which are told apart by their names."""
        return {
            value.name: (
                self._shape(value.name, fixed, self.batch.low, self.queries.low, self.side.low),
                self._shape(value.name, fixed, self.batch.typical, self.queries.typical, self.side.typical),
                self._shape(value.name, fixed, self.batch.high, self.queries.high, self.side.high),
            )
            for value in graph.graph.input
            for fixed in [[dim.dim_value for dim in value.type.tensor_type.shape.dim]]  # 0 where it varies
        }

    def _shape(self, name: str, fixed: Sequence[int], batch: int, queries: int, side: int) -> Shape:
        if name == "images":
            return batch, fixed[1], side, side
        if name.startswith("memory_"):
            cells = side // self.strides[int(name.removeprefix("memory_"))]
            return batch, fixed[1], cells, cells
        return batch, queries, *fixed[2:]
