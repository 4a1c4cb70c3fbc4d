"""Where pixels lie on the ground: north-up, rotated, by control points, in degrees, in feet, or nowhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_rasters import PAD, PLACED, noise, notes_of, write_tiff
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.warp import transform

from service.georeference import Georeference
from service.raster import RasterOptions, open_raster

PIXELS = np.array([[0, 0], [30, 20], [12.5, 7.25]])
FEET_CRS = "EPSG:2263"  # New York Long Island, US survey feet


def georeference_of(path: Path) -> Georeference | None:
    with open_raster(path, RasterOptions(), PAD) as raster:
        return raster.georeference


def placed(path: Path, **profile: Any) -> Georeference:
    found = georeference_of(write_tiff(path, noise(20, 30), **profile))
    assert found is not None
    return found


def test_a_north_up_file_is_placed_by_its_transform(tmp_path: Path) -> None:
    found = placed(tmp_path / "a.tif", **PLACED)
    assert found.to_crs(PIXELS).tolist() == [[500_000, 5_000_000], [500_030, 4_999_980], [500_012.5, 4_999_992.75]]


def test_a_rotated_file_is_placed_by_its_transform(tmp_path: Path) -> None:
    turned = Affine.translation(500_000, 5_000_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    found = placed(tmp_path / "a.tif", crs="EPSG:32631", transform=turned)
    assert np.allclose(found.to_crs(PIXELS), [turned @ tuple(point) for point in PIXELS])


def test_longitude_and_latitude_are_those_of_proj(tmp_path: Path) -> None:
    found = placed(tmp_path / "a.tif", **PLACED)
    expected = transform("EPSG:32631", "EPSG:4326", *found.to_crs(PIXELS).T)
    assert np.allclose(found.to_lonlat(PIXELS), np.array(expected).T, atol=1e-12)


def test_no_points_give_no_places(tmp_path: Path) -> None:
    assert placed(tmp_path / "a.tif", **PLACED).to_lonlat(np.zeros((0, 2))).shape == (0, 2)


def test_longitude_comes_first_in_a_file_of_degrees(tmp_path: Path) -> None:
    found = placed(tmp_path / "a.tif", crs="EPSG:4326", transform=Affine(1e-6, 0, 7.5, 0, -1e-6, 51.0))
    assert np.allclose(found.to_lonlat(np.array([[0, 0]])), [[7.5, 51.0]])


@pytest.mark.parametrize(("profile", "epsg"), [(PLACED, 32631), (PLACED | {"crs": "EPSG:3857"}, 3857)])
def test_the_epsg_number_is_known(tmp_path: Path, profile: dict, epsg: int) -> None:
    assert placed(tmp_path / "a.tif", **profile).epsg == epsg


@pytest.mark.parametrize(
    ("profile", "centimetres"),
    [
        pytest.param(PLACED, 100.04, id="metres"),
        pytest.param({"crs": FEET_CRS, "transform": Affine(1, 0, 1e6, 0, -1, 2e5)}, 30.48, id="feet"),
        pytest.param({"crs": "EPSG:3857", "transform": Affine(1, 0, 0, 0, -1, 8_399_738)}, 50.1, id="mercator at 60"),
        pytest.param({"crs": "EPSG:4326", "transform": Affine(1e-5, 0, 7, 0, -1e-5, 60)}, 78.89, id="degrees at 60"),
        pytest.param({"crs": "EPSG:4326", "transform": Affine(0, 1e-5, 179.99995, 1e-5, 0, 0)}, 110.9, id="date line"),
    ],
)
def test_the_ground_resolution_is_measured_on_the_ellipsoid(tmp_path: Path, profile: dict, centimetres: float) -> None:
    assert placed(tmp_path / "a.tif", **profile).ground_resolution_cm(30, 20) == pytest.approx(centimetres, rel=2e-3)


def control_points(miss: float = 0.0) -> list[GroundControlPoint]:
    corners = [(0, 0), (30, 0), (0, 20), (30, 20)]
    return [
        GroundControlPoint(
            row=row, col=column, x=500_000 + 2 * column + miss * (1, -1, -1, 1)[number], y=5_000_000 - 2 * row
        )
        for number, (column, row) in enumerate(corners)
    ]


def with_points(path: Path, points: list[GroundControlPoint], crs: str | None = "EPSG:32631") -> Path:
    return write_tiff(path, noise(20, 30), gcps=points, crs=crs)


def test_control_points_alone_place_a_file(tmp_path: Path) -> None:
    found = georeference_of(with_points(tmp_path / "a.tif", control_points()))
    assert found is not None
    assert np.allclose(found.to_crs(PIXELS), [(500_000 + 2 * x, 5_000_000 - 2 * y) for x, y in PIXELS], atol=1e-6)


def test_the_note_says_by_how_much_the_control_points_are_missed(tmp_path: Path) -> None:
    notes = notes_of(with_points(tmp_path / "a.tif", control_points(miss=1.0)))
    assert "placed by 4 ground control points, which the fitted map misses by 0.5 px" in notes


def test_control_points_on_a_line_place_nothing(tmp_path: Path) -> None:
    points = [GroundControlPoint(row=i, col=i, x=500_000 + i, y=5_000_000 - i) for i in range(4)]
    assert georeference_of(with_points(tmp_path / "a.tif", points)) is None


@pytest.mark.parametrize(
    ("profile", "note"),
    [
        pytest.param({}, "does not say where it lies", id="nothing"),
        pytest.param({"transform": PLACED["transform"]}, "names no coordinate reference system", id="no crs"),
        pytest.param({"crs": "EPSG:32631"}, "does not say where it lies", id="no transform"),
        pytest.param(PLACED | {"transform": Affine(1, 0, 5e5, 2, 0, 5e6)}, "lines or points", id="flat pixels"),
        pytest.param(PLACED | {"transform": Affine(1e9, 0, 5e5, 0, -1e9, 5e6)}, "no longitude and latitude", id="far"),
    ],
)
def test_a_file_that_lies_nowhere_has_no_georeference_and_says_why(tmp_path: Path, profile: dict, note: str) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 30), **profile)
    assert georeference_of(path) is None
    assert note in notes_of(path)


def test_a_turned_tiff_keeps_its_place_on_the_map(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", noise(20, 30), **PLACED)
    tags = ImageFileDirectory_v2()
    with TiffImageFile(path) as picture:
        tags.update({tag: value for tag, value in picture.tag_v2.items() if tag > 30_000})  # GeoTIFF's
    tags[0x0112] = 6
    Image.fromarray(noise(20, 30)).save(tmp_path / "turned.tif", tiffinfo=tags)
    found = georeference_of(tmp_path / "turned.tif")
    assert found is not None
    assert np.allclose(found.to_crs(np.array([[20, 0]])), [[500_000, 5_000_000]])  # the stored top-left corner
