"""Pairs of boxes by a grid: the same as by comparing all with all, in work that grows with the number of boxes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.box_pairs import SAME, GroupedBoxes, agreeing_pairs, candidate_pairs, connected
from service.detections import pairwise_iou


def crowd(seed: int, count: int, side: float, groups: int = 3, largest: float = 40) -> GroupedBoxes:
    """Boxes of 0.5 to `largest` px anywhere in a square."""
    rng = np.random.default_rng(seed)
    corner, size = rng.uniform(0, side, (count, 2)), np.exp(rng.uniform(np.log(0.5), np.log(largest), (count, 2)))
    boxes = np.concatenate([corner, corner + size], axis=1).astype(np.float32)
    return GroupedBoxes(boxes, rng.uniform(0, 1, count).astype(np.float32), rng.integers(0, groups, count))


def moved(boxes: GroupedBoxes, seed: int) -> GroupedBoxes:
    """The same boxes seen again, each up to a fifth of its sides elsewhere, in another order."""
    rng = np.random.default_rng(seed)
    sides = boxes.boxes[:, 2:] - boxes.boxes[:, :2]
    seen = boxes.boxes + np.tile(rng.uniform(-0.2, 0.2, sides.shape) * sides, 2)
    order = rng.permutation(len(seen))
    return GroupedBoxes(seen[order].astype(np.float32), boxes.scores[order], boxes.groups[order])


def all_pairs(first: GroupedBoxes, second: GroupedBoxes) -> NDArray[np.float32]:
    """(M, N) IoU, 0 between groups."""
    return pairwise_iou(first.boxes, second.boxes) * (first.groups[:, None] == second.groups)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 120), side=st.sampled_from([10, 100, 1000]))
def test_the_grid_finds_every_pair_that_comparing_all_finds(seed: int, count: int, side: float) -> None:
    first = crowd(seed, count, side)
    second = moved(first, seed)
    found = set(zip(*(side.tolist() for side in candidate_pairs(first, second)), strict=True))
    expected = set(zip(*(side.tolist() for side in np.nonzero(all_pairs(first, second) > SAME)), strict=True))
    assert found >= expected


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), count=st.integers(0, 120))
def test_pairs_are_those_of_greedy_matching(seed: int, count: int) -> None:
    first = crowd(seed, count, 60)
    second = moved(first, seed)
    iou = all_pairs(first, second)
    good = np.where(iou > SAME, iou * np.sqrt(first.scores[:, None] * second.scores), 0)
    expected: set[tuple[int, int]] = set()
    while good.any():
        left, right = (int(place) for place in np.unravel_index(good.argmax(), good.shape))
        expected.add((left, right))
        good[left], good[:, right] = 0, 0
    found = agreeing_pairs(first, second)
    assert set(zip(*(side.tolist() for side in found), strict=True)) == expected


@pytest.mark.parametrize("count", [2_000, 33_000])
def test_candidates_of_a_crowd_grow_with_its_size_and_not_with_its_square(count: int) -> None:
    first = crowd(1, count, 10 * count**0.5, largest=20)
    left, _ = candidate_pairs(first, moved(first, 2))
    assert len(left) < 4 * count


def test_thin_boxes_that_cross_are_no_pair() -> None:
    across, along = np.array([[0, 10, 100, 12]], np.float32), np.array([[49, 0, 51, 100]], np.float32)
    score, group = np.ones(1, np.float32), np.zeros(1, np.int64)
    pairs = agreeing_pairs(GroupedBoxes(across, score, group), GroupedBoxes(along, score, group))
    assert len(pairs[0]) == 0


def test_groups_are_joined_through_others() -> None:
    first, second = np.array([4, 1, 3]), np.array([1, 0, 2])
    assert connected(6, first, second).tolist() == [0, 0, 2, 2, 0, 5]


@settings(deadline=None, max_examples=40)
@given(pairs=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40))
def test_groups_are_those_of_following_pairs_one_by_one(pairs: list[tuple[int, int]]) -> None:
    expected = list(range(31))
    for one, two in pairs:
        low, high = sorted((expected[one], expected[two]))
        expected = [low if each == high else each for each in expected]
    sides = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    assert connected(31, sides[:, 0], sides[:, 1]).tolist() == expected
