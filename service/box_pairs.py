"""Which boxes of two sets are the same, in time and memory that grow with their number: a grid instead of all pairs."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.letterbox import FloatArray

SAME = 0.5
"""Intersection over union from which two boxes are the same."""

Index = NDArray[np.int64]


@dataclass(frozen=True)
class GroupedBoxes:
    """Boxes that are compared only inside their group.

    Attributes:
        boxes: (n, 4) xyxy, none of them empty.
        scores: (n,).
        groups: (n,) any numbers.
    """

    boxes: FloatArray
    scores: FloatArray
    groups: Index

    def levels(self) -> Index:
        """(n,) the power of two below the longer side."""
        x1, y1, x2, y2 = self.boxes.T
        return np.log2(np.maximum(np.maximum(x2 - x1, y2 - y1), 1)).astype(np.int64)


def agreeing_pairs(first: GroupedBoxes, second: GroupedBoxes) -> tuple[Index, Index]:
    """Positions in either set of boxes with IoU above `SAME`: each box in one pair at most, the best pairs first.

    Good is what is alike and of high score. By likeness alone, a poor second box of one set for an object could take
    the place of the first one, and two boxes with high scores would be left.
    """
    left, right = candidate_pairs(first, second)
    iou = _iou_of_pairs(first.boxes[left], second.boxes[right])
    same = iou > SAME
    left, right = left[same], right[same]
    return _one_to_one(left, right, iou[same] * np.sqrt(first.scores[left] * second.scores[right]))


def candidate_pairs(first: GroupedBoxes, second: GroupedBoxes) -> tuple[Index, Index]:
    """Positions in either set of all boxes of one group that may have IoU above `SAME`, and of few others.

    Such boxes have longer sides less than a factor of two apart, and centres that differ by less than a third of the
    longer side. So a box is looked for in the 3 x 3 cells around its own, in a grid for sizes like its own and in those
    for the next smaller and larger.
    """
    levels, others = first.levels(), second.levels()
    found = [_in_grid(first, levels + max(0, step), second, others + max(0, -step)) for step in (-1, 0, 1)]
    left, right = (np.concatenate(sides) for sides in zip(*found, strict=True))
    return left, right


def _in_grid(
    first: GroupedBoxes, first_levels: Index, second: GroupedBoxes, second_levels: Index
) -> tuple[Index, Index]:
    """Pairs of one group and level whose cells touch; a cell is a third of what the sides of its level stay below."""
    count = len(first.boxes)
    groups = np.unique(np.concatenate([first.groups, second.groups]), return_inverse=True)[1]
    levels = np.concatenate([first_levels, second_levels])
    x1, y1, x2, y2 = np.concatenate([first.boxes, second.boxes]).astype(np.float64).T
    per_cell = 2.0 ** (levels + 2) / 3  # of twice a coordinate, as a centre is half a sum
    column, row = (((low + high) // per_cell).astype(np.int64) + 1 for low, high in ((x1, x2), (y1, y2)))
    columns, rows = int(column.max(initial=0)) + 2, int(row.max(initial=0)) + 2
    keys = ((groups * (levels.max(initial=0) + 1) + levels) * rows + row) * columns + column
    wanted, there = keys[:count], keys[count:]
    order, asked = np.argsort(there), np.argsort(wanted)
    wanted, there = wanted[asked], there[order]
    found = [
        _expand(np.searchsorted(there, wanted + down - 1, "left"), np.searchsorted(there, wanted + down + 1, "right"))
        for down in (-columns, 0, columns)
    ]
    left, right = (np.concatenate(sides) for sides in zip(*found, strict=True))
    return asked[left], order[right]


def _expand(begin: Index, end: Index) -> tuple[Index, Index]:
    """(i, j) for every j from begin[i] to end[i] - 1."""
    lengths = end - begin
    before = np.cumsum(lengths) - lengths
    left = np.repeat(np.arange(len(begin)), lengths)
    return left, np.arange(len(left)) - np.repeat(before - begin, lengths)


def _iou_of_pairs(first: FloatArray, second: FloatArray) -> FloatArray:
    """Intersection over union of two (P, 4) lists of boxes, row by row."""
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = first.T, second.T
    width, height = np.minimum(ax2, bx2) - np.maximum(ax1, bx1), np.minimum(ay2, by2) - np.maximum(ay1, by1)
    intersection = np.maximum(width, 0) * np.maximum(height, 0)
    return intersection / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - intersection)


def _one_to_one(left: Index, right: Index, good: FloatArray) -> tuple[Index, Index]:
    """Greedy matching: of the pairs, the best first, each that uses no box of a pair before it.

    A pair that comes first for both of its boxes is certain: all such are taken at once, until none are left.
    """
    order = np.lexsort((right, left, -good))
    left, right = left[order], right[order]
    taken: list[tuple[Index, Index]] = []
    while len(left):
        ranks = np.arange(len(left))
        certain = (_first_of_each(left) == ranks) & (_first_of_each(right) == ranks)
        taken.append((left[certain], right[certain]))
        used, used_too = np.zeros(left.max() + 1, dtype=bool), np.zeros(right.max() + 1, dtype=bool)
        used[left[certain]] = used_too[right[certain]] = True
        rest = ~(used[left] | used_too[right])
        left, right = left[rest], right[rest]
    if not taken:
        return left, right
    return np.concatenate([pair[0] for pair in taken]), np.concatenate([pair[1] for pair in taken])


def _first_of_each(values: Index) -> Index:
    """For every position, the first one with the same value."""
    first = np.empty(values.max() + 1, dtype=np.int64)
    first[values[::-1]] = np.arange(len(values))[::-1]  # of values that repeat, the last assignment stays
    return first[values]


def connected(count: int, first: Index, second: Index) -> Index:
    """Groups of things that pairs connect, directly or through others; (count,) the lowest member of each one's group.

    Union-find on whole arrays: every root is hung below the lowest root it is paired with, then paths are halved.
    """
    roots = np.arange(count)
    while True:
        one, two = roots[first], roots[second]
        apart = one != two
        if not apart.any():
            return roots
        first, second = first[apart], second[apart]
        lower, higher = np.minimum(one[apart], two[apart]), np.maximum(one[apart], two[apart])
        np.minimum.at(roots, higher, lower)
        while not np.array_equal(further := roots[roots], roots):
            roots = further
