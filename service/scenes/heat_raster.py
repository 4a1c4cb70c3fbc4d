"""The heat of a scene as a cloud-optimised GeoTIFF that lies on the scene: a cell of the model is a pixel of it."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio import Affine
from rasterio._err import CPLE_BaseError  # what GDAL says where rasterio has no error of its own for it
from rasterio.errors import RasterioError
from rasterio.io import DatasetWriter
from rasterio.shutil import copy
from rasterio.windows import Window as RasterWindow

from service.analysis import read_heat
from service.scenes.payload import TileHeat
from service.scenes.scene_info import SceneInfo
from service.scenes.whole_file import whole_file
from service.tiling import ScenePlan

_BANDS = ("density, objects per cell; the sum over all cells is the estimated count", "mixed heat, 0 to 1")
# Every row of cells is written once, in order: a file of such rows never holds a block twice, and memory stays small.
_ROWS: dict[str, Any] = {"blockysize": 1, "interleave": "band", "compress": "deflate", "zlevel": 1}
_CLOUD: dict[str, Any] = {"compress": "DEFLATE", "predictor": "FLOATING_POINT", "overview_resampling": "AVERAGE"}
_BLOCK = 256
_CACHE_MB = 64

Strip = NDArray[np.float32]


def write_heat_raster(
    path: Path, info: SceneInfo, plan: ScenePlan, stride: int, tiles: Iterable[tuple[int, TileHeat | None]]
) -> None:
    """Write density and mixed heat; cells of tiles without a valid pixel are nodata (NaN).

    A tile gives the cells of its core, so that every cell of the scene comes from one tile. Overviews hold the mean.

    Args:
        path: appears when it is whole.
        stride: of the model's finest level, scaled pixels per cell.
        tiles: all of the plan, in its order; None for those that the model did not see.
    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    rows, columns = -(-plan.height // stride), -(-plan.width // stride)
    place = info.georeference
    with whole_file(path) as partial, rasterio.Env(GDAL_CACHEMAX=_CACHE_MB):
        cells = partial.with_name(f"{partial.name}.cells")
        try:
            with rasterio.open(
                cells,
                "w",
                driver="GTiff",
                width=columns,
                height=rows,
                count=len(_BANDS),
                dtype="float32",
                nodata=np.nan,
                **_ROWS,
                crs=None if place is None else place.crs_wkt,
                transform=_cell_transform(info, stride),
            ) as raster:
                raster.descriptions = _BANDS
                _write_strips(raster, _strips(plan, stride, columns, tiles))
            copy(cells, partial, driver="COG", **_CLOUD, blocksize=_BLOCK)
        except (RasterioError, CPLE_BaseError) as error:
            raise OSError(str(error.__cause__ or error)) from error  # the data is sound: it is the disk


def _cell_transform(info: SceneInfo, stride: int) -> Affine:
    """Cells to the ground; without a georeference to a plane of pixels with y negative downwards, as QGIS lays it."""
    native = Affine.scale(1, -1) if info.georeference is None else info.georeference.transform
    return native @ Affine.scale(stride / info.scale)


def _write_strips(raster: DatasetWriter, strips: Iterable[Strip]) -> None:
    top = 0
    for strip in strips:
        rows = min(strip.shape[1], raster.height - top)  # the last tiles reach beyond the scene
        raster.write(strip[:, :rows], window=RasterWindow.from_slices((top, top + rows), (0, raster.width)))
        top += rows


def _strips(
    plan: ScenePlan, stride: int, columns: int, tiles: Iterable[tuple[int, TileHeat | None]]
) -> Iterator[Strip]:
    """(2, rows, columns) for each row of tiles."""
    for _, row in groupby(tiles, key=lambda tile: tile[0] // len(plan.columns)):
        strip: Strip | None = None
        for index, heat in row:
            window = plan.window(index)
            x1, y1, x2, y2 = (edge // stride for edge in window.core)
            if strip is None:
                strip = np.full((len(_BANDS), y2 - y1, columns), np.nan, dtype=np.float32)
            if heat is not None:
                left, top = window.left // stride, window.top // stride
                core = slice(y1 - top, y2 - top), slice(x1 - left, min(x2, columns) - left)
                strip[:, :, x1 : min(x2, columns)] = heat.density[core], read_heat(heat.mixed[core])
        assert strip is not None  # a group has a member
        yield strip
