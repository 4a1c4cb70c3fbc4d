"""Windows of a scene put together: every object once, however it lies, and however many there are."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.detections import pairwise_iou
from service.merging import Merged, TileBoxes, keep_of_tile, merge_tiles
from service.tiling import ScenePlan, Window, plan_scene

SIZE, STRIDE, OVERLAP = 160, 32, 64
CLASSES = 3
Box = tuple[float, float, float, float]
Boxes = NDArray[np.float64]
Scene = tuple[ScenePlan, Boxes, NDArray[np.int64]]
"""A plan, and the objects with their classes."""


def look(plan: ScenePlan, window: Window, objects: Boxes, labels: NDArray[np.int64]) -> TileBoxes:
    """What a window adds when an exact model sees every object in it, cut at its edges."""
    seen = np.clip(objects - np.array([window.left, window.top] * 2), 0, plan.size)
    there = (seen[:, 2:] - seen[:, :2] > 0.5).all(axis=1)
    scores = np.zeros((int(there.sum()), CLASSES), np.float32)
    scores[np.arange(len(scores)), labels[there]] = 0.9
    return keep_of_tile(plan, window, seen[there].astype(np.float32), scores, 0.05)


def scan(plan: ScenePlan, objects: Boxes, labels: NDArray[np.int64]) -> Iterator[tuple[int, TileBoxes]]:
    return ((index, look(plan, window, objects, labels)) for index, window in enumerate(plan))


def merged(plan: ScenePlan, tiles: Iterator[tuple[int, TileBoxes]] | list[tuple[int, TileBoxes]]) -> Merged:
    return Merged.concatenate(list(merge_tiles(plan, tiles)))


def found(plan: ScenePlan, *objects: Box) -> Boxes:
    """What is found of objects of one class, sorted."""
    array = np.array(objects, dtype=np.float64).reshape(-1, 4)
    return sort(merged(plan, scan(plan, array, np.zeros(len(array), np.int64))).boxes)


def sort(boxes: NDArray[np.floating]) -> Boxes:
    return boxes[np.lexsort(boxes.T)].astype(np.float64)


def tile(*boxes: tuple[float, float, float, float, float]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Boxes and scores of class 0."""
    values = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    return values[:, :4], values[:, 4:]


@st.composite
def scenes(draw: st.DrawFn, largest: int | None = None) -> Scene:
    """Objects with sides from 2 px to `largest`, or to what is whole in some window; few of one class overlap much."""
    overlap = STRIDE * draw(st.integers(1, 2))
    plan = plan_scene(draw(st.integers(4, 900)), draw(st.integers(4, 700)), SIZE, STRIDE, overlap)
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    count, longest = draw(st.integers(0, 40)), largest or overlap - 4
    end = np.array([plan.width, plan.height])
    size = np.minimum(rng.uniform(2, longest, (count, 2)), end)
    corner = rng.uniform(0, 1, (count, 2)) * (end - size)
    objects, labels = np.concatenate([corner, corner + size], axis=1), rng.integers(0, CLASSES, count)
    same = np.triu(pairwise_iou(objects, objects) > 0.25, 1) & (labels[:, None] == labels)  # pyright: ignore[reportArgumentType]
    keep = ~same.any(axis=0)
    return plan, objects[keep], labels[keep]


@settings(deadline=None, max_examples=80)
@given(scene=scenes())
def test_every_object_no_larger_than_the_overlap_is_found_once(
    scene: Scene,
) -> None:
    plan, objects, labels = scene
    result = merged(plan, scan(plan, objects, labels))
    for label in range(CLASSES):
        np.testing.assert_allclose(
            sort(result.boxes[result.labels == label]), sort(objects[labels == label]), atol=1e-3
        )


@settings(deadline=None, max_examples=80)
@given(scene=scenes(largest=800), which=st.integers(0, 10**6))
def test_an_object_larger_than_the_overlap_is_put_together_from_its_parts(scene: Scene, which: int) -> None:
    plan, objects, labels = scene
    assume(len(objects))
    one = [which % len(objects)]
    result = merged(plan, scan(plan, objects[one], labels[one]))
    np.testing.assert_allclose(result.boxes, objects[one], atol=1e-3)
    assert result.labels.tolist() == labels[one].tolist()


def test_an_object_on_a_corner_of_four_windows_is_found_once() -> None:
    plan = plan_scene(300, 300, SIZE, STRIDE, OVERLAP)
    x = y = sum(plan.seams(0, 0)[1:])
    assert found(plan, (x - 10, y - 10, x + 10, y + 10)).tolist() == [[x - 10, y - 10, x + 10, y + 10]]


def test_an_object_over_six_windows_is_found_once() -> None:
    plan = plan_scene(400, 300, SIZE, STRIDE, OVERLAP)
    assert found(plan, (20, 90, 390, 200)).tolist() == [[20, 90, 390, 200]]


def test_neighbours_across_a_seam_stay_two() -> None:
    plan = plan_scene(300, 160, SIZE, STRIDE, OVERLAP)
    seam = plan.seams(0, 0)[1]
    objects = [(seam - 14.0, 20.0, seam - 2.0, 32.0), (seam + 2.0, 20.0, seam + 14.0, 32.0)]
    assert len(found(plan, *objects)) == 2


def test_two_large_objects_side_by_side_stay_two() -> None:
    plan = plan_scene(400, 160, SIZE, STRIDE, OVERLAP)
    objects = [(20.0, 10.0, 380.0, 40.0), (20.0, 44.0, 380.0, 74.0)]
    assert found(plan, *objects).tolist() == [list(each) for each in objects]


def test_objects_of_two_classes_at_one_place_stay_two() -> None:
    plan = plan_scene(300, 160, SIZE, STRIDE, OVERLAP)
    seam = plan.seams(0, 0)[1]
    objects = np.array([[seam - 10, 20, seam + 10, 40]] * 2)
    assert sorted(merged(plan, scan(plan, objects, np.array([0, 1]))).labels.tolist()) == [0, 1]


def test_two_looks_that_differ_a_little_become_the_one_with_the_higher_score() -> None:
    plan = plan_scene(300, 160, SIZE, STRIDE, OVERLAP)
    left, right = plan.window(0), plan.window(1)
    seam = plan.seams(0, 0)[1]
    first = keep_of_tile(plan, left, *tile((seam - 13, 20, seam + 9, 40, 0.6)), 0.05)
    second = keep_of_tile(plan, right, *tile((seam - 8 - right.left, 21, seam + 12 - right.left, 41, 0.7)), 0.05)
    result = merged(plan, [(0, first), (1, second)])
    assert result.boxes.tolist() == [[seam - 8, 21, seam + 12, 41]]
    assert result.scores.tolist() == pytest.approx([0.7])


def test_a_poor_second_box_of_a_window_does_not_keep_two_good_ones_apart() -> None:
    plan = plan_scene(300, 160, SIZE, STRIDE, OVERLAP)
    at = plan.seams(0, 0)[1] - 10
    left, right = plan.window(0), plan.window(1)
    first = keep_of_tile(plan, left, *tile((at, 20, at + 20, 40, 0.35), (at + 3, 20, at + 23, 40, 0.1)), 0.05)
    second = keep_of_tile(plan, right, *tile((at + 3 - right.left, 20, at + 23 - right.left, 40, 0.3)), 0.05)
    assert merged(plan, [(0, first), (1, second)]).scores.tolist() == pytest.approx([0.35, 0.1])


def test_parts_take_the_best_score_of_all() -> None:
    plan = plan_scene(250, 160, SIZE, STRIDE, OVERLAP)
    left, right = plan.window(0), plan.window(1)
    first = keep_of_tile(plan, left, *tile((20, 20, 160, 60, 0.4)), 0.05)
    second = keep_of_tile(plan, right, *tile((0, 21, 130, 60, 0.8)), 0.05)
    result = merged(plan, [(0, first), (1, second)])
    assert result.boxes.tolist() == [[20, 20, right.left + 130, 60]]
    assert result.scores.tolist() == pytest.approx([0.8])


def test_a_part_of_what_a_neighbour_sees_whole_is_not_kept() -> None:
    plan = plan_scene(300, 160, SIZE, STRIDE, OVERLAP)
    assert len(keep_of_tile(plan, plan.window(0), *tile((130, 20, 160, 40, 0.9)), 0.05)) == 0


def test_what_ends_at_the_edge_of_the_scene_is_whole() -> None:
    plan = plan_scene(300, 100, SIZE, STRIDE, OVERLAP)
    kept = keep_of_tile(plan, plan.window(0), *tile((0, 0, 20, 20, 0.9), (10, 90, 30, 130, 0.8)), 0.05)
    assert kept.boxes.tolist() == [[0, 0, 20, 20], [10, 90, 30, 100]]
    assert not kept.cut.any()


def test_boxes_in_the_padding_and_below_the_floor_are_left_out() -> None:
    plan = plan_scene(100, 100, SIZE, STRIDE, OVERLAP)
    kept = keep_of_tile(plan, plan.window(0), *tile((110, 10, 130, 30, 0.9), (10, 10, 30, 30, 0.05)), 0.05)
    assert len(kept) == 0


def test_suppression_inside_a_window_is_that_of_the_service() -> None:
    plan = plan_scene(100, 100, SIZE, STRIDE, OVERLAP)
    boxes = tile((10, 10, 30, 30, 0.9), (10, 10, 30, 31, 0.8))
    assert len(keep_of_tile(plan, plan.window(0), *boxes, 0.05, nms_iou=0.8)) == 1
    assert len(keep_of_tile(plan, plan.window(0), *boxes, 0.05)) == 2


@settings(deadline=None, max_examples=30)
@given(scene=scenes(largest=300))
def test_only_what_a_later_row_may_change_is_held_back(scene: Scene) -> None:
    plan, objects, labels = scene
    tiles = list(scan(plan, objects, labels))
    parts = list(merge_tiles(plan, tiles))
    assert len(parts) == len(plan.rows) + 1
    assert len(parts[-1]) == 0
    for row, (begin, after) in enumerate(pairwise((*plan.rows, plan.rows[-1] + plan.size))):
        if row + 1 < len(plan.rows):
            assert not len(parts[row]) or parts[row].boxes[:, 3].max() <= after
        assert not len(parts[row]) or parts[row].boxes[:, 3].max() > begin


def test_windows_without_boxes_may_be_left_out() -> None:
    plan = plan_scene(300, 900, SIZE, STRIDE, OVERLAP)
    objects = np.array([[10.0, 10, 30, 30], [10, 800, 30, 820]])
    tiles = [(index, boxes) for index, boxes in scan(plan, objects, np.zeros(2, np.int64)) if len(boxes)]
    assert sort(merged(plan, tiles).boxes).tolist() == objects.tolist()


def test_no_windows_make_no_objects() -> None:
    assert list(merge_tiles(plan_scene(300, 300, SIZE, STRIDE, OVERLAP), [])) == []
