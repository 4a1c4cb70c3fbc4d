"""One resolution of a scene's file, read in windows: the picture itself, an overview, or blocks of pixels averaged."""

from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import MaskFlags, Resampling
from rasterio.io import DatasetReader
from rasterio.windows import Window

from service.picture_orientation import PixelWindow
from service.raster_checks import gdal
from service.raster_scaling import Valid, Values

_SAMPLE_SIDE, _SAMPLES_PER_SIDE = 256, 8
_LOOK_SIDE = 1024


class Layer:
    """Windows of stored values at one resolution.

    Attributes:
        width, height: in pixels of this resolution.
    """

    def __init__(
        self, dataset: DatasetReader, path: Path, bands: tuple[int, ...], reduction: int, is_palette: bool
    ) -> None:
        """
        Args:
            bands: read, from 1.
            reduction: pixels of the dataset on a side of what one pixel here is averaged from.
            is_palette: the values are numbers of colours, of which there is no average.
        """
        self._dataset, self._path, self._bands, self._reduction = dataset, path, list(bands), reduction
        self._resampling = Resampling.nearest if is_palette else Resampling.average
        self._all_valid = all(dataset.mask_flag_enums[band - 1] == [MaskFlags.all_valid] for band in bands)
        self.width, self.height = -(-dataset.width // reduction), -(-dataset.height // reduction)

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


class RowKeeper:
    """A layer of PNG or JPEG, which are decoded from the first row on: full rows are kept while windows need them.

    Without it, each step back up to the next row of windows would decode the file again from its beginning.
    """

    def __init__(self, layer: Layer, keeps_all: bool) -> None:
        """
        Args:
            keeps_all: for windows that do not come row by row.
        """
        self._layer, self._keeps_all = layer, keeps_all
        self.width, self.height = layer.width, layer.height
        self._top, self._values, self._valid = 0, None, np.zeros((0, 0), dtype=bool)

    def read(self, window: PixelWindow) -> tuple[Values, Valid]:
        """As the layer does, which see."""
        top, bottom = (0, self.height) if self._keeps_all else (window.top, window.top + window.height)
        values, valid = self._hold(top, bottom)
        rows = slice(window.top - self._top, window.top - self._top + window.height)
        columns = slice(window.left, window.left + window.width)
        return values[:, rows, columns], valid[rows, columns]

    def _hold(self, top: int, bottom: int) -> tuple[Values, Valid]:
        """Have the rows from `top` to `bottom` at hand, reading only those that are new."""
        held = self._top + len(self._valid)
        if self._values is not None and self._top <= top and bottom <= held:
            return self._values, self._valid
        if self._values is None or not self._top <= top <= held:
            values, valid = self._layer.read(PixelWindow(0, top, self.width, bottom - top))
        else:
            new_values, new_valid = self._layer.read(PixelWindow(0, held, self.width, bottom - held))
            values = np.concatenate((self._values[:, top - self._top :], new_values), axis=1)
            valid = np.concatenate((self._valid[top - self._top :], new_valid))
        self._top, self._values, self._valid = top, values, valid
        return values, valid


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
    layer = Layer(dataset, path, bands, 1, is_palette=False)
    block_height, block_width = dataset.block_shapes[0]
    parts = [
        layer.read(PixelWindow(left, top, min(_SAMPLE_SIDE, layer.width), min(_SAMPLE_SIDE, layer.height)))
        for top in _sample_starts(layer.height, block_height)
        for left in _sample_starts(layer.width, block_width)
    ]
    values = np.concatenate([values.reshape(len(bands), -1) for values, _ in parts], axis=1)
    valid = np.concatenate([valid.ravel() for _, valid in parts])
    if (valid & np.isfinite(values).all(axis=0)).any():
        return values, valid
    step = max(1, -(-max(layer.width, layer.height) // _LOOK_SIDE))  # all windows fell beside the data
    thinned = Layer(dataset, path, bands, step, is_palette=True)
    values, valid = thinned.read(PixelWindow(0, 0, thinned.width, thinned.height))
    return values.reshape(len(bands), -1), valid.ravel()


def _sample_starts(length: int, block: int) -> list[int]:
    """Where windows begin along a side, at blocks' edges where these are small."""
    grid = block if block * _SAMPLES_PER_SIDE <= length else 1
    starts = np.linspace(0, max(0, length - _SAMPLE_SIDE), _SAMPLES_PER_SIDE).astype(int)
    return sorted({int(start) // grid * grid for start in starts})
