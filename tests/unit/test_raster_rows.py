"""Files stored by rows: each row is decoded once however the windows overlap, and windows of many threads are right."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from made_rasters import PAD, noise, write_tiff
from numpy.typing import NDArray
from PIL import Image

from service.errors import PictureTooLargeError
from service.picture_orientation import PixelWindow
from service.raster import RasterOptions, open_raster
from service.raster_checks import RasterLimits
from service.raster_layer import Layer, RowKeeper

HEIGHT, WIDTH = 300, 90


class CountingLayer(Layer):
    """Noise, and how often each row of it was read."""

    def __init__(self) -> None:
        self.width, self.height, self.rows_at_once = WIDTH, HEIGHT, 64
        self.reads = np.zeros(HEIGHT, dtype=int)

    def read(self, window: PixelWindow) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        rows = slice(window.top, window.top + window.height)
        self.reads[rows] += 1
        return noise(HEIGHT, WIDTH)[rows, window.left : window.left + window.width], np.ones(
            (window.height, window.width), dtype=bool
        )


@pytest.mark.parametrize(("height", "step"), [(100, 80), (100, 100), (64, 40), (10, 1), (300, 1)])
def test_windows_row_by_row_decode_each_row_once(height: int, step: int) -> None:
    layer = CountingLayer()
    keeper = RowKeeper(layer, keeps_all=False)
    for top in range(0, HEIGHT - height + 1, step):
        for left in (0, 30, 50):
            pixels, _ = keeper.read(PixelWindow(left, top, 40, height))
            assert np.array_equal(pixels, noise(HEIGHT, WIDTH)[top : top + height, left : left + 40])
    assert layer.reads.max() == 1


def test_a_file_read_out_of_order_is_decoded_once_where_all_is_kept() -> None:
    layer = CountingLayer()
    keeper = RowKeeper(layer, keeps_all=True)
    for top in (200, 0, 100, 290):
        keeper.read(PixelWindow(0, top, WIDTH, 10))
    assert (layer.reads == 1).all()


@pytest.mark.parametrize("tops", [(200, 0, 100, 290), (0, 150, 60, 0), (100, 90, 110)])
def test_windows_in_any_order_are_right(tops: tuple[int, ...]) -> None:
    keeper = RowKeeper(CountingLayer(), keeps_all=False)
    for top in tops:
        pixels, _ = keeper.read(PixelWindow(5, top, 20, 10))
        assert np.array_equal(pixels, noise(HEIGHT, WIDTH)[top : top + 10, 5:25])


def test_very_wide_rows_are_refused_with_the_way_out(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 100))
    limits = RasterLimits(max_row_pixels=99)
    with (
        pytest.raises(PictureTooLargeError, match=r"rows of 100 px; the limit is 99.*TILED=YES"),
        open_raster(path, RasterOptions(), PAD, limits),
    ):
        pass


def test_tiles_may_be_wider_than_rows(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 100), tiled=True, blockxsize=16, blockysize=16)
    with open_raster(path, RasterOptions(), PAD, RasterLimits(max_row_pixels=99)) as raster:
        assert np.array_equal(raster.read(0, 0, 100, 20).pixels, noise(20, 100))


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_threads_with_a_raster_each_read_the_same(tmp_path: Path, name: str) -> None:
    Image.fromarray(noise(HEIGHT, WIDTH)).save(tmp_path / name)

    def read(top: int) -> NDArray[np.uint8]:
        with open_raster(tmp_path / name, RasterOptions(), PAD) as raster:
            return raster.read(0, top, WIDTH, 20).pixels

    with ThreadPoolExecutor(4) as threads:
        tiles = list(threads.map(read, range(0, 280, 7)))
    assert all(np.array_equal(tile, noise(HEIGHT, WIDTH)[7 * i : 7 * i + 20]) for i, tile in enumerate(tiles))
