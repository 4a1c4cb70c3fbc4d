"""What holds no data - by nodata value, opacity, mask or NaN - is padding, and a window of nothing else says so."""

from pathlib import Path

import numpy as np
import pytest
from made_rasters import PAD, PLACED, noise, read_whole, write_tiff
from PIL import Image

from service.raster import RasterOptions, open_raster

EMPTY = np.zeros((40, 60), dtype=bool)
EMPTY[:, :30] = True


@pytest.fixture(params=["nodata", "alpha", "mask", "nan", "png"])
def half_empty(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Data on the right half only."""
    path, values = tmp_path / "a.tif", noise(40, 60)
    opacity = np.where(EMPTY, 0, 255).astype(np.uint8)
    match request.param:
        case "nodata":
            return write_tiff(path, np.where(EMPTY[..., None], 0, values), nodata=0, **PLACED)
        case "alpha":
            return write_tiff(path, np.dstack((values, opacity)), photometric="RGB", alpha="YES", **PLACED)
        case "mask":
            return write_tiff(path, values, mask=opacity, **PLACED)
        case "nan":
            return write_tiff(path, np.where(EMPTY[..., None], np.nan, values).astype(np.float32), **PLACED)
        case _:
            Image.fromarray(np.dstack((values, opacity))).save(tmp_path / "a.png")
            return tmp_path / "a.png"


def test_no_data_is_padding(half_empty: Path) -> None:
    assert (read_whole(half_empty).pixels[:, :30] == PAD).all()


def test_data_beside_no_data_is_kept(half_empty: Path) -> None:
    pixels = read_whole(half_empty, RasterOptions(scaling="none")).pixels
    assert np.array_equal(pixels[:, 30:], noise(40, 60)[:, 30:])


@pytest.mark.parametrize(("left", "expected"), [(0, False), (16, True), (30, True)])
def test_a_window_is_valid_where_one_pixel_is(half_empty: Path, left: int, expected: bool) -> None:
    with open_raster(half_empty, RasterOptions(), PAD) as raster:
        assert raster.read(left, 0, 15, 40).valid is expected


def test_one_band_of_the_nodata_value_is_data(tmp_path: Path) -> None:
    values = noise(4, 4)
    values[..., 0] = 0
    assert np.array_equal(read_whole(write_tiff(tmp_path / "a.tif", values, nodata=0)).pixels, values)


def test_infinity_is_no_data(tmp_path: Path) -> None:
    values = noise(40, 60, dtype="float32")
    values[3, 5, 1] = np.inf
    assert (read_whole(write_tiff(tmp_path / "a.tif", values)).pixels[3, 5] == PAD).all()


def test_a_scene_of_nothing_has_no_valid_window(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((40, 60, 3), np.nan, dtype=np.float32))
    assert not read_whole(path).valid


def test_a_transparent_colour_of_a_palette_is_no_data(tmp_path: Path) -> None:
    picture = Image.fromarray((noise(20, 30, bands=1)[..., 0] % 2).astype(np.uint8), mode="P")
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert {tuple(colour) for colour in read_whole(tmp_path / "a.png").pixels.reshape(-1, 3)} == {
        (PAD, PAD, PAD),
        (0, 255, 0),
    }


def test_the_stretch_is_measured_on_data_even_where_most_is_none(tmp_path: Path) -> None:
    values = np.zeros((3000, 3000, 1), dtype=np.uint16)
    values[1300:1400, 1300:1400] = noise(100, 100, bands=1, dtype="uint16")
    path = write_tiff(tmp_path / "a.tif", values, nodata=0, compress="deflate", tiled=True)
    with open_raster(path, RasterOptions(), PAD) as raster:
        assert raster.read(1300, 1300, 100, 100).pixels.std() > 60


@pytest.mark.parametrize("resolution", [200.0, 300.0, 700.0])
def test_a_resized_scene_keeps_its_empty_part(half_empty: Path, resolution: float) -> None:
    if half_empty.suffix == ".png":
        pytest.skip("a PNG has no ground resolution")
    tile = read_whole(half_empty, RasterOptions(resolution_cm=resolution))
    side = tile.pixels.shape[1] // 2
    assert (tile.pixels[:, : side - 1] == PAD).all()
    assert not (tile.pixels[:, side + 1 :] == PAD).all(axis=2).any()


def test_a_mask_is_followed_in_an_overview(tmp_path: Path) -> None:
    mask = np.where(np.arange(600) < 300, 0, 255).astype(np.uint8)[None].repeat(400, axis=0)
    path = write_tiff(tmp_path / "a.tif", noise(400, 600), mask=mask, overviews=[2], **PLACED)
    with open_raster(path, RasterOptions(resolution_cm=200), PAD) as raster:
        assert [raster.read(left, 0, 140, 200).valid for left in (0, 155)] == [False, True]
