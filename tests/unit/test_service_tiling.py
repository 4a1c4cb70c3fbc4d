"""Pictures in tiles: nothing is left out, and every object is found once."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.analysis import HeatMaps, ModelResult
from service.errors import InvalidParameterError
from service.picture_tiles import Tiling, cut_window, join_results, plan_tiles, tile_size

SIZE, STRIDE = 160, 32
sides = st.integers(1, 1200)


def plan(width: int, height: int, tile: int = SIZE) -> Tiling:
    return plan_tiles(width, height, tile, SIZE, STRIDE, most=10_000)


@pytest.mark.parametrize(
    ("option", "longest", "expected"),
    [("off", 9000, None), ("auto", 480, None), ("auto", 481, 320), (200, 150, None), (200, 201, 200)],
)
def test_a_picture_is_cut_where_it_is_larger_than_the_option_says(
    option: str | int, longest: int, expected: int | None
) -> None:
    assert tile_size(option, longest, 10, SIZE) == expected  # pyright: ignore[reportArgumentType]


@settings(deadline=None, max_examples=40)
@given(width=sides, height=sides, tile=st.integers(80, 400))
def test_every_pixel_belongs_to_one_core_inside_its_window(width: int, height: int, tile: int) -> None:
    tiling = plan(width, height, tile)
    owners = np.zeros((tiling.extent[1], tiling.extent[0]), dtype=int)
    for window in tiling.plan:
        x1, y1, x2, y2 = window.core
        assert window.left <= x1 < x2 <= window.left + SIZE
        assert window.top <= y1 < y2 <= window.top + SIZE
        assert not any(edge % STRIDE for edge in (window.left, window.top, *window.core))
        owners[y1:y2, x1:x2] += 1
    assert (owners == 1).all()
    assert tiling.extent[0] >= tiling.frame.new_width
    assert tiling.extent[1] >= tiling.frame.new_height


@settings(deadline=None, max_examples=40)
@given(width=sides, height=sides)
def test_neighbouring_windows_overlap_enough(width: int, height: int) -> None:
    tiling = plan(width, height)
    for starts in ({window.left for window in tiling.plan}, {window.top for window in tiling.plan}):
        ordered = sorted(starts)
        assert all(first + SIZE - second >= tiling.plan.overlap for first, second in pairwise(ordered))


def test_too_many_tiles_are_refused_with_the_way_out() -> None:
    with pytest.raises(InvalidParameterError, match=r"makes 625 tiles .* the limit is 256 \(HEATQUERY_MAX_TILES\)"):
        plan_tiles(2400, 2400, 160, SIZE, STRIDE, most=256)


def test_a_window_at_the_end_is_padded() -> None:
    tiling = plan(200, 100)
    pixels = np.full((100, 200, 3), 7, np.uint8)
    last = cut_window(pixels, tiling.plan.window(len(tiling.plan) - 1), SIZE, 114)
    inside = 200 - tiling.plan.window(len(tiling.plan) - 1).left
    assert (last[:, :100, :inside] == 7).all()
    assert (last[:, 100:] == 114).all()
    assert (last[:, :, inside:] == 114).all()


def found(*boxes: tuple[float, float, float, float, float]) -> ModelResult:
    """A result with boxes x1, y1, x2, y2 in canvas pixels and their scores, of one class."""
    values = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    cells = SIZE // 8
    maps = HeatMaps(np.ones((cells, cells), np.float32), (), (np.ones((4, cells, cells), np.uint16),))
    return ModelResult(1.0, len(values), values[:, :4], values[:, 4:], maps, {"encode": 1.0})


def look(tiling: Tiling, *objects: tuple[float, float, float, float]) -> list[ModelResult]:
    """What an exact model would see in each window: objects, cut at the window's edges."""
    results: list[ModelResult] = []
    for window in tiling.plan:
        offset = np.array([window.left, window.top] * 2)
        cut = np.clip(np.array(objects).reshape(-1, 4) - offset, 0, SIZE)
        seen = cut[(cut[:, 2] - cut[:, 0] > 2) & (cut[:, 3] - cut[:, 1] > 2)]
        results.append(found(*[(x1, y1, x2, y2, 0.9) for x1, y1, x2, y2 in seen.tolist()]))
    return results


@settings(deadline=None, max_examples=40)
@given(x=st.floats(0, 460), y=st.floats(0, 300), width=st.floats(4, 40), height=st.floats(4, 40))
def test_an_object_no_larger_than_the_overlap_is_found_once_wherever_it_lies(
    x: float, y: float, width: float, height: float
) -> None:
    tiling = plan(500, 340)
    box = (x, y, min(x + width, 500), min(y + height, 340))
    joined = join_results(tiling, look(tiling, box), found())
    assert len(joined.boxes) == 1
    np.testing.assert_allclose(joined.boxes[0], box, atol=1e-2)


def test_an_object_on_a_corner_of_four_tiles_is_found_once() -> None:
    tiling = plan(300, 300)
    assert len(tiling.plan) == 9
    x = y = tiling.plan.window(0).core[2]
    joined = join_results(tiling, look(tiling, (x - 10, y - 10, x + 10, y + 10)), found())
    assert joined.boxes.tolist() == [[x - 10, y - 10, x + 10, y + 10]]


def test_two_neighbours_across_a_seam_stay_two() -> None:
    tiling = plan(300, 160)
    seam = tiling.plan.window(0).core[2]
    objects = [(seam - 14.0, 20.0, seam - 2.0, 32.0), (seam + 2.0, 20.0, seam + 14.0, 32.0)]
    assert len(join_results(tiling, look(tiling, *objects), found()).boxes) == 2


def test_an_object_larger_than_the_overlap_comes_whole_from_the_overview() -> None:
    tiling = plan(300, 160)
    whole = (100.0, 30.0, 220.0, 120.0)
    scale = tiling.overview.scale_x / tiling.frame.scale_x
    x1, y1, x2, y2 = (scale * edge for edge in whole)
    overview = found((x1, y1, x2, y2, 0.8))
    joined = join_results(tiling, look(tiling, whole), overview)
    assert len(joined.boxes) == 1
    np.testing.assert_allclose(joined.boxes[0], whole, atol=1e-3)


def test_small_boxes_of_the_overview_are_left_to_the_tiles() -> None:
    tiling = plan(300, 160)
    assert len(join_results(tiling, look(tiling), found((10, 10, 20, 20, 0.9))).boxes) == 0


def test_heat_and_count_come_from_the_window_that_owns_the_place() -> None:
    tiling = plan(300, 160)
    results = [found() for _ in tiling.plan]
    for number, result in enumerate(results):
        result.maps.density[:] = number
    joined = join_results(tiling, results, found())
    assert joined.maps.density.shape == (tiling.extent[1] // 8, tiling.extent[0] // 8)
    for number, window in enumerate(tiling.plan):
        x1, y1, x2, y2 = (edge // 8 for edge in window.core)
        assert (joined.maps.density[y1:y2, x1:x2] == number).all()
    assert joined.estimated_count == pytest.approx(joined.maps.density.sum())
