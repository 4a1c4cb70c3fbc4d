"""Accuracy and time per decoder layer."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.__main__ import parser
from export.accuracy import CocoFile
from export.depth import run_depth
from export.matching import Detections
from export.pictures import synthetic_canvases
from model.checkpoint import save_detector
from model.detector import Detector

CLASSES = ("plane", "ship", "tank")


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Two drawn pictures, one of them half as high as wide, and a box of each class in each."""
    (tmp_path / "images").mkdir()
    images, annotations = [], []
    for i, canvas in enumerate(synthetic_canvases(64, 114, 2)):
        picture = canvas.transpose(1, 2, 0)[: 64 >> i]
        Image.fromarray(picture).save(tmp_path / "images" / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 64 >> i})
        for label in range(3):
            box = {"bbox": [10 * label, 4, 8, 6], "area": 48, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": 7 - label, **box})
    categories = [{"id": 7 - label, "name": name} for label, name in enumerate(CLASSES)]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


def true_boxes(scale: float, labels: list[int]) -> Detections:
    """The boxes of a picture on a canvas that shows it larger."""
    boxes = np.array([[10 * label, 4, 10 * label + 8, 10] for label in range(3)], np.float32) * scale
    return Detections(boxes, np.array([0.9, 0.8, 0.7], np.float32), np.array(labels))


def test_the_true_boxes_have_an_average_precision_of_one(coco: Path) -> None:
    truth = CocoFile.read(coco, CLASSES)
    results = [line for picture in truth.pictures for line in truth.results(picture, true_boxes(2, [0, 1, 2]), 128)]
    accuracy = truth.accuracy(results)
    assert (accuracy.ap, accuracy.ap50, accuracy.ap75) == (1, 1, 1)


def test_a_wrong_class_and_a_loose_box_cost_what_they_should(coco: Path) -> None:
    truth = CocoFile.read(coco, CLASSES)
    swapped = [line for picture in truth.pictures for line in truth.results(picture, true_boxes(2, [0, 2, 1]), 128)]
    assert truth.accuracy(swapped).ap50 == pytest.approx(1 / 3)
    loose = true_boxes(2, [0, 1, 2])
    loose.boxes[:, 2] += 4  # a quarter wider: an IoU of 0.8
    lines = [line for picture in truth.pictures for line in truth.results(picture, loose, 128)]
    assert truth.accuracy(lines).ap == pytest.approx(0.7)
    assert truth.accuracy([]).ap50 == 0


def test_every_layer_has_a_row(coco: Path, tmp_path: Path, make_detector: Callable[..., Detector]) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    detector = make_detector(decoder={"layers": 2})
    save_detector(checkpoint, detector.config, detector.state_dict())
    asked = ["depth", str(checkpoint), "--data", str(coco), "--size", "64", "--json", str(tmp_path / "depth.json")]
    table = run_depth(parser().parse_args(asked))
    rows = re.findall(r"^\| (\d) \| 0\.\d{3} \| 0\.\d{3} \| 0\.\d{3} \| ([\d.]+) \| ([\d.]+) \|$", table, re.MULTILINE)
    assert [layers for layers, *_ in rows] == ["1", "2"]
    assert all(0 < float(decoder) < float(whole) for _, decoder, whole in rows)
    kept = json.loads((tmp_path / "depth.json").read_text(encoding="utf-8"))
    assert [(row["layers"], f"{row['whole_ms']:.1f}") for row in kept] == [(int(row[0]), row[2]) for row in rows]


def test_a_file_without_boxes_or_with_other_classes_is_refused(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="knows no bridge; its classes are plane, ship, tank"):
        CocoFile.read(coco, ("plane", "bridge"))
    empty = tmp_path / "empty.json"
    empty.write_text('{"images": [], "categories": []}')
    with pytest.raises(ValueError, match="it has no images, annotations, categories"):
        CocoFile.read(empty, CLASSES)
