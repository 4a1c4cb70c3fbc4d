"""Scores: the picture on its canvas, picking detections, and the figures themselves."""

import json
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.data.canvas import boxes_to_picture, letterbox
from training.data.samples import Sample
from training.evaluate import Detections, Metrics, Truth, coco_metrics, evaluate, select_detections

CLASSES = ("ship", "tank", "court")


def truth(boxes: list[list[float]], labels: list[int] | None = None) -> Truth:
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Truth(array, np.array(labels or [0] * len(boxes), dtype=np.int64))


def found(of: Truth, score: float = 0.9) -> Detections:
    """Detections exactly on the ground truth."""
    return Detections(of.boxes.copy(), np.full(len(of.labels), score, dtype=np.float32), of.labels.copy())


NOTHING = found(truth([]))
SCENE = [truth([[0, 0, 5, 6], [20, 20, 32, 32]], [0, 1]), truth([[10, 10, 90, 110]]), truth([])]


def test_a_wide_picture_lies_at_the_top_left_of_its_canvas() -> None:
    image = np.full((30, 60, 3), 200, dtype=np.uint8)
    canvas, scale = letterbox(image, 32)
    assert scale == (32 / 60, 16 / 30)
    assert np.unique(canvas[:16]).tolist() == [200]
    assert np.unique(canvas[16:]).tolist() == [114]


@pytest.mark.parametrize(("height", "width"), [(33, 71), (71, 33), (8, 8), (1, 500)])
def test_a_box_goes_to_the_canvas_and_back(height: int, width: int) -> None:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    _, scale = letterbox(image, 64)
    box = np.array([[0, 0, width, height]], dtype=np.float32)
    on_canvas = box * np.array([*scale, *scale], dtype=np.float32)
    np.testing.assert_allclose(boxes_to_picture(on_canvas, scale, (width, height)), box, rtol=1e-6)
    assert on_canvas.max() == pytest.approx(64)


def test_boxes_in_the_padding_are_clipped_to_the_picture() -> None:
    on_canvas = np.array([[-5, 10, 70, 60]], dtype=np.float32)
    assert boxes_to_picture(on_canvas, (0.5, 0.5), (128, 64)).tolist() == [[0, 20, 128, 64]]


def test_every_class_above_the_threshold_counts_best_first() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([[0.6, 0.4, 0.1], [0.2, 0.9, 0.3]])
    picked, score, label = select_detections(boxes, scores, threshold=0.3, nms_iou=None, max_detections=10)
    assert label.tolist() == [1, 0, 1]
    torch.testing.assert_close(score, torch.tensor([0.9, 0.6, 0.4]))
    assert picked[:, 0].tolist() == [20, 0, 0]


def test_suppression_stays_inside_a_class_and_keeps_the_best() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9.5], [0, 0, 10, 10], [50, 50, 60, 60]])
    scores = torch.tensor([[0.5, 0], [0.9, 0], [0, 0.7], [0.6, 0]])
    _, score, label = select_detections(boxes, scores, 0.1, nms_iou=0.8, max_detections=10)
    assert label.tolist() == [0, 1, 0]
    torch.testing.assert_close(score, torch.tensor([0.9, 0.7, 0.6]))


def test_only_the_best_detections_are_kept() -> None:
    scores = torch.linspace(0.1, 0.9, 9)[:, None]
    _, score, _ = select_detections(torch.zeros(9, 4), scores, 0.0, None, max_detections=2)
    torch.testing.assert_close(score, torch.tensor([0.9, 0.8]))


@pytest.mark.parametrize("nms_iou", [None, 0.5])
def test_no_score_above_the_threshold_gives_no_detections(nms_iou: float | None) -> None:
    boxes, score, label = select_detections(torch.zeros(3, 4), torch.zeros(3, 2), 0.0, nms_iou, 10)
    assert (boxes.shape, score.shape, label.shape) == ((0, 4), (0,), (0,))


def test_perfect_detections_score_one() -> None:
    metrics = coco_metrics(SCENE, [found(t) for t in SCENE], CLASSES, counts=[2, 1, 0])
    assert (metrics.images, metrics.boxes) == (3, 3)
    assert [metrics.ap, metrics.ap50, metrics.ap75, metrics.ar] == pytest.approx([1] * 4)
    assert (metrics.precision, metrics.recall) == (1, 1)
    assert metrics.count_mae == 0
    assert metrics.count_correlation == pytest.approx(1)


def test_no_detections_score_zero() -> None:
    metrics = coco_metrics(SCENE, [NOTHING] * 3, CLASSES)
    assert [metrics.ap, metrics.ap50, metrics.ap75, metrics.ar, metrics.precision, metrics.recall] == [0] * 6
    assert metrics.count_mae is None


def test_sizes_and_classes_without_ground_truth_have_no_score() -> None:
    metrics = coco_metrics(SCENE, [found(SCENE[0]), NOTHING, NOTHING], CLASSES)
    assert list(metrics.ap_by_size.values()) == pytest.approx([1, 1, None, None, 0])
    assert metrics.ap_by_class == {"ship": pytest.approx(0.505, abs=0.01), "tank": 1, "court": None}


@pytest.mark.parametrize(
    ("side", "name"), [(7.9, "very tiny"), (8.5, "tiny"), (31, "small"), (63, "medium"), (65, "large")]
)
def test_a_box_counts_in_the_size_of_the_root_of_its_area(side: float, name: str) -> None:
    scene = [truth([[10, 10, 10 + side * 2, 10 + side / 2]])]
    scored = coco_metrics(scene, [found(scene[0])], CLASSES).ap_by_size
    assert [size.split(" (")[0] for size, value in scored.items() if value is not None] == [name]


def test_a_box_off_by_a_third_counts_at_half_overlap_only() -> None:
    scene = [truth([[0, 0, 40, 40]])]
    shifted = Detections(
        scene[0].boxes + np.array([8, 0, 8, 0], np.float32), np.array([0.9], np.float32), np.array([0])
    )
    metrics = coco_metrics(scene, [shifted], CLASSES)
    assert (metrics.ap50, metrics.ap75) == (pytest.approx(1), 0)


def test_a_detection_of_the_wrong_class_is_wrong() -> None:
    scene = [truth([[0, 0, 40, 40]])]
    wrong = Detections(scene[0].boxes, np.array([0.9], np.float32), np.array([1]))
    metrics = coco_metrics(scene, [wrong], CLASSES)
    assert (metrics.ap, metrics.precision, metrics.recall) == (0, 0, 0)


def test_precision_and_recall_count_only_detections_above_the_threshold_and_each_box_once() -> None:
    scene = [truth([[0, 0, 40, 40], [50, 50, 90, 90]])]
    boxes = np.array([[0, 0, 40, 40], [0, 0, 40, 39], [50, 50, 90, 90]], dtype=np.float32)
    told = Detections(boxes, np.array([0.9, 0.8, 0.2], np.float32), np.zeros(3, np.int64))
    metrics = coco_metrics(scene, [told], CLASSES, operating_threshold=0.3)
    assert (metrics.precision, metrics.recall) == (0.5, 0.5)


def test_more_than_a_hundred_detections_count() -> None:
    boxes = [[float(x), float(y), x + 6.0, y + 6.0] for x in range(0, 160, 10) for y in range(0, 160, 10)]
    scene = [truth(boxes)]
    metrics = coco_metrics(scene, [found(scene[0])], CLASSES)
    assert metrics.ar == pytest.approx(1)


def test_the_count_error_is_told() -> None:
    metrics = coco_metrics(SCENE, [NOTHING] * 3, CLASSES, counts=[4, 2, 0])
    assert metrics.count_mae == pytest.approx(1)
    assert metrics.count_correlation == pytest.approx(1)


def test_a_constant_count_has_no_correlation() -> None:
    assert coco_metrics(SCENE, [NOTHING] * 3, CLASSES, counts=[2, 2, 2]).count_correlation is None


def test_no_ground_truth_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no box in 1 pictures"):
        coco_metrics([truth([])], [NOTHING], CLASSES)


def test_unequal_numbers_of_pictures_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 pictures have ground truth, 1 have detections"):
        coco_metrics(SCENE, [NOTHING], CLASSES)


def test_the_table_shows_a_dash_where_there_is_nothing_to_measure() -> None:
    table = coco_metrics(SCENE, [found(t) for t in SCENE], CLASSES).table()
    assert "| AP50 | 1.000 |" in table
    assert "| AP small (16-32) | - |" in table
    assert "| court | - | - |" in table


def test_metrics_are_valid_json() -> None:
    metrics = coco_metrics(SCENE, [found(t) for t in SCENE], CLASSES)
    data = json.loads(metrics.to_json())
    assert Metrics(**data) == metrics


@dataclass(frozen=True)
class Pictures:
    """A dataset in a list."""

    samples: list[Sample]
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        return self.samples[index]


def painted(width: int, height: int, box: tuple[int, int, int, int], image_id: int) -> Sample:
    image: NDArray[np.uint8] = np.zeros((height, width, 3), dtype=np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return Sample(image, np.array([box], dtype=np.float32), np.array([1]), image_id)


class BrightBox(nn.Module):
    """Finds the one bright box of a canvas; a second query, which is not valid, claims the whole canvas."""

    def forward(self, images: Tensor) -> SimpleNamespace:
        assert not self.training
        assert not torch.is_grad_enabled()
        boxes = torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(len(images), 2, 1)
        for row, image in enumerate(images):
            y, x = (image[0] > 180).nonzero(as_tuple=True)
            low = torch.tensor([x.min(), y.min()]) / image.shape[1]
            high = torch.tensor([x.max() + 1, y.max() + 1]) / image.shape[1]
            boxes[row, 0] = torch.cat([(low + high) / 2, high - low])
        logits = torch.full((len(images), 2, len(CLASSES)), -9.0)
        logits[:, :, 1] = torch.tensor([4.0, 9.0])
        valid = torch.tensor([[True, False]]).expand(len(images), 2)
        layer = SimpleNamespace(boxes=boxes, logits=logits)
        return SimpleNamespace(layers=[layer], queries=SimpleNamespace(valid=valid), count=torch.ones(len(images)))


PICTURES = [
    painted(200, 100, (20, 30, 80, 60), 1),
    painted(60, 90, (10, 6, 40, 54), 2),
    painted(64, 64, (4, 8, 60, 60), 3),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_boxes_found_on_the_canvas_are_scored_on_the_stored_picture(precision) -> None:
    detector = BrightBox().train()
    metrics = evaluate(detector, Pictures(PICTURES), 128, 2, "cpu", precision, progress=False)
    assert metrics.ap50 == pytest.approx(1)
    assert metrics.ap75 == pytest.approx(1)
    assert (metrics.precision, metrics.recall) == (1, 1)
    assert (metrics.count_mae, metrics.mean_queries) == (0, 1)
    assert detector.training


def test_the_batch_size_does_not_change_the_scores() -> None:
    alone, together = (
        evaluate(BrightBox(), Pictures(PICTURES), 128, batch, "cpu", "fp32", progress=False) for batch in (1, 3)
    )
    assert alone == together


def test_a_picture_that_stands_in_for_a_corrupt_one_is_scored_once() -> None:
    twice = Pictures([PICTURES[0], PICTURES[0], PICTURES[1]])
    assert evaluate(BrightBox(), twice, 128, 1, "cpu", "fp32", progress=False).images == 2
