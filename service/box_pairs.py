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
    """Boxes that are compared only inside their group: (n, 4) xyxy, none of them empty, and (n,) any numbers."""

    boxes: FloatArray
    groups: Index

    def levels(self) -> Index:
        """(n,) the power of two below the longer side."""
        return np.log2(np.maximum((self.boxes[:, 2:] - self.boxes[:, :2]).max(axis=1, initial=0), 1)).astype(np.int64)


def agreeing_pairs(first: GroupedBoxes, second: GroupedBoxes) -> tuple[Index, Index]:
    """Positions in either set of boxes with IoU above `SAME`: each box in one pair at most, the most alike first."""
    left, right = candidate_pairs(first, second)
    iou = _iou_of_pairs(first.boxes[left], second.boxes[right])
    same = iou > SAME
    return _one_to_one(left[same], right[same], iou[same])


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
    boxes = np.concatenate([first.boxes, second.boxes]).astype(np.float64)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    centres -= centres.min(axis=0, initial=np.inf)
    cells = np.floor(centres * (3 / 2.0 ** (levels[:, None] + 1))).astype(np.int64) + 1
    columns, rows = (cells.max(axis=0, initial=0) + 2).tolist()
    keys = ((groups * (levels.max(initial=0) + 1) + levels) * rows + cells[:, 1]) * columns + cells[:, 0]
    wanted, there = keys[:count], keys[count:]
    order, asked = np.argsort(there, kind="stable"), np.argsort(wanted, kind="stable")
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
    sides = np.minimum(first[:, 2:], second[:, 2:]) - np.maximum(first[:, :2], second[:, :2])
    intersection = np.clip(sides, 0, None).prod(axis=1)
    union = (first[:, 2:] - first[:, :2]).prod(axis=1) + (second[:, 2:] - second[:, :2]).prod(axis=1) - intersection
    return intersection / union


def _one_to_one(left: Index, right: Index, iou: FloatArray) -> tuple[Index, Index]:
    """Greedy matching: of the pairs in order of IoU, each that uses no box of a pair before it.

    A pair that comes first for both of its boxes is certain: all such are taken at once, until none are left.
    """
    order = np.lexsort((right, left, -iou))
    left, right = left[order], right[order]
    taken: list[tuple[Index, Index]] = []
    while len(left):
        ranks = np.arange(len(left))
        certain = (_first_of_each(left) == ranks) & (_first_of_each(right) == ranks)
        taken.append((left[certain], right[certain]))
        rest = ~np.isin(left, left[certain]) & ~np.isin(right, right[certain])
        left, right = left[rest], right[rest]
    if not taken:
        return left, right
    return np.concatenate([pair[0] for pair in taken]), np.concatenate([pair[1] for pair in taken])


def _first_of_each(values: Index) -> Index:
    """For every position, the first one with the same value."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse]


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
