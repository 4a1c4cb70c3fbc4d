"""Training scores a detector on the same canvas, and picks the same detections, as the service does."""

import numpy as np
import pytest
import torch
from PIL import Image

from service.detections import DetectionOptions
from service.detections import select_detections as select_in_service
from service.letterbox import Letterbox
from training.data.canvas import boxes_to_picture, letterbox
from training.evaluate import select_detections


@pytest.mark.parametrize(("height", "width"), [(358, 533), (1028, 1728), (40, 31), (64, 64), (1, 900)])
def test_the_canvas_and_the_way_back_are_those_of_the_service(height: int, width: int) -> None:
    rng = np.random.default_rng(height)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    boxes = rng.uniform(-10, 330, (50, 4)).astype(np.float32)
    frame = Letterbox.fit(width, height, 320)
    canvas, scale = letterbox(image, 320)
    np.testing.assert_array_equal(canvas.transpose(2, 0, 1), frame.draw(Image.fromarray(image), 114))
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
