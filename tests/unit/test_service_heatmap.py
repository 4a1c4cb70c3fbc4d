"""Heat lands on the picture where its cell lies, to a fraction of a pixel."""

from itertools import pairwise

import numpy as np
import pytest

from service.analysis import HeatArray, HeatMaps, keep_heat
from service.colormaps import Colormap, color_table
from service.heatmap import HeatLayer, Kind, combine_levels, place_on_picture, select_layer
from service.letterbox import Letterbox

SIZES = [(640, 640), (958, 808), (1728, 1028), (333, 1001), (1001, 333), (317, 211), (97, 63)]


def centre_of_mass(image: np.ndarray) -> tuple[float, float]:
    """(x, y) counted from the corner of the first pixel."""
    rows, columns = np.indices(image.shape)
    return float((image * (columns + 0.5)).sum() / image.sum()), float((image * (rows + 0.5)).sum() / image.sum())


def layer(values: np.ndarray, stride: int) -> HeatLayer:
    return HeatLayer(values.astype(np.float32), stride, 1.0, "")


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("stride", [8, 16, 32])
def test_a_hot_cell_is_drawn_around_the_centre_of_that_cell(width: int, height: int, stride: int) -> None:
    frame = Letterbox.fit(width, height, 640)
    row, column = frame.new_height // stride // 2, frame.new_width // stride // 3
    values = np.zeros((640 // stride, 640 // stride))
    values[row, column] = 1
    drawn = place_on_picture(layer(values, stride), frame, width, height)
    expected = ((column + 0.5) * stride / frame.scale_x, (row + 0.5) * stride / frame.scale_y)
    assert drawn.shape == (height, width)
    assert centre_of_mass(drawn) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_pixel_is_the_exact_bilinear_value(width: int, height: int) -> None:
    stride, frame = 8, Letterbox.fit(width, height, 640)
    values = np.random.default_rng(0).uniform(size=(80, 80)).astype(np.float32)
    drawn = place_on_picture(layer(values, stride), frame, width, height)
    x = np.clip((np.arange(width) + 0.5) * frame.scale_x / stride - 0.5, 0, 79)
    y = np.clip((np.arange(height) + 0.5) * frame.scale_y / stride - 0.5, 0, 79)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, bottom = np.minimum(left + 1, 79), np.minimum(top + 1, 79)
    fx, fy = x - left, (y - top)[:, None]
    upper = values[top][:, left] * (1 - fx) + values[top][:, right] * fx
    lower = values[bottom][:, left] * (1 - fx) + values[bottom][:, right] * fx
    np.testing.assert_allclose(drawn, upper * (1 - fy) + lower * fy, atol=1e-4)


def test_heat_in_the_padding_is_not_drawn() -> None:
    frame = Letterbox.fit(640, 320, 640)
    values = np.zeros((80, 80))
    values[41:] = 1
    assert place_on_picture(layer(values, 8), frame, 640, 320).max() == 0


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20_000), (20_000, 1), (3, 2)])
def test_extreme_sizes_are_drawn(width: int, height: int) -> None:
    frame = Letterbox.fit(width, height, 640)
    drawn = place_on_picture(layer(np.ones((80, 80)), 8), frame, width, height)
    np.testing.assert_allclose(drawn, np.ones((height, width)), atol=1e-5)


def test_levels_are_combined_by_their_maximum_on_the_finest_grid() -> None:
    fine, coarse = np.zeros((8, 8), np.float32), np.full((4, 4), 0.5, np.float32)
    fine[3, 3] = 0.9
    combined = combine_levels([fine, coarse])
    assert combined.shape == (8, 8)
    assert combined[3, 3] == np.float32(0.9)
    assert (np.delete(combined.ravel(), 27) == 0.5).all()


def test_a_coarse_peak_stays_at_its_place_on_the_finest_grid() -> None:
    coarse = np.zeros((10, 10), np.float32)
    coarse[4, 6] = 1
    combined = combine_levels([np.zeros((40, 40), np.float32), coarse])
    assert centre_of_mass(combined) == pytest.approx((6.5 * 4, 4.5 * 4), abs=1e-4)


def maps(density_top: float) -> HeatMaps:
    def level(side: int, *values: float) -> HeatArray:
        return keep_heat(np.stack([np.full((side, side), value, np.float32) for value in values]))

    heat = tuple(level(side, 0.1, 0.2, 0.3, 1.0) for side in (8, 4, 2))
    classes = tuple(level(side, 0, 1) for side in (8, 4, 2))
    return HeatMaps(np.full((8, 8), density_top, np.float32), classes, heat)


@pytest.mark.parametrize(("kind", "value"), [("class", 0.1), ("bbox", 0.2), ("mixed", 0.3), ("mask", 1.0)])
def test_each_kind_is_its_channel(kind: Kind, value: float) -> None:
    chosen = select_layer(maps(0.1), (8, 16, 32), kind, 1, None)
    assert (chosen.values.shape, chosen.stride) == ((4, 4), 16)
    assert chosen.values.flat[0] == pytest.approx(value, abs=1e-5)


def test_a_class_has_its_own_heat() -> None:
    assert (select_layer(maps(0.1), (8, 16, 32), "class", None, 1).values == 1).all()


@pytest.mark.parametrize(("density_top", "hot"), [(0.25, 0.25), (0.0001, 0.01)])
def test_density_is_hot_at_its_own_top_but_noise_stays_cold(density_top: float, hot: float) -> None:
    assert select_layer(maps(density_top), (8, 16, 32), "density", None, None).top == pytest.approx(hot)


@pytest.mark.parametrize("name", ["turbo", "inferno", "viridis"])
def test_colours_have_256_different_steps_without_jumps(name: Colormap) -> None:
    table = color_table(name).astype(int)
    assert table.shape == (256, 3)
    assert max(int(np.abs(second - first).max()) for first, second in pairwise(table)) <= 8


def test_raw_cells_are_cut_to_those_that_touch_the_picture() -> None:
    frame = Letterbox.fit(958, 808, 640)  # 640 x 540 on the canvas
    assert layer(np.zeros((20, 20)), 32).cut_to(frame).shape == (17, 20)
