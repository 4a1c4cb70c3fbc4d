"""POST /detect?format=...: each format as its tool reads it, and who made it."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image
from pycocotools.coco import COCO

FORMATS = {
    "json": "application/json",
    "geojson": "application/geo+json",
    "coco": "application/json",
    "supervision": "application/json",
    "labelstudio": "application/json",
    "yolo": "text/plain; charset=utf-8",
}


def ask(client: httpx.Client, data: bytes, kind: str) -> httpx.Response:
    answer = client.post("/detect", content=data, params={"format": kind})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.fixture(scope="module")
def empty_png(draw_scene: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    return encode(draw_scene(320, 240))


def load_coco(body: str, path: Path) -> COCO:
    path.write_text(body, encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


@pytest.mark.parametrize(("kind", "media_type"), FORMATS.items())
def test_a_format_has_its_media_type(client: httpx.Client, scene_png: bytes, kind: str, media_type: str) -> None:
    assert ask(client, scene_png, kind).headers["content-type"] == media_type


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_names_the_model_and_the_picture(client: httpx.Client, scene_png: bytes, kind: str) -> None:
    answer = client.post("/detect", content=scene_png).json()
    headers = ask(client, scene_png, kind).headers
    assert headers["x-model"] == "toy/1"
    assert headers["x-model-sha256"] == answer["model"]["sha256"]
    assert headers["x-image-id"] == answer["image_id"]


def test_json_is_the_default(client: httpx.Client, scene_png: bytes) -> None:
    default = client.post("/detect", content=scene_png).json()
    assert default["detections"] == ask(client, scene_png, "json").json()["detections"]


def test_an_unknown_format_is_refused_with_the_choices(client: httpx.Client, scene_png: bytes) -> None:
    answer = client.post("/detect", content=scene_png, params={"format": "xml"})
    assert answer.status_code == 422
    assert "'json', 'geojson', 'coco', 'supervision', 'labelstudio' or 'yolo'" in answer.json()["detail"]


def test_geojson_lies_where_qgis_lays_the_picture(client: httpx.Client, scene_png: bytes) -> None:
    document = ask(client, scene_png, "geojson").json()
    rings = {item["properties"]["label"]: item["geometry"]["coordinates"] for item in document["features"]}
    assert {"coordinates", "geometries", "geometry", "properties"}.isdisjoint(document)  # RFC 7946, 7.1
    assert rings["red square"] == [[[64, -128], [128, -128], [128, -64], [64, -64], [64, -128]]]


def test_coco_loads_in_pycocotools(client: httpx.Client, scene_png: bytes, tmp_path: Path) -> None:
    coco = load_coco(ask(client, scene_png, "coco").text, tmp_path / "coco.json")
    found = {coco.cats[item["category_id"]]["name"]: item["bbox"] for item in coco.anns.values()}
    assert found == {"red square": [64, 64, 64, 64], "blue square": [192, 128, 64, 64]}


def test_coco_annotations_serve_as_results(client: httpx.Client, scene_png: bytes, tmp_path: Path) -> None:
    body = ask(client, scene_png, "coco").text
    coco = load_coco(body, tmp_path / "coco.json")
    with contextlib.redirect_stdout(io.StringIO()):
        results = coco.loadRes(json.loads(body)["annotations"])
    assert len(results.anns) == 2


def test_coco_of_an_empty_picture_loads_too(client: httpx.Client, empty_png: bytes, tmp_path: Path) -> None:
    coco = load_coco(ask(client, empty_png, "coco").text, tmp_path / "coco.json")
    assert (len(coco.imgs), len(coco.cats), len(coco.anns)) == (1, 2, 0)


def test_supervision_has_columns_of_one_length(client: httpx.Client, scene_png: bytes) -> None:
    document = ask(client, scene_png, "supervision").json()
    columns = [document["xyxy"], document["confidence"], document["class_id"], document["data"]["class_name"]]
    assert [len(column) for column in columns] == [2, 2, 2, 2]


def test_labelstudio_is_in_percent_of_the_picture(client: httpx.Client, scene_png: bytes) -> None:
    [prediction] = ask(client, scene_png, "labelstudio").json()["predictions"]
    [red] = [item for item in prediction["result"] if item["value"]["rectanglelabels"] == ["red square"]]
    assert [red["value"][key] for key in ("x", "y", "width", "height")] == [20, 26.6667, 20, 26.6667]
    assert (red["original_width"], red["original_height"], red["image_rotation"]) == (320, 240, 0)
    assert prediction["model_version"] == "toy/1"


def test_yolo_has_a_line_for_each_object(client: httpx.Client, scene_png: bytes) -> None:
    lines = sorted(ask(client, scene_png, "yolo").text.splitlines())
    assert [line.split(" ")[:5] for line in lines] == [
        ["0", "0.300000", "0.400000", "0.200000", "0.266667"],
        ["1", "0.700000", "0.666667", "0.200000", "0.266667"],
    ]


def test_yolo_of_an_empty_picture_is_an_empty_text(client: httpx.Client, empty_png: bytes) -> None:
    assert ask(client, empty_png, "yolo").content == b""


def test_heat_maps_name_the_model_too(client: httpx.Client, scene_png: bytes) -> None:
    answer = client.post("/heatmap", content=scene_png)
    assert answer.headers["x-model"] == "toy/1"
    assert answer.headers["x-model-sha256"] == client.get("/models/toy").json()["sha256"]
