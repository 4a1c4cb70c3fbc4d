"""The benchmark's scene: the same however it is cut, with its objects where they are said to be."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image

from benchmarks.scene_mosaic import Mosaic, coco, crosses_border, read_pictures, write_geotiff
from service.tiling import plan_scene

LONGEST = 96


@pytest.fixture
def mosaic(tmp_path: Path) -> Mosaic:
    """Grey pictures with a red square each, which is their object."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for number, (width, height) in enumerate([(192, 96), (96, 144)]):
        pixels = np.full((height, width, 3), 90 + number, np.uint8)
        pixels[20:40, 30:60] = (255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
        box = {"id": number, "image_id": number, "category_id": 1, "bbox": [30, 20, 30, 20]}
        annotations.append(box)
    document = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (tmp_path / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    pictures, _ = read_pictures(tmp_path / "instances.json", LONGEST)
    return Mosaic(700, 500, pictures, LONGEST)


def test_a_part_shows_what_the_whole_shows_there(mosaic: Mosaic) -> None:
    whole = mosaic.read(0, 0, 700, 500)
    assert (mosaic.read(130, 77, 300, 210) == whole[77:287, 130:430]).all()


def test_every_object_lies_where_the_truth_says(mosaic: Mosaic) -> None:
    whole = mosaic.read(0, 0, 700, 500).astype(int)
    red = (whole[..., 0] > 200) & (whole[..., 1] < 60)
    boxes, labels = mosaic.truth()
    assert len(boxes) > 8
    assert set(labels.tolist()) == {1}
    for x1, y1, x2, y2 in boxes.round().astype(int).tolist():
        assert red[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1].all()
        red[y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = False
    assert not red.any()


def test_another_seed_is_another_scene(mosaic: Mosaic) -> None:
    other = Mosaic(700, 500, mosaic.pictures, LONGEST, seed=1)
    assert not np.array_equal(other.truth()[0], mosaic.truth()[0])
    assert np.array_equal(Mosaic(700, 500, mosaic.pictures, LONGEST).truth()[0], mosaic.truth()[0])


def test_the_file_holds_the_scene_and_says_where_on_earth_it_is(mosaic: Mosaic, tmp_path: Path) -> None:
    write_geotiff(mosaic, tmp_path / "scene.tif", "deflate")
    with rasterio.open(tmp_path / "scene.tif") as scene:
        assert (scene.read().transpose(1, 2, 0) == mosaic.read(0, 0, 700, 500)).all()
        assert scene.crs.to_epsg() == 32650
        assert scene.res == (0.6, 0.6)
        assert scene.profile["tiled"]


def test_objects_on_a_border_of_windows_are_marked(mosaic: Mosaic) -> None:
    plan = plan_scene(700, 500, 160, 32, 64)  # windows begin at 0, 96, ...; shared ground is 96 to 160, its middle 128
    boxes = np.array([[90, 5, 100, 15], [97, 5, 127, 15], [120, 5, 130, 15], [155, 5, 165, 15], [5, 90, 15, 100]])
    assert crosses_border(plan, boxes.astype(float)).tolist() == [True, False, True, True, True]
    document = coco(mosaic, plan, "scene.tif", [])
    assert {each["crosses_border"] for each in document["annotations"]} == {True, False}
