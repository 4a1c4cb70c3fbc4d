"""The heat of a scene as a cloud-optimised GeoTIFF."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from rasterio._err import CPLE_AppDefinedError
from rasterio.crs import CRS

from service.analysis import keep_heat
from service.errors import StorageError
from service.georeference import Georeference
from service.scenes import heat_raster
from service.scenes.heat_raster import write_heat_raster
from service.scenes.payload import TileHeat
from service.scenes.scene_info import SceneInfo
from service.schemas import ModelName
from service.tiling import ScenePlan, plan_scene

STRIDE, SIZE = 8, 160
MODEL = ModelName(name="toy", version="1", sha256="0" * 64)
UTM = CRS.from_epsg(32633).to_wkt()
TRANSFORM = Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000) @ Affine.rotation(20)


def scene(width: int, height: int, scale: float = 1.0, transform: Affine | None = TRANSFORM) -> SceneInfo:
    place = None if transform is None else Georeference(UTM, transform)
    return SceneInfo("s.tif", round(width / scale), round(height / scale), scale, place, ("a",), MODEL)


def tiles_of(plan: ScenePlan, skipped: tuple[int, ...] = ()) -> Iterator[tuple[int, TileHeat | None]]:
    """Every cell's density is its place, 1000 * row + column, and its mixed heat a thousandth of the column."""
    cells = SIZE // STRIDE
    for index, window in enumerate(plan):
        rows = np.arange(cells)[:, None] + window.top // STRIDE
        columns = np.arange(cells)[None, :] + window.left // STRIDE
        density = (1000 * rows + columns).astype(np.float32)
        heat = TileHeat(density, keep_heat(np.broadcast_to(columns / 1000, density.shape).astype(np.float32)))
        yield index, None if index in skipped else heat


def test_every_cell_comes_from_its_place(tmp_path: Path) -> None:
    plan = plan_scene(501, 333, SIZE, 32, 64)
    write_heat_raster(tmp_path / "h.tif", scene(501, 333), plan, STRIDE, tiles_of(plan))
    with rasterio.open(tmp_path / "h.tif") as raster:
        density, mixed = raster.read()
    assert density.shape == (42, 63)
    np.testing.assert_array_equal(density, 1000 * np.arange(42)[:, None] + np.arange(63)[None, :])
    np.testing.assert_allclose(mixed, np.broadcast_to(np.arange(63) / 1000, (42, 63)), atol=1e-5)


def test_the_raster_lies_on_the_scene(tmp_path: Path) -> None:
    plan = plan_scene(501, 333, SIZE, 32, 64)
    write_heat_raster(tmp_path / "h.tif", scene(501, 333, scale=0.5), plan, STRIDE, tiles_of(plan))
    with rasterio.open(tmp_path / "h.tif") as raster:
        assert raster.crs == CRS.from_epsg(32633)
        centre = raster.transform @ (10.5, 20.5)
    assert (~TRANSFORM) @ centre == pytest.approx((168, 328))  # cells of 8 px at half the scale: 16 native ones


def test_without_a_georeference_it_lies_where_qgis_lays_the_picture(tmp_path: Path) -> None:
    plan = plan_scene(320, 320, SIZE, 32, 64)
    write_heat_raster(tmp_path / "h.tif", scene(320, 320, 0.5, None), plan, STRIDE, tiles_of(plan))
    with rasterio.open(tmp_path / "h.tif") as raster:
        assert raster.crs is None
        assert raster.bounds == (0, -640, 640, 0)


def test_tiles_that_the_model_did_not_see_are_nodata(tmp_path: Path) -> None:
    plan = plan_scene(320, 320, SIZE, 32, 64)
    write_heat_raster(tmp_path / "h.tif", scene(320, 320), plan, STRIDE, tiles_of(plan, skipped=(4,)))
    x1, y1, x2, y2 = (edge // STRIDE for edge in plan.window(4).core)
    with rasterio.open(tmp_path / "h.tif") as raster:
        assert np.isnan(raster.nodata)
        missing = raster.read_masks(1) == 0
    assert missing[y1:y2, x1:x2].all()
    assert missing.sum() == (y2 - y1) * (x2 - x1)


def test_density_sums_to_the_count(tmp_path: Path) -> None:
    plan = plan_scene(500, 300, SIZE, 32, 64)
    cells = np.full((SIZE // STRIDE, SIZE // STRIDE), 0.25, dtype=np.float32)
    tiles = ((index, TileHeat(cells, keep_heat(cells))) for index in range(len(plan)))
    write_heat_raster(tmp_path / "h.tif", scene(500, 300), plan, STRIDE, tiles)
    with rasterio.open(tmp_path / "h.tif") as raster:
        assert raster.read(1).sum() == 0.25 * 63 * 38  # each place once, however often tiles overlap there


def test_it_is_a_cloud_optimised_geotiff(tmp_path: Path) -> None:
    plan = plan_scene(8000, 5000, SIZE, 32, 32)
    write_heat_raster(tmp_path / "h.tif", scene(8000, 5000), plan, STRIDE, tiles_of(plan))
    with rasterio.open(tmp_path / "h.tif") as raster:
        assert raster.block_shapes == [(256, 256)] * 2
        assert raster.overviews(1) == [2, 4]
        assert raster.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert raster.descriptions[0].startswith("density")
    assert _directories_come_first(tmp_path / "h.tif")


def _directories_come_first(path: Path) -> bool:
    """Largest picture first, its data last: what a reader over HTTP counts on (OGC 21-026, section 7)."""
    with rasterio.open(path) as raster:
        levels = [None, *range(len(raster.overviews(1)))]
    offsets = []
    for level in levels:
        options = {} if level is None else {"OVERVIEW_LEVEL": level}
        with rasterio.open(path, **options) as raster:
            offsets.append(int(raster.get_tag_item("BLOCK_OFFSET_0_0", "TIFF", bidx=1)))
    return offsets == sorted(offsets, reverse=True) and min(offsets) < 20_000


def test_the_same_heat_is_the_same_bytes(tmp_path: Path) -> None:
    plan = plan_scene(700, 700, SIZE, 32, 64)
    for name in ("a.tif", "b.tif"):
        write_heat_raster(tmp_path / name, scene(700, 700), plan, STRIDE, tiles_of(plan))
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tif", "b.tif"]


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    plan = plan_scene(700, 700, SIZE, 32, 64)

    def breaks() -> Iterator[tuple[int, TileHeat | None]]:
        yield from list(tiles_of(plan))[:-1]
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=r"h\.tif cannot be written: No space left on device"):
        write_heat_raster(tmp_path / "h.tif", scene(700, 700), plan, STRIDE, breaks())
    assert not list(tmp_path.iterdir())


def test_an_error_of_gdal_itself_is_told_as_the_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the copy meets a full disk, GDAL's own error comes, which is none of rasterio's."""

    def copy(*arguments: object, **options: object) -> None:
        raise CPLE_AppDefinedError(3, 1, "An error occurred while writing a dirty block")

    monkeypatch.setattr(heat_raster, "copy", copy)
    plan = plan_scene(160, 160, SIZE, 32, 64)
    with pytest.raises(StorageError, match=r"h\.tif cannot be written: An error occurred while writing"):
        write_heat_raster(tmp_path / "h.tif", scene(160, 160), plan, STRIDE, tiles_of(plan))
    assert not list(tmp_path.iterdir())
