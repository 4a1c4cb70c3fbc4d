"""Small pictures of all kinds, made for one test."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning

from service.raster import RasterOptions, RasterTile, open_raster

PAD = 114
PLACED: dict[str, Any] = {"crs": "EPSG:32631", "transform": Affine(1, 0, 500_000, 0, -1, 5_000_000)}
"""One metre a pixel, in the middle of a UTM zone."""


def noise(height: int, width: int, bands: int = 3, dtype: str = "uint8", seed: int = 0) -> NDArray[Any]:
    """(height, width, bands) values that differ at every pixel; integers of 8 or 12 bits, floats from 0 to 1."""
    random = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return random.random((height, width, bands)).astype(dtype)
    return random.integers(1, 256 if dtype == "uint8" else 4096, (height, width, bands)).astype(dtype)


def smooth(height: int, width: int) -> NDArray[np.uint8]:
    """(height, width, 3) slow waves, which survive being resized."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / 23), np.cos(y / 31), np.sin((x + y) / 41)]
    return np.stack([127 + 100 * wave for wave in waves], axis=-1).astype(np.uint8)


def write_tiff(path: Path, values: NDArray[Any], **profile: Any) -> Path:
    """Write (h, w, bands) values; `mask`, `colours`, `tags` and `overviews` go with them."""
    extras = {name: profile.pop(name, None) for name in ("mask", "colours", "tags", "overviews", "interpretation")}
    height, width, bands = values.shape
    with warnings.catch_warnings(), rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        shape = {"width": width, "height": height, "count": bands, "dtype": values.dtype}
        with rasterio.open(path, "w", driver="GTiff", **shape, **profile) as dataset:
            dataset.write(values.transpose(2, 0, 1))
            if extras["colours"]:
                dataset.write_colormap(1, extras["colours"])
            if extras["mask"] is not None:
                dataset.write_mask(extras["mask"])
            if extras["interpretation"]:
                dataset.colorinterp = extras["interpretation"]
            for domain, tags in (extras["tags"] or {}).items():
                dataset.update_tags(ns=domain, **tags)
        if extras["overviews"]:
            with rasterio.open(path, "r+") as dataset:
                dataset.build_overviews(extras["overviews"], Resampling.average)
    return path


def read_whole(path: Path, options: RasterOptions | None = None) -> RasterTile:
    """The whole scene as one window."""
    with open_raster(path, options or RasterOptions(), PAD) as raster:
        return raster.read(0, 0, raster.scaled_width, raster.scaled_height)


def notes_of(path: Path, options: RasterOptions | None = None) -> str:
    """All notes on a file, in one text."""
    with open_raster(path, options or RasterOptions(), PAD) as raster:
        return "; ".join(raster.notes)
