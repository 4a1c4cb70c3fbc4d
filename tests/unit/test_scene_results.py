"""What was found in a scene, as files for other tools."""

import csv
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pyogrio
import pytest
from pycocotools.coco import COCO
from pyogrio.errors import FeatureError
from rasterio import Affine
from rasterio.crs import CRS

from service.detections import DetectionOptions, Detections
from service.errors import InvalidParameterError, StorageError
from service.georeference import Georeference
from service.scenes.kinds import RESULT_KINDS, SUFFIXES, ResultKind
from service.scenes.results import write_result
from service.scenes.scene_info import SceneInfo
from service.scenes.writers import geopackage
from service.schemas import ModelName

CLASSES = ("plane", 'ship "large"', "tank")
MODEL = ModelName(name="toy", version="1", sha256="0" * 64)
UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(0.5, 0, 500_000, 0, -0.5, 4_600_000)
ROTATED = NORTH_UP @ Affine.rotation(30)
BOXES = [[10, 20, 30, 60], [700.5, 500.25, 720, 510]]  # native pixels
EVERYTHING = DetectionOptions(np.zeros(3, np.float32), None, None, 0)


@pytest.fixture
def info() -> SceneInfo:
    """A scene of 1000 x 800 px at 50 cm, read at half its scale."""
    return SceneInfo("city.tif", 1000, 800, 0.5, Georeference(UTM, NORTH_UP), CLASSES, MODEL, ("first three bands",))


def found(boxes: list[list[float]] = BOXES, scale: float = 0.5) -> Detections:
    """Objects in scaled pixels, of classes 0, 1, 2, 0, ..."""
    count = len(boxes)
    scores = np.linspace(0.9, 0.4, count, dtype=np.float32)
    return Detections(np.array(boxes, np.float32).reshape(-1, 4) * np.float32(scale), scores, np.arange(count) % 3)


def lonlat_to_pixels(frame: geopandas.GeoDataFrame, crs: str, transform: Affine) -> list[np.ndarray]:
    """Corners of each polygon in native pixels."""
    shapes = frame.to_crs(crs).geometry
    return [np.stack((~transform) @ np.array(shape.exterior.coords.xy), axis=1) for shape in shapes]


def many(count: int, batch: int) -> Iterator[Detections]:
    """Objects at seeded places, in batches of a size."""
    corners = np.random.default_rng(0).uniform(0, 390, (count, 2))
    everything = found(np.concatenate([corners, corners + 7], axis=1).tolist(), 1.0)
    for start in range(0, count, batch):
        yield everything.take(np.arange(start, min(start + batch, count)))


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_geojson_lands_on_the_pixels(tmp_path: Path, info: SceneInfo, transform: Affine) -> None:
    place = Georeference(UTM, transform)
    assert (
        write_result("geojson", tmp_path / "r.geojson", replace(info, georeference=place), [found()], EVERYTHING) == 2
    )
    frame = geopandas.read_file(tmp_path / "r.geojson")
    assert frame.crs == "EPSG:4326"
    for ring, box in zip(lonlat_to_pixels(frame, UTM, transform), BOXES, strict=True):
        extent = [*ring.min(axis=0), *ring.max(axis=0)]
        np.testing.assert_allclose(extent, box, atol=0.05)


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED])
def test_geopackage_lands_on_the_pixels(tmp_path: Path, info: SceneInfo, transform: Affine) -> None:
    place = Georeference(UTM, transform)
    write_result("gpkg", tmp_path / "r.gpkg", replace(info, georeference=place), [found()], EVERYTHING)
    frame = geopandas.read_file(tmp_path / "r.gpkg")
    assert frame.crs == "EPSG:32633"
    for ring, box in zip(lonlat_to_pixels(frame, UTM, transform), BOXES, strict=True):
        extent = [*ring.min(axis=0), *ring.max(axis=0)]
        np.testing.assert_allclose(extent, box, atol=0.001)


def test_a_scene_in_degrees_keeps_them(tmp_path: Path, info: SceneInfo) -> None:
    degrees = Affine(1e-5, 0, 12.0, 0, -1e-5, 41.0)
    place = Georeference(CRS.from_epsg(4326).to_wkt(), degrees)
    for kind in ("geojson", "gpkg"):
        path = tmp_path / f"r.{kind}"
        write_result(kind, path, replace(info, georeference=place), [found()], EVERYTHING)
        bounds = geopandas.read_file(path).geometry.iloc[0].bounds
        np.testing.assert_allclose(bounds, [12.0001, 40.9994, 12.0003, 40.9998], atol=1e-8)


@pytest.mark.parametrize("transform", [NORTH_UP, ROTATED, NORTH_UP @ Affine.scale(1, -1)])
def test_rings_run_counter_clockwise_and_close(tmp_path: Path, info: SceneInfo, transform: Affine) -> None:
    path = tmp_path / "r.geojson"
    write_result("geojson", path, replace(info, georeference=Georeference(UTM, transform)), [found()], EVERYTHING)
    for shape in geopandas.read_file(path).geometry:
        assert shape.exterior.is_ccw
        assert shape.exterior.coords[0] == shape.exterior.coords[-1]


def test_a_ring_across_the_antimeridian_stays_small(tmp_path: Path, info: SceneInfo) -> None:
    place = Georeference(CRS.from_epsg(32601).to_wkt(), Affine(0.5, 0, 249_360, 0, -0.5, 4_600_000))
    boxes = [[left, 10.0, left + 20, 30.0] for left in np.arange(0, 980, 20.0).tolist()]
    path = tmp_path / "r.geojson"
    write_result("geojson", path, replace(info, georeference=place), [found(boxes)], EVERYTHING)
    bounds = geopandas.read_file(path).bounds
    assert bounds.minx.min() < 0 < bounds.maxx.max()
    assert (bounds.maxx - bounds.minx).max() < 0.001


def test_geojson_says_what_it_is_about(tmp_path: Path, info: SceneInfo) -> None:
    write_result("geojson", tmp_path / "r.geojson", info, [found()], EVERYTHING)
    document = json.loads((tmp_path / "r.geojson").read_text(encoding="utf-8"))
    assert document["coordinate_system"] == "longitude and latitude on WGS 84, in degrees"
    assert document["scene"] == {
        "file_name": "city.tif",
        "width": 1000,
        "height": 800,
        "crs": "EPSG:32633",
        "model": MODEL.model_dump(),
        "notes": ["first three bands"],
    }
    properties = document["features"][1]["properties"]
    assert properties == {"label": 'ship "large"', "class_id": 1, "score": 0.4, "box": [700.5, 500.25, 720, 510]}


def test_without_a_georeference_polygons_lie_on_the_pixels_as_qgis_shows_them(tmp_path: Path, info: SceneInfo) -> None:
    plain = replace(info, georeference=None)
    write_result("geojson", tmp_path / "r.geojson", plain, [found()], EVERYTHING)
    document = json.loads((tmp_path / "r.geojson").read_text(encoding="utf-8"))
    assert "y negative downwards" in document["coordinate_system"]
    ring = document["features"][0]["geometry"]["coordinates"][0]
    assert ring == [[10, -60], [30, -60], [30, -20], [10, -20], [10, -60]]
    write_result("gpkg", tmp_path / "r.gpkg", plain, [found()], EVERYTHING)
    frame = geopandas.read_file(tmp_path / "r.gpkg")
    assert frame.geometry.iloc[0].bounds == (10, -60, 30, -20)


def test_a_geopackage_holds_the_attributes(tmp_path: Path, info: SceneInfo) -> None:
    write_result("gpkg", tmp_path / "r.gpkg", info, [found()], EVERYTHING)
    (layer, kind), *others = pyogrio.list_layers(tmp_path / "r.gpkg")
    assert (layer, kind, others) == ("detections", "Polygon", [])
    row = geopandas.read_file(tmp_path / "r.gpkg").iloc[1]
    assert (row.label, row.class_id, row.score) == ('ship "large"', 1, 0.4)
    assert (row.x1, row.y1, row.x2, row.y2) == (700.5, 500.25, 720, 510)


def test_coco_is_read_by_pycocotools(tmp_path: Path, info: SceneInfo, capsys: pytest.CaptureFixture[str]) -> None:
    write_result("coco", tmp_path / "r.json", info, [found()], EVERYTHING)
    coco = COCO(tmp_path / "r.json")
    capsys.readouterr()  # pycocotools prints
    assert coco.loadImgs(1)[0]["file_name"] == "city.tif"
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == list(CLASSES)
    (first, second) = coco.loadAnns(coco.getAnnIds())
    assert (first["bbox"], first["category_id"]) == ([10, 20, 20, 40], 1)
    assert (second["id"], second["area"]) == (2, 190.12)
    assert '"score":0.4' in (tmp_path / "r.json").read_text(encoding="utf-8")


def test_csv_gives_the_centre_where_the_scene_has_a_place(tmp_path: Path, info: SceneInfo) -> None:
    write_result("csv", tmp_path / "r.csv", info, [found()], EVERYTHING)
    with (tmp_path / "r.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows[1] | {"longitude": "", "latitude": ""} == {
        "label": 'ship "large"',
        "class_id": "1",
        "score": "0.4",
        "x1": "700.5",
        "y1": "500.25",
        "x2": "720.0",
        "y2": "510.0",
        "longitude": "",
        "latitude": "",
    }
    points = geopandas.points_from_xy([rows[0]["longitude"]], [rows[0]["latitude"]], crs=4326).to_crs(32633)
    assert (~NORTH_UP) @ (points.x[0], points.y[0]) == pytest.approx((20, 40), abs=0.05)


def test_csv_has_no_columns_for_a_place_that_is_not_known(tmp_path: Path, info: SceneInfo) -> None:
    write_result("csv", tmp_path / "r.csv", replace(info, georeference=None), [], EVERYTHING)
    assert (tmp_path / "r.csv").read_bytes() == b"label,class_id,score,x1,y1,x2,y2\r\n"


@pytest.mark.parametrize("kind", RESULT_KINDS)
def test_nothing_found_is_a_sound_file(tmp_path: Path, info: SceneInfo, kind: ResultKind) -> None:
    path = tmp_path / f"r{SUFFIXES[kind]}"
    assert write_result(kind, path, info, [found([])], EVERYTHING) == 0
    match kind:
        case "geojson":
            assert json.loads(path.read_text(encoding="utf-8"))["features"] == []
        case "gpkg":
            assert len(geopandas.read_file(path)) == 0
        case "coco":
            assert json.loads(path.read_text(encoding="utf-8"))["annotations"] == []
        case "csv":
            assert path.read_text(encoding="utf-8").count("\n") == 1


@pytest.mark.parametrize("kind", RESULT_KINDS)
def test_the_same_objects_are_the_same_bytes_in_any_batches(tmp_path: Path, info: SceneInfo, kind: ResultKind) -> None:
    first, second = tmp_path / f"a{SUFFIXES[kind]}", tmp_path / f"b{SUFFIXES[kind]}"
    assert write_result(kind, first, info, many(30_000, 17_000), EVERYTHING) == 30_000
    assert write_result(kind, second, info, many(30_000, 999), EVERYTHING) == 30_000
    assert first.read_bytes() == second.read_bytes()


def test_thresholds_hold_for_their_classes(tmp_path: Path, info: SceneInfo) -> None:
    options = replace(EVERYTHING, thresholds=np.array([0.95, 0.3, 0.3], np.float32))
    write_result("geojson", tmp_path / "r.geojson", info, [found()], options)
    assert geopandas.read_file(tmp_path / "r.geojson").label.tolist() == ['ship "large"']


def test_only_wanted_classes_are_written(tmp_path: Path, info: SceneInfo) -> None:
    options = replace(EVERYTHING, classes=frozenset({0}))
    assert write_result("csv", tmp_path / "r.csv", info, [found()], options) == 1


def test_boxes_are_cut_at_the_edge_of_the_scene_and_dropped_beyond_it(tmp_path: Path, info: SceneInfo) -> None:
    boxes = [[-5.0, 790.0, 10.0, 820.0], [1001.0, 10.0, 1020.0, 30.0]]
    assert write_result("coco", tmp_path / "r.json", info, [found(boxes)], EVERYTHING) == 1
    document = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert document["annotations"][0]["bbox"] == [0, 790, 10, 10]


@pytest.mark.parametrize("kind", RESULT_KINDS)
def test_a_failure_leaves_the_older_file_and_nothing_else(tmp_path: Path, info: SceneInfo, kind: ResultKind) -> None:
    path = tmp_path / f"r{SUFFIXES[kind]}"
    path.write_text("older", encoding="utf-8")

    def breaks() -> Iterator[Detections]:
        yield from many(25_000, 25_000)
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match=rf"{path.name} cannot be written: No space left on device"):
        write_result(kind, path, info, breaks(), EVERYTHING)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_text(encoding="utf-8") == "older"


def test_a_full_disk_under_a_geopackage_is_told(
    tmp_path: Path, info: SceneInfo, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_layer(*arguments: object, **options: object) -> None:
        raise FeatureError("Failed to commit transaction")

    monkeypatch.setattr(geopackage, "write_layer", write_layer)
    with pytest.raises(StorageError, match=r"^r\.gpkg cannot be written: Failed to commit transaction\."):
        write_result("gpkg", tmp_path / "r.gpkg", info, [found()], EVERYTHING)


def test_what_a_killed_writer_left_is_in_nobodys_way(tmp_path: Path, info: SceneInfo) -> None:
    for name in (".r.part.gpkg", ".r.part.gpkg-journal"):
        (tmp_path / name).write_bytes(b"junk")
    write_result("gpkg", tmp_path / "r.gpkg", info, [found()], EVERYTHING)
    assert len(geopandas.read_file(tmp_path / "r.gpkg")) == 2
    assert [each.name for each in tmp_path.iterdir()] == ["r.gpkg"]


def test_a_geopackage_is_a_sound_database_with_an_index(tmp_path: Path, info: SceneInfo) -> None:
    write_result("gpkg", tmp_path / "r.gpkg", info, many(30_000, 30_000), EVERYTHING)
    with sqlite3.connect(tmp_path / "r.gpkg") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("SELECT COUNT(*) FROM rtree_detections_geom").fetchone() == (30_000,)
    database.close()


def test_a_place_that_no_degrees_describe_is_named(tmp_path: Path, info: SceneInfo) -> None:
    nowhere = replace(info, georeference=Georeference(UTM, Affine(0.5, 0, np.inf, 0, -0.5, 4_600_000)))
    with pytest.raises(InvalidParameterError, match="check the file's georeference"):
        write_result("geojson", tmp_path / "r.geojson", nowhere, [found()], EVERYTHING)
