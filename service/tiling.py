"""How a scene is cut in windows that overlap, so that nothing is left out and every place has one owner.

A plan holds where windows begin along either side and nothing else: a window is made when it is asked for, and a plan
of a million windows costs no more than its two rows of numbers. Windows begin at multiples of the model's largest
stride, so that the heat cells of all of them fall together. All positions are pixels of the scene at the scale that
the model sees.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameterError

_OVERLAP_SHARE = 4  # of a window's side, one part in four, where the size of the model's objects is not known


@dataclass(frozen=True)
class Window:
    """One run of the model: S x S px from (left, top), and the part of it that no other window owns.

    Attributes:
        column, row: its place in the plan.
        core: x1, y1, x2, y2 of the part; multiples of the largest stride. The cores of all windows partition the scene.
    """

    column: int
    row: int
    left: int
    top: int
    core: tuple[int, int, int, int]


@dataclass(frozen=True)
class ScenePlan:
    """Windows of `size` px over a scene of `width` x `height` px, counted row by row from the first corner.

    Attributes:
        stride: the model's largest; all positions are multiples of it.
        overlap: px that neighbours share at least.
        columns, rows: where windows begin along x and y. The last ones reach the scene's end, and less than a stride
            further unless the scene is smaller than a window.
    """

    width: int
    height: int
    size: int
    stride: int
    overlap: int
    columns: tuple[int, ...]
    rows: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.columns) * len(self.rows)

    def __iter__(self) -> Iterator[Window]:
        return map(self.window, range(len(self)))

    def window(self, index: int) -> Window:
        """The window with a number from 0 to len - 1."""
        if not 0 <= index < len(self):
            raise IndexError(f"window {index:,} of a plan with {len(self):,}")
        row, column = divmod(index, len(self.columns))
        (x1, x2), (y1, y2) = self._core(self.columns, column), self._core(self.rows, row)
        return Window(column, row, self.columns[column], self.rows[row], (x1, y1, x2, y2))

    def _core(self, starts: tuple[int, ...], at: int) -> tuple[int, int]:
        """What a window owns along one side: cores meet at the multiple of the stride before an overlap's middle."""
        first = 0 if at == 0 else _middle(starts, at - 1, self.size) // self.stride * self.stride
        last = at == len(starts) - 1
        end = starts[at] + self.size if last else _middle(starts, at, self.size) // self.stride * self.stride
        return int(first), int(end)

    @cached_property
    def starts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`columns` and `rows` for arithmetic on many boxes."""
        return np.array(self.columns, dtype=np.int64), np.array(self.rows, dtype=np.int64)

    @cached_property
    def reach(self) -> tuple[int, int]:
        """How many windows further along x and y still share ground with a window."""
        return _reach(self.columns, self.size), _reach(self.rows, self.size)

    def seams(self, axis: int, at: int) -> tuple[float, float]:
        """Middles of the overlaps with the window before and the one after, along x (0) or y (1); infinite at an end.

        A box is claimed by the window between whose seams its centre lies. What is no larger than the overlap is whole
        there. Cores may end up to a stride before, as heat cells must not be cut.
        """
        starts = (self.columns, self.rows)[axis]
        before = _middle(starts, at - 1, self.size) if at else -np.inf
        after = _middle(starts, at, self.size) if at < len(starts) - 1 else np.inf
        return before, after


def _middle(starts: tuple[int, ...], at: int, size: int) -> float:
    """Middle of what window `at` and the next one share."""
    return (starts[at + 1] + starts[at] + size) / 2


def _reach(starts: tuple[int, ...], size: int) -> int:
    steps = 0
    while any(later < start + size for start, later in zip(starts, starts[steps + 1 :], strict=False)):
        steps += 1
    return steps


def plan_scene(width: int, height: int, size: int, stride: int, overlap: int) -> ScenePlan:
    """Cut a scene of width x height px in windows of `size` px.

    Args:
        size: side of a window, a multiple of `stride`.
        stride: the model's largest.
        overlap: px that neighbours share at least; see `overlap_of`.
    Raises:
        InvalidParameterError: the overlap is no multiple of the stride, or more than half a window.
    """
    if overlap % stride or not 0 < overlap <= size // 2:
        raise InvalidParameterError(
            f"overlap: {overlap:,} px; expected a multiple of {stride} from {stride} to {size // 2 // stride * stride}"
        )
    columns, rows = _starts(width, size, stride, overlap), _starts(height, size, stride, overlap)
    return ScenePlan(width, height, size, stride, overlap, columns, rows)


def overlap_of(size: int, stride: int, largest_object_px: float | None) -> int:
    """The smallest overlap in which an object of this size is whole; a quarter of the window where it is not known.

    A multiple of the stride, at most half the window: what is larger is put together from its parts.
    """
    wanted = size / _OVERLAP_SHARE if largest_object_px is None else largest_object_px
    return min(max(1, -int(-wanted // stride)), size // 2 // stride) * stride


def _starts(length: int, size: int, stride: int, overlap: int) -> tuple[int, ...]:
    """Where windows begin along one side: as few as can be, as evenly as the stride allows."""
    if length <= size:
        return (0,)
    rest = -(-(length - size) // stride)  # strides from the first window's start to the last one's
    gaps = -(-rest * stride // (size - overlap))
    return tuple(-(-rest * index // gaps) * stride for index in range(gaps + 1))
