"""Scenes brought to the ground resolution of the model: overviews, averages, and windows that agree with each other."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rasters import PAD, PLACED, notes_of, read_whole, smooth, write_tiff
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidParameterError
from service.raster import RasterOptions, open_raster
from service.raster_layer import choose_level

HEIGHT, WIDTH = 301, 403


def at(metres: float) -> RasterOptions:
    return RasterOptions(resolution_cm=100 * metres)


@pytest.fixture(scope="module", params=[None, [2], [2, 4, 8]], ids=["plain", "one overview", "overviews"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scene") / "a.tif"
    return write_tiff(path, smooth(HEIGHT, WIDTH), overviews=request.param, tiled=True, blockxsize=64, blockysize=64,
                      **PLACED)  # fmt: skip


@lru_cache(maxsize=1)
def whole_scene(scene: Path, metres: float) -> NDArray[np.uint8]:
    return read_whole(scene, at(metres)).pixels


@pytest.mark.parametrize("metres", [0.3, 0.5, 1.5, 2, 2.7, 4, 9])
def test_a_resized_scene_looks_like_the_whole_picture_resized(scene: Path, metres: float) -> None:
    with open_raster(scene, at(metres), PAD) as raster:
        found = raster.read(0, 0, raster.scaled_width, raster.scaled_height).pixels
        box = (0, 0, raster.scaled_width / raster.scale, raster.scaled_height / raster.scale)
        size = (raster.scaled_width, raster.scaled_height)
    expected = np.asarray(Image.fromarray(smooth(HEIGHT, WIDTH)).resize(size, Image.Resampling.BILINEAR, box))
    difference = np.abs(found - expected.astype(int))
    assert difference.mean() < 2
    assert difference.max() <= 16


@pytest.mark.parametrize("metres", [0.3, 1.5, 2, 2.7, 9])
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_windows_of_a_resized_scene_agree(scene: Path, metres: float, data: st.DataObject) -> None:
    with open_raster(scene, at(metres), PAD) as raster:
        whole = whole_scene(scene, metres)
        left = data.draw(st.integers(0, raster.scaled_width - 1))
        top = data.draw(st.integers(0, raster.scaled_height - 1))
        part = raster.read(left, top, 40, 30).pixels
    expected = whole[top : top + 30, left : left + 40]
    assert np.abs(part[: expected.shape[0], : expected.shape[1]] - expected.astype(int)).max() <= 1


@pytest.mark.parametrize(("metres", "scale"), [(1.0, 1.0), (1.04, 1.0), (0.97, 1.0), (2.0, 0.5), (0.5, 2.0)])
def test_the_scale_brings_the_ground_to_the_wanted_resolution(scene: Path, metres: float, scale: float) -> None:
    with open_raster(scene, at(metres), PAD) as raster:
        assert raster.scale == pytest.approx(scale, rel=1e-3)


def test_no_wanted_resolution_leaves_the_pixels(scene: Path) -> None:
    with open_raster(scene, RasterOptions(), PAD) as raster:
        assert (raster.scale, raster.scaled_width, raster.scaled_height) == (1.0, WIDTH, HEIGHT)


@pytest.mark.parametrize("metres", [0.2, 40])
def test_resolutions_too_far_apart_are_named(scene: Path, metres: float) -> None:
    with (
        pytest.raises(InvalidParameterError, match=rf"100 cm of ground a pixel and {metres * 100:g} cm are wanted"),
        open_raster(scene, at(metres), PAD),
    ):
        pass


def test_the_note_says_how_much_a_scene_was_resized(scene: Path) -> None:
    assert "resized by 0.5" in notes_of(scene, at(2.0))


def test_an_unknown_resolution_is_said_and_leaves_the_pixels(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", smooth(30, 40))
    assert "the ground resolution is unknown" in notes_of(path, at(2.0))


class Overviews:
    """What `choose_level` asks of a dataset."""

    def __init__(self, *factors: int) -> None:
        self._factors = list(factors)

    def overviews(self, _band: int) -> list[int]:
        return self._factors


@pytest.mark.parametrize(
    ("factors", "scale", "level"),
    [((), 1, (None, 1)), ((), 0.3, (None, 3)), ((2, 4, 8), 0.5, (0, 1)), ((2, 4, 8), 0.2, (1, 1)),
     ((2, 4), 0.05, (1, 5)), ((4, 2), 0.3, (1, 1)), ((4,), 0.5, (None, 2)), ((2, 4), 3.0, (None, 1))],
)  # fmt: skip
def test_the_coarsest_overview_that_is_fine_enough_is_read(factors: Any, scale: float, level: Any) -> None:
    assert choose_level(Overviews(*factors), scale) == level  # type: ignore[arg-type]
