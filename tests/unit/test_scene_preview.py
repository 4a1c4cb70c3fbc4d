"""The overview picture of a scene."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from service.detections import Detections
from service.scenes.preview import class_color, write_preview
from service.scenes.scene_info import SceneInfo
from service.schemas import ModelName

MODEL = ModelName(name="toy", version="1", sha256="0" * 64)
INFO = SceneInfo("city.tif", 1000, 500, 1.0, None, ("plane", "ship"), MODEL)


@pytest.fixture
def overview() -> Image.Image:
    """A fifth of the scene's size."""
    return Image.new("RGB", (200, 100), (90, 90, 90))


def found(*boxes: tuple[float, float, float, float], label: int = 0) -> Detections:
    count = len(boxes)
    return Detections(np.array(boxes, np.float32), np.ones(count, np.float32), np.full(count, label))


def test_boxes_lie_on_their_places_in_the_colour_of_their_class(tmp_path: Path, overview: Image.Image) -> None:
    write_preview(tmp_path / "p.png", overview, INFO, [found((100, 50, 300, 250)), found((500, 50, 700, 250), label=1)])
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.getpixel((20, 30)) == class_color(0)
        assert picture.getpixel((60, 50)) == class_color(0)
        assert picture.getpixel((100, 30)) == class_color(1)
        assert picture.getpixel((40, 30)) == (90, 90, 90)


def test_an_object_of_less_than_a_pixel_can_be_seen(tmp_path: Path, overview: Image.Image) -> None:
    write_preview(tmp_path / "p.png", overview, INFO, [found((500, 250, 502, 252))])
    with Image.open(tmp_path / "p.png") as picture:
        drawn = (np.asarray(picture)[:100] == class_color(0)).all(axis=2)
    assert drawn.sum() >= 12


def test_a_legend_stands_below_the_whole_picture(tmp_path: Path, overview: Image.Image) -> None:
    write_preview(tmp_path / "p.png", overview, INFO, [found((100, 50, 300, 250))])
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.height > 120
        legend = np.asarray(picture)[100:]
    assert (legend == class_color(0)).all(axis=2).any()
    assert not (legend == class_color(1)).all(axis=2).any()


def test_nothing_found_is_a_picture_too(tmp_path: Path, overview: Image.Image) -> None:
    write_preview(tmp_path / "p.png", overview, INFO, [])
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width >= 200


def test_classes_beyond_the_list_have_colours_of_their_own() -> None:
    assert len({class_color(class_id) for class_id in range(40)}) == 40
