"""Windows of scenes: every window is a cut of the whole picture, whatever the file's bands, values and blocks are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_rasters import PAD, noise, notes_of, read_whole, smooth, write_tiff
from PIL import Image
from rasterio.enums import ColorInterp

from service.errors import InvalidParameterError
from service.raster import RasterOptions, open_raster
from service.raster_scaling import Percentiles, ValueRange

HEIGHT, WIDTH = 75, 131
STORED: dict[str, dict[str, Any]] = {
    "strips": {},
    "tiles": {"tiled": True, "blockxsize": 32, "blockysize": 16, "compress": "deflate"},
    "planes": {"interleave": "band", "compress": "lzw"},
    "big": {"BIGTIFF": "YES", "tiled": True, "blockxsize": 64, "blockysize": 64},
}


@pytest.fixture(scope="module", params=[*STORED, "png", "interlaced"])
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stored")
    if request.param in STORED:
        return write_tiff(folder / "a.tif", noise(HEIGHT, WIDTH), photometric="RGB", **STORED[request.param])
    Image.fromarray(noise(HEIGHT, WIDTH)).save(folder / "a.png")
    return folder / "a.png"


@settings(deadline=None, max_examples=40)
@given(st.integers(-40, WIDTH), st.integers(-40, HEIGHT), st.integers(1, 90), st.integers(1, 90))
def test_a_window_is_a_cut_of_the_padded_picture(stored: Path, left: int, top: int, width: int, height: int) -> None:
    around = np.pad(noise(HEIGHT, WIDTH), ((40, 90), (40, 90), (0, 0)), constant_values=PAD)
    with open_raster(stored, RasterOptions(), PAD) as raster:
        tile = raster.read(left, top, width, height)
    assert np.array_equal(tile.pixels, around[top + 40 : top + 40 + height, left + 40 : left + 40 + width])


def test_windows_of_one_raster_may_come_in_any_order(stored: Path) -> None:
    with open_raster(stored, RasterOptions(), PAD) as raster:
        tiles = {top: raster.read(0, top, WIDTH, 20).pixels for top in (40, 0, 50, 10, 30)}
    assert all(np.array_equal(tile, noise(HEIGHT, WIDTH)[top : top + 20]) for top, tile in tiles.items())


def test_a_window_beside_the_picture_is_padding_without_data(stored: Path) -> None:
    with open_raster(stored, RasterOptions(), PAD) as raster:
        tile = raster.read(WIDTH, 0, 8, 8)
    assert not tile.valid
    assert (tile.pixels == PAD).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5)])
def test_a_picture_of_any_size_is_read(tmp_path: Path, size: tuple[int, int]) -> None:
    values = noise(*size)
    assert np.array_equal(read_whole(write_tiff(tmp_path / "a.tif", values)).pixels, values)


def test_a_jpeg_is_read_as_other_decoders_read_it(tmp_path: Path) -> None:
    Image.fromarray(smooth(90, 70)).save(tmp_path / "a.jpg", subsampling=0)
    difference = read_whole(tmp_path / "a.jpg").pixels - np.asarray(Image.open(tmp_path / "a.jpg")).astype(int)
    assert np.abs(difference).max() <= 2


def test_a_progressive_jpeg_is_read(tmp_path: Path) -> None:
    Image.fromarray(smooth(90, 70)).save(tmp_path / "a.jpg", progressive=True)
    assert read_whole(tmp_path / "a.jpg").pixels.std() > 20


def test_one_band_is_shown_as_grey(tmp_path: Path) -> None:
    values = noise(20, 30, bands=1)
    assert np.array_equal(read_whole(write_tiff(tmp_path / "a.tif", values)).pixels, values.repeat(3, axis=2))


def test_bands_go_by_the_colours_that_the_file_names(tmp_path: Path) -> None:
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    path = write_tiff(tmp_path / "a.tif", noise(20, 30), interpretation=colours, photometric="MINISBLACK")
    assert np.array_equal(read_whole(path).pixels, noise(20, 30)[..., ::-1])


def test_without_names_the_first_three_bands_are_taken(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 30, bands=5), photometric="MINISBLACK")
    assert np.array_equal(read_whole(path).pixels, noise(20, 30, bands=5)[..., :3])


def test_stated_bands_are_taken_in_their_order(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 30, bands=4))
    assert np.array_equal(
        read_whole(path, RasterOptions(bands=(4, 1, 2))).pixels, noise(20, 30, bands=4)[..., [3, 0, 1]]
    )


@pytest.mark.parametrize("bands", [(1, 2, 4), (0, 1, 2)])
def test_a_band_that_is_not_there_is_named(tmp_path: Path, bands: tuple[int, int, int]) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 30))
    with pytest.raises(InvalidParameterError, match=r"bands: the file has 3, .*found \(\d, \d, \d\)"):
        read_whole(path, RasterOptions(bands=bands))


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
def test_deep_values_are_stretched_between_their_percentiles(tmp_path: Path, dtype: str) -> None:
    values = noise(60, 80, dtype=dtype)
    low, high = np.percentile(values.reshape(-1, 3), (2, 98), axis=0)
    expected = np.clip((values - low) / (high - low) * 255, 0, 255)
    assert np.abs(read_whole(write_tiff(tmp_path / "a.tif", values)).pixels - expected).max() <= 1


def test_a_16_bit_png_is_stretched(tmp_path: Path) -> None:
    Image.fromarray(noise(40, 50, bands=1, dtype="uint16")[..., 0]).save(tmp_path / "a.png")
    assert read_whole(tmp_path / "a.png").pixels.std() > 60


def test_the_note_says_what_became_black_and_white(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(60, 80, dtype="uint16"))
    assert "uint16 values from percentile 2 to 98 of each band" in notes_of(path)


def test_the_stretch_is_the_same_for_every_window(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(60, 80, dtype="uint16") * np.linspace(0, 1, 80)[None, :, None])
    with open_raster(path, RasterOptions(), PAD) as raster:
        right = raster.read(40, 0, 40, 60).pixels
    assert np.array_equal(right, read_whole(path).pixels[:, 40:])


def test_a_stated_range_is_used(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((4, 4, 3), 500, dtype=np.uint16))
    assert (read_whole(path, RasterOptions(scaling=ValueRange(0, 1000))).pixels == 128).all()


def test_stated_percentiles_stretch_8_bits_too(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", (noise(60, 80) // 4).astype(np.uint8))
    assert read_whole(path, RasterOptions(scaling=Percentiles(0, 100))).pixels.max() == 255


def test_no_scaling_clips(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.array([[[-5, 7, 300]]], dtype=np.int16))
    assert read_whole(path, RasterOptions(scaling="none")).pixels.tolist() == [[[0, 7, 255]]]


@pytest.mark.parametrize("make", [lambda: ValueRange(5, 5), lambda: ValueRange(0, np.nan), lambda: Percentiles(90, 10)])
def test_a_range_that_is_none_is_refused(make: Any) -> None:
    with pytest.raises(InvalidParameterError, match="scaling: expected"):
        make()


def test_a_palette_becomes_its_colours(tmp_path: Path) -> None:
    indices = (noise(20, 30, bands=1) % 4).astype(np.uint8)
    colours = {0: (9, 8, 7, 255), 1: (255, 0, 0, 255), 2: (0, 255, 0, 255), 3: (0, 0, 255, 255)}
    expected = np.array([colour[:3] for colour in colours.values()])[indices[..., 0]]
    assert np.array_equal(read_whole(write_tiff(tmp_path / "a.tif", indices, colours=colours)).pixels, expected)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_picture_of_one_bit_is_black_and_white(tmp_path: Path, name: str) -> None:
    Image.fromarray(noise(20, 30, bands=1)[..., 0]).convert("1").save(tmp_path / name)
    assert set(read_whole(tmp_path / name).pixels.ravel()) == {0, 255}


def test_white_is_zero_where_the_file_says_so(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 30, bands=1), photometric="MINISWHITE")
    assert np.array_equal(read_whole(path).pixels[..., 0], 255 - noise(20, 30, bands=1)[..., 0])
