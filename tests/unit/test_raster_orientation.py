"""The eight EXIF orientations: pixels, windows and places on the map are those of the picture as a person sees it."""

from pathlib import Path

import numpy as np
import pytest
from made_rasters import PAD, noise, read_whole, smooth
from PIL import Image, ImageOps
from rasterio import Affine

from service.picture_orientation import Orientation, PixelWindow
from service.raster import RasterOptions, open_raster

EIGHT = range(1, 9)
TAG = 0x0112


def turned(path: Path, orientation: int, pixels: np.ndarray) -> Path:
    """Store a picture with an EXIF orientation."""
    exif = Image.Exif()
    exif[TAG] = orientation
    Image.fromarray(pixels).save(path, exif=exif)
    return path


def as_seen(path: Path) -> np.ndarray:
    return np.asarray(ImageOps.exif_transpose(Image.open(path)))


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
@pytest.mark.parametrize("orientation", EIGHT)
def test_the_picture_is_read_as_it_is_seen(tmp_path: Path, orientation: int, name: str) -> None:
    path = turned(tmp_path / name, orientation, smooth(60, 90))
    assert np.abs(read_whole(path).pixels - as_seen(path).astype(int)).mean() < 1


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("orientation", EIGHT)
def test_a_window_of_a_turned_picture_is_a_cut_of_what_is_seen(tmp_path: Path, orientation: int, name: str) -> None:
    path = turned(tmp_path / name, orientation, noise(60, 90))
    with open_raster(path, RasterOptions(), PAD) as raster:
        tiles = [raster.read(left, top, 13, 21).pixels for top in (0, 30) for left in (40, 5)]
    expected = [as_seen(path)[top : top + 21, left : left + 13] for top in (0, 30) for left in (40, 5)]
    assert all(np.array_equal(tile, cut) for tile, cut in zip(tiles, expected, strict=True))


@pytest.mark.parametrize("orientation", EIGHT)
def test_shown_positions_lead_to_the_stored_pixel(orientation: int) -> None:
    stored = noise(6, 9, bands=1)[..., 0]
    turn = Orientation.of_exif(orientation)
    shown = turn.show(stored)
    back = turn.to_stored(*turn.shown_size(9, 6))
    for (y, x), value in np.ndenumerate(shown):
        column, row = back @ (x + 0.5, y + 0.5)
        assert stored[int(row), int(column)] == value


@pytest.mark.parametrize("orientation", EIGHT)
def test_a_shown_window_is_cut_from_its_stored_window(orientation: int) -> None:
    stored = noise(6, 9, bands=1)[..., 0]
    turn = Orientation.of_exif(orientation)
    window = turn.stored_window(PixelWindow(1, 2, 3, 4), *turn.shown_size(9, 6))
    cut = stored[window.top : window.top + window.height, window.left : window.left + window.width]
    assert np.array_equal(turn.show(cut), turn.show(stored)[2:6, 1:4])


def test_an_unknown_orientation_is_upright() -> None:
    assert Orientation.of_exif(9).to_stored(5, 7) == Affine.identity()
