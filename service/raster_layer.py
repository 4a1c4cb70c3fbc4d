"""One resolution of a scene's file, read in windows: the picture itself, an overview, or blocks of pixels averaged."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from service.picture_orientation import PixelWindow
from service.raster_checks import gdal
from service.raster_scaling import Palette, Stretch, Valid, Values

_SAMPLE_SIDE, _SAMPLES_PER_SIDE = 256, 8
_LOOK_SIDE = 1024
_ROWS_AT_ONCE = 64  # of the file, so that GDAL's cache holds all bands of them
Pixels = NDArray[np.uint8]


class BandReader:
    """Windows of stored values at one resolution.

    Attributes:
        width, height: in pixels of this resolution.
        rows_at_once: how many full rows to read in one go.
    """

    def __init__(
        self, dataset: DatasetReader, path: Path, bands: tuple[int, ...], reduction: int = 1, thinned: bool = False
    ) -> None:
        """
        Args:
            bands: read, from 1.
            reduction: pixels of the dataset on a side of what one pixel here stands for.
            thinned: take one of these pixels and not their average.
        """
        self._dataset, self._path, self._bands, self._reduction = dataset, path, list(bands), reduction
        self._resampling = Resampling.nearest if thinned else Resampling.average
        self._all_valid = all(dataset.mask_flag_enums[band - 1] == [MaskFlags.all_valid] for band in bands)
        self.width, self.height = -(-dataset.width // reduction), -(-dataset.height // reduction)
        self.rows_at_once = max(1, _ROWS_AT_ONCE // reduction)

    def read(self, window: PixelWindow) -> tuple[Values, Valid]:
        """Values (bands, h, w), and flags (h, w) of the pixels that hold data.

        Raises:
            UndecodableImageError, OutOfMemoryError.
        """
        across, down = self._dataset.width / self.width, self._dataset.height / self.height
        source = Window(window.left * across, window.top * down, window.width * across, window.height * down)  # type: ignore[call-arg]
        shape = (len(self._bands), window.height, window.width)
        options: dict[str, Any] = {} if self._reduction == 1 else {"out_shape": shape, "resampling": self._resampling}
        with gdal(self._path):
            values = self._dataset.read(self._bands, window=source, **options)
            if self._all_valid:
                return values, np.ones(shape[1:], dtype=bool)
            masks = self._dataset.read_masks(self._bands, window=source, **options)
        return values, (masks > 0).any(axis=0)


class Layer:
    """The same as 8-bit RGB, padding where no data is."""

    def __init__(self, bands: BandReader, colours: Stretch | Palette, pad_value: int) -> None:
        self._bands, self._colours, self._pad_value = bands, colours, pad_value
        self.width, self.height, self.rows_at_once = bands.width, bands.height, bands.rows_at_once

    def read(self, window: PixelWindow) -> tuple[Pixels, Valid]:
        """Pixels (h, w, 3), and flags (h, w) of those that hold data.

        Raises:
            UndecodableImageError, OutOfMemoryError.
        """
        pixels, valid = self._colours.to_rgb(*self._bands.read(window))
        if not valid.all():
            pixels = np.where(valid[..., None], pixels, np.uint8(self._pad_value))
        return pixels, valid


class RowKeeper:
    """A layer of a file that is stored by whole rows, which are kept while windows need them.

    Without it, each window would decode its rows again, and of a PNG or JPEG all rows above, too.
    """

    def __init__(self, layer: Layer, keeps_all: bool) -> None:
        """
        Args:
            keeps_all: for windows that do not come row by row.
        """
        self._layer, self._keeps_all = layer, keeps_all
        self.width, self.height = layer.width, layer.height
        self._top, self._rows = 0, 0  # what is held now, in the first rows of:
        self._pixels, self._valid = np.empty((0, self.width, 3), np.uint8), np.empty((0, self.width), bool)

    def read(self, window: PixelWindow) -> tuple[Pixels, Valid]:
        """As the layer does, which see."""
        top, bottom = (0, self.height) if self._keeps_all else (window.top, window.top + window.height)
        self._hold(top, bottom)
        rows = slice(window.top - self._top, window.top - self._top + window.height)
        columns = slice(window.left, window.left + window.width)
        return self._pixels[rows, columns], self._valid[rows, columns]

    def _hold(self, top: int, bottom: int) -> None:
        """Have the rows from `top` to `bottom` at hand, reading only those that are new."""
        held = self._top + self._rows
        if self._top <= top and bottom <= held:
            return
        first = held if self._top <= top <= held else top  # that is new
        kept = slice(top - self._top, first - self._top)
        pixels, valid = self._pixels, self._valid
        if len(pixels) < bottom - top:
            pixels, valid = (
                np.empty((bottom - top, self.width, 3), np.uint8),
                np.empty((bottom - top, self.width), bool),
            )
        pixels[: first - top], valid[: first - top] = self._pixels[kept], self._valid[kept]
        self._top, self._rows, self._pixels, self._valid = top, first - top, pixels, valid
        step = self._layer.rows_at_once
        for start in range(first, bottom, step):
            end = min(start + step, bottom)
            new = slice(start - top, end - top)
            pixels[new], valid[new] = self._layer.read(PixelWindow(0, start, self.width, end - start))
            self._rows = end - top


def choose_level(dataset: DatasetReader, scale: float) -> tuple[int | None, int]:
    """The coarsest overview that is fine enough for a scale, from 0, and how many of its pixels to average on a side.

    The overview is None for the picture itself.
    """
    wanted = 1 / scale + 1e-6
    factors = {factor: index for index, factor in enumerate(dataset.overviews(1)) if 1 < factor <= wanted}
    best = max(factors, default=1)
    return factors.get(best), max(1, int(wanted / best))


def sample_values(dataset: DatasetReader, path: Path, bands: tuple[int, ...]) -> tuple[Values, Valid]:
    """Values (bands, m) of pixels from all over a file, and flags (m,), always the same ones.

    A grid of windows is read and not a thinned-out picture, as that would decode every block of the file.
    """
    full = BandReader(dataset, path, bands)
    block_height, block_width = dataset.block_shapes[0]
    parts = [
        full.read(PixelWindow(left, top, min(_SAMPLE_SIDE, full.width), min(_SAMPLE_SIDE, full.height)))
        for top in _sample_starts(full.height, block_height)
        for left in _sample_starts(full.width, block_width)
    ]
    values = np.concatenate([values.reshape(len(bands), -1) for values, _ in parts], axis=1)
    valid = np.concatenate([valid.ravel() for _, valid in parts])
    if (valid & np.isfinite(values).all(axis=0)).any():
        return values, valid
    step = max(1, -(-max(full.width, full.height) // _LOOK_SIDE))  # all windows fell beside the data
    thinned = BandReader(dataset, path, bands, step, thinned=True)
    values, valid = thinned.read(PixelWindow(0, 0, thinned.width, thinned.height))
    return values.reshape(len(bands), -1), valid.ravel()


def _sample_starts(length: int, block: int) -> list[int]:
    """Where windows begin along a side, at blocks' edges where these are small."""
    grid = block if block * _SAMPLES_PER_SIDE <= length else 1
    starts = np.linspace(0, max(0, length - _SAMPLE_SIDE), _SAMPLES_PER_SIDE).astype(int)
    return sorted({int(start) // grid * grid for start in starts})
