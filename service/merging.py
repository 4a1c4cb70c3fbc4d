"""What the windows of a scene saw, put together: every object once.

Two windows share ground. On that ground they see the same: two boxes of one class and of different windows are one
object where their parts inside the shared ground agree. This one rule joins two looks at an object near a seam, and
the parts of an object that no window sees whole. Pairs are made one to one, so that neighbours in a crowd stay two.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from service.box_pairs import GroupedBoxes, agreeing_pairs, connected
from service.detections import DetectionOptions, select_detections
from service.letterbox import FloatArray
from service.tiling import ScenePlan, Window

_EDGE = 2.0  # px; a box this near to an inner edge of its window is cut by it
_SEAM = 8.0  # px on both sides of a seam where two windows may both claim an object; they disagree by a pixel or two
_SEAM_SHARE = 1 / 8  # of a box's longer side, where that is more: on large objects they disagree by more

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class TileBoxes:
    """What one window adds to the scene, best first.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the scene, as the model sees it.
        scores, labels: (n,); a box that may be of two classes is there twice.
        cut: (n,) true where the object goes on beyond an inner edge of the window, and no other window sees all of
            this part and more.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: NDArray[np.int64]
    cut: Mask

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp] | Mask) -> "TileBoxes":
        """The boxes at these positions."""
        return TileBoxes(self.boxes[index], self.scores[index], self.labels[index], self.cut[index])


@dataclass(frozen=True)
class Merged:
    """Objects of a scene: boxes (n, 4) xyxy in pixels of the scene as the model sees it, scores (n,), labels (n,)."""

    boxes: FloatArray
    scores: FloatArray
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp] | Mask) -> "Merged":
        """The objects at these positions."""
        return Merged(self.boxes[index], self.scores[index], self.labels[index])

    @classmethod
    def concatenate(cls, parts: "list[Merged]") -> "Merged":
        """All of them, in their order; at least one is given."""
        return cls(
            np.concatenate([part.boxes for part in parts]),
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.labels for part in parts]),
        )


def keep_of_tile(
    plan: ScenePlan, window: Window, boxes: FloatArray, scores: FloatArray, floor: float, nms_iou: float | None = None
) -> TileBoxes:
    """What the scene needs of one window: whole boxes that it claims, and parts of what is larger than the overlap.

    Args:
        boxes: (K, 4) xyxy in pixels of the window.
        scores: (K, C).
        floor: scores at or below it are left out.
        nms_iou: two boxes of one class that overlap more than this are one object; None keeps both.
    """
    options = DetectionOptions(np.full(scores.shape[1], floor, np.float32), None, nms_iou, scores.size)
    found = select_detections(boxes, scores, options)
    begin = np.array([window.left, window.top] * 2, dtype=np.float32)
    end = np.minimum(begin + plan.size, np.array([plan.width, plan.height] * 2, dtype=np.float32))
    placed = np.clip(found.boxes + begin, begin, end).astype(np.float32)
    cut_x, kept_x = _along(plan, 0, window.column, placed)
    cut_y, kept_y = _along(plan, 1, window.row, placed)
    kept = kept_x & kept_y & (placed[:, 2:] > placed[:, :2]).all(axis=1)
    return TileBoxes(placed, found.scores, found.labels, cut_x | cut_y).take(kept)


def _along(plan: ScenePlan, axis: int, at: int, boxes: FloatArray) -> tuple[Mask, Mask]:
    """Along one side: which boxes the window's inner edges cut, and which it keeps.

    It keeps whole boxes whose centre lies between its seams, and those parts that are not whole in what it shares with
    a neighbour: of others that neighbour sees more.
    """
    starts, low, high = plan.starts[axis], boxes[:, axis], boxes[:, axis + 2]
    cut = needless = np.zeros(len(boxes), dtype=bool)
    if at > 0:
        cut_low = low < starts[at] + _EDGE
        cut, needless = cut | cut_low, needless | (cut_low & (high <= starts[at - 1] + plan.size - _EDGE))
    if at < len(starts) - 1:
        cut_high = high > starts[at] + plan.size - _EDGE
        cut, needless = cut | cut_high, needless | (cut_high & (low >= starts[at + 1] + _EDGE))
    before, after = plan.seams(axis, at)
    tolerance = np.maximum(_SEAM, _SEAM_SHARE * (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0))
    centre = (low + high) / 2
    claimed = (centre >= before - tolerance) & (centre < after + tolerance)
    return cut, np.where(cut, ~needless, claimed)


@dataclass(frozen=True)
class _Looks:
    """Boxes of several windows, with the window's place in the plan and the object that each belongs to.

    Attributes:
        objects: (n,) of boxes that belong together, the position of the first.
    """

    tiles: TileBoxes
    column: NDArray[np.int64]
    row: NDArray[np.int64]
    objects: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.tiles)

    @classmethod
    def of_row(cls, row: int, tiles: list[tuple[int, TileBoxes]]) -> "_Looks":
        """All boxes of one row of windows, given as columns and boxes."""
        boxes = _concatenate([each for _, each in tiles])
        column = np.repeat(np.array([column for column, _ in tiles], dtype=np.int64), [len(each) for _, each in tiles])
        return cls(boxes, column, np.full(len(boxes), row, dtype=np.int64), np.arange(len(boxes)))

    def then(self, other: "_Looks") -> "_Looks":
        """These and after them those of the next row."""
        return _Looks(
            _concatenate([self.tiles, other.tiles]),
            np.concatenate([self.column, other.column]),
            np.concatenate([self.row, other.row]),
            np.concatenate([self.objects, other.objects + len(self)]),
        )

    def take(self, index: Mask) -> "_Looks":
        """The boxes at these positions, where every object is there with all its boxes or with none."""
        first = np.cumsum(index) - 1  # old position to new
        return _Looks(self.tiles.take(index), self.column[index], self.row[index], first[self.objects[index]])


def _concatenate(parts: list[TileBoxes]) -> TileBoxes:
    return TileBoxes(
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.cut for part in parts]),
    )


def merge_tiles(plan: ScenePlan, tiles: Iterable[tuple[int, TileBoxes]]) -> Iterator[Merged]:
    """Every object of the scene once, row by row.

    Holds one row of windows, and of the rows before it only what still touches ground that a later row sees.

    Args:
        tiles: numbers of windows, rising, and what each adds; windows without anything to add may be left out.
    Returns:
        objects whose boxes no later window can change, in the order of their first window.
    """
    waiting: _Looks | None = None
    for row, group in groupby(tiles, key=lambda tile: tile[0] // len(plan.columns)):
        looks = _Looks.of_row(row, [(index % len(plan.columns), boxes) for index, boxes in group])
        looks = looks if waiting is None else waiting.then(looks)
        looks = _join(plan, looks, row)
        open_ = _touches_later_rows(plan, looks, row)
        yield _objects(looks.take(~open_))
        waiting = looks.take(open_)
    if waiting is not None:
        yield _objects(waiting)


def _touches_later_rows(plan: ScenePlan, looks: _Looks, row: int) -> Mask:
    """Boxes of objects of which any box reaches into windows of a later row."""
    if row == len(plan.rows) - 1:
        return np.zeros(len(looks), dtype=bool)
    touches = looks.tiles.boxes[:, 3] > plan.rows[row + 1]
    any_touches = np.zeros(len(looks), dtype=bool)
    any_touches[looks.objects[touches]] = True
    return any_touches[looks.objects]


def _join(plan: ScenePlan, looks: _Looks, row: int) -> _Looks:
    """Looks with the objects that pairs of windows agree on, where the later window of the pair is in this row."""
    pairs = [(looks.objects, np.arange(len(looks)))]
    reach_x, reach_y = plan.reach
    for down in range(reach_y + 1):
        for right in range(-reach_x if down else 1, reach_x + 1):
            pairs.append(_pairs(plan, looks, row, right, down))
    first, second = (np.concatenate(sides) for sides in zip(*pairs, strict=True))
    return _Looks(looks.tiles, looks.column, looks.row, connected(len(looks), first, second))


def _pairs(
    plan: ScenePlan, looks: _Looks, row: int, right: int, down: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Boxes that are one object, of a window of this row and of the one that is so far left and above."""
    later, earlier = np.flatnonzero(looks.row == row), np.flatnonzero(looks.row == row - down)
    later, ours = _in_window(plan, looks, later, -right, -down)
    earlier, theirs = _in_window(plan, looks, earlier, right, down)
    groups, scores = looks.tiles.labels * len(plan.columns) + looks.column, looks.tiles.scores  # by the earlier window
    one, two = agreeing_pairs(
        GroupedBoxes(theirs, scores[earlier], groups[earlier]), GroupedBoxes(ours, scores[later], groups[later] - right)
    )
    return earlier[one], later[two]


def _in_window(
    plan: ScenePlan, looks: _Looks, index: NDArray[np.int64], right: int, down: int
) -> tuple[NDArray[np.int64], FloatArray]:
    """Those of the boxes that reach into the window so far right of and below their own, and their parts in it.

    Without whole boxes far from the seam with that window: it claims none of what they show.
    """
    boxes, cut = looks.tiles.boxes[index], looks.tiles.cut[index]
    reach = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]) + _SEAM
    shared, parts = np.ones(len(index), dtype=bool), boxes.copy()
    for axis, own, step in ((0, looks.column[index], right), (1, looks.row[index], down)):
        starts, other = plan.starts[axis], own + step
        shared &= (other >= 0) & (other < len(starts))
        begin = starts[np.clip(other, 0, len(starts) - 1)]
        parts[:, axis] = np.maximum(boxes[:, axis], begin)
        parts[:, axis + 2] = np.minimum(boxes[:, axis + 2], begin + plan.size)
        shared &= parts[:, axis + 2] > parts[:, axis]
        if step:
            seam = (starts[own] + begin + plan.size) / 2
            shared &= cut | (np.abs((boxes[:, axis] + boxes[:, axis + 2]) / 2 - seam) <= reach)
    return index[shared], parts[shared]


def _objects(looks: _Looks) -> Merged:
    """One box for each object: the best of those that see it whole, else what encloses all its parts."""
    tiles = looks.tiles
    order = np.lexsort((np.arange(len(looks)), -tiles.scores, tiles.cut, looks.objects))
    _, first = np.unique(looks.objects[order], return_index=True)
    if not len(first):
        return Merged(tiles.boxes, tiles.scores, tiles.labels)
    best, sorted_boxes = order[first], tiles.boxes[order]
    low = np.minimum.reduceat(sorted_boxes[:, :2], first)
    high = np.maximum.reduceat(sorted_boxes[:, 2:], first)
    enclosing = np.concatenate([low, high], axis=1)
    boxes = np.where(tiles.cut[best][:, None], enclosing, tiles.boxes[best])
    return Merged(boxes, tiles.scores[best], tiles.labels[best])
