"""Training scores a detector on the same canvas, and picks the same detections, as the service does."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from export import manifest
from service.analysis import Analysis, HeatMaps
from service.detections import DetectionOptions
from service.detections import select_detections as select_in_service
from service.letterbox import Letterbox
from training.data import canvas
from training.data.canvas import boxes_to_picture, letterbox
from training.evaluation.evaluate import picture_detections, select_detections


@pytest.mark.parametrize(("height", "width"), [(358, 533), (1028, 1728), (40, 31), (64, 64), (1, 900)])
def test_the_canvas_and_the_way_back_are_those_of_the_service(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = rng.uniform(-10, 330, (50, 4)).astype(np.float32)
    frame = Letterbox.fit(width, height, 320)
    drawn, scale = letterbox(image, 320)
    np.testing.assert_array_equal(drawn.transpose(2, 0, 1), frame.draw(Image.fromarray(image), 114))
    np.testing.assert_array_equal(boxes_to_picture(boxes, scale, (width, height)), frame.boxes_to_picture(boxes))


@pytest.mark.parametrize("nms_iou", [None, 0.8, 0.3])
def test_the_detections_are_those_of_the_service(nms_iou: float | None) -> None:
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 40, (200, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(5, 30, (200, 2))], axis=1).astype(np.float32)
    scores = rng.random((200, 3), dtype=np.float32)
    options = DetectionOptions(np.full(3, 0.2, np.float32), classes=None, nms_iou=nms_iou, max_detections=150)
    theirs = select_in_service(boxes, scores, options)
    ours = select_detections(torch.from_numpy(boxes), torch.from_numpy(scores), 0.2, nms_iou, 150)
    np.testing.assert_array_equal(ours[0].numpy(), theirs.boxes)
    np.testing.assert_array_equal(ours[1].numpy(), theirs.scores)
    np.testing.assert_array_equal(ours[2].numpy(), theirs.labels)


@pytest.mark.parametrize(("height", "width"), [(60, 128), (128, 31), (3, 128)])
def test_boxes_in_the_padding_are_dropped_and_the_rest_clipped_as_in_the_service(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    centres, sides = rng.uniform(-10, 140, (400, 2)), rng.uniform(0, 30, (400, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    scores = rng.random((400, 3), dtype=np.float32)
    frame = Letterbox.fit(width, height, 128)
    theirs = analysis(frame, boxes, scores).detections(DetectionOptions(np.full(3, 0.01, np.float32), None, 0.8, 150))
    _, scale = letterbox(np.zeros((height, width, 3), np.uint8), 128)
    ours = picture_detections(torch.from_numpy(boxes), torch.from_numpy(scores), scale, (width, height), 0.8, 150)
    assert 0 < len(theirs.scores) < len(scores)
    np.testing.assert_array_equal(ours.boxes, theirs.boxes)
    np.testing.assert_array_equal(ours.scores, theirs.scores)
    np.testing.assert_array_equal(ours.labels, theirs.labels)
    assert (ours.boxes[:, 2:] > ours.boxes[:, :2]).all()
    assert ours.boxes[:, [0, 2]].max() <= width
    assert ours.boxes[:, [1, 3]].max() <= height


def analysis(frame: Letterbox, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> Analysis:
    """What the service would hold of a picture for which the model said this."""
    nothing = HeatMaps(np.zeros((1, 1), np.float32), (), ())
    return Analysis("", b"", frame, 0.0, len(boxes), boxes, scores, nothing, (), {})


def test_a_box_that_lies_wholly_in_the_padding_takes_no_place_in_the_list() -> None:
    boxes = torch.tensor([[0.0, 80, 40, 120], [0, 0, 40, 40]])
    found = picture_detections(boxes, torch.tensor([[0.9], [0.5]]), (1.0, 1.0), (128, 64), None, max_detections=1)
    assert found.boxes.tolist() == [[0, 0, 40, 40]]


def test_training_and_the_model_folder_pad_with_the_same_grey() -> None:
    assert canvas.PAD_VALUE == manifest.PAD_VALUE
