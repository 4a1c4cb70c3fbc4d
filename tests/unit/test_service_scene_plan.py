"""Plans of scenes: no pixel without a window, one owner for each, and as little overlap as was asked for."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidParameterError
from service.tiling import ScenePlan, overlap_of, plan_scene


@st.composite
def plans(draw: st.DrawFn) -> ScenePlan:
    stride = draw(st.sampled_from([4, 8, 32]))
    size = stride * draw(st.integers(2, 12))
    overlap = stride * draw(st.integers(1, size // 2 // stride))
    width, height = draw(st.integers(1, 6 * size)), draw(st.integers(1, 6 * size))
    return plan_scene(width, height, size, stride, overlap)


@settings(deadline=None, max_examples=60)
@given(plan=plans())
def test_cores_partition_the_scene_and_lie_in_their_windows(plan: ScenePlan) -> None:
    owners = np.zeros((plan.rows[-1] + plan.size, plan.columns[-1] + plan.size), dtype=int)
    for window in plan:
        x1, y1, x2, y2 = window.core
        assert window.left <= x1 < x2 <= window.left + plan.size
        assert window.top <= y1 < y2 <= window.top + plan.size
        assert not any(edge % plan.stride for edge in (window.left, window.top, *window.core))
        owners[y1:y2, x1:x2] += 1
    assert (owners == 1).all()
    assert owners.shape >= (plan.height, plan.width)


@settings(deadline=None, max_examples=60)
@given(plan=plans())
def test_neighbours_share_the_overlap_and_the_last_ends_with_the_scene(plan: ScenePlan) -> None:
    for starts, length in ((plan.columns, plan.width), (plan.rows, plan.height)):
        assert all(first + plan.size - second >= plan.overlap for first, second in pairwise(starts))
        assert len(starts) == 1 or length <= starts[-1] + plan.size < length + plan.stride


@settings(deadline=None, max_examples=60)
@given(plan=plans())
def test_no_plan_has_more_windows_than_the_overlap_asks_for(plan: ScenePlan) -> None:
    for starts, length in ((plan.columns, plan.width), (plan.rows, plan.height)):
        reached = plan.size + (len(starts) - 2) * (plan.size - plan.overlap)
        assert len(starts) == 1 or reached < length


def test_windows_count_row_by_row() -> None:
    plan = plan_scene(300, 500, 160, 32, 64)
    assert [(window.left, window.top) for window in plan][:4] == [(0, 0), (96, 0), (160, 0), (0, 96)]
    assert [(window.column, window.row) for window in plan][:4] == [(0, 0), (1, 0), (2, 0), (0, 1)]


def test_a_plan_of_a_million_windows_is_made_of_its_rows_alone() -> None:
    plan = plan_scene(400_000, 400_000, 544, 32, 160)
    assert len(plan) > 1_000_000
    assert len(plan.columns) + len(plan.rows) < 2_100
    assert plan.window(len(plan) - 1).left + 544 >= 400_000


def test_a_window_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(IndexError, match="window 9 of a plan with 9"):
        plan_scene(300, 300, 160, 32, 64).window(9)


@pytest.mark.parametrize("overlap", [0, -32, 30, 96])
def test_an_overlap_that_cannot_be_is_refused_with_what_can(overlap: int) -> None:
    with pytest.raises(InvalidParameterError, match=rf"overlap: {overlap} px; expected a multiple of 32 from 32 to 64"):
        plan_scene(300, 300, 160, 32, overlap)


@pytest.mark.parametrize(
    ("largest", "expected"), [(None, 160), (136.5, 160), (160, 160), (160.1, 192), (3, 32), (900, 256)]
)
def test_the_overlap_holds_the_largest_object_where_it_can(largest: float | None, expected: int) -> None:
    assert overlap_of(544, 32, largest) == expected
