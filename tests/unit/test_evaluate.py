"""Running a detector over pictures: the canvas, picking detections, every layer, what a host may leave out."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.detector import Detector
from training.data.canvas import boxes_to_picture, letterbox
from training.data.samples import Sample
from training.evaluation.evaluate import Findings, detect, select_detections
from training.evaluation.metrics import Metrics

CLASSES = ("ship", "tank", "court")


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
    """Finds the one bright box of a canvas with its last layer, half of it with the one before; estimates one object.

    Its proposal is the whole canvas. A second query, which is not valid, claims the whole canvas in every layer.
    """

    def __init__(self, classification: str = "sigmoid", counts: bool = True) -> None:
        super().__init__()
        self.config = SimpleNamespace(decoder=SimpleNamespace(classification=classification))
        self.counts = counts

    def forward(self, images: Tensor) -> SimpleNamespace:
        assert not self.training
        assert not torch.is_grad_enabled()
        whole = torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(len(images), 2, 1)
        right = whole.clone()
        for row, image in enumerate(images):
            y, x = (image[0] > 180).nonzero(as_tuple=True)
            low = torch.tensor([x.min(), y.min()]) / image.shape[1]
            high = torch.tensor([x.max() + 1, y.max() + 1]) / image.shape[1]
            right[row, 0] = torch.cat([(low + high) / 2, high - low])
        half = right * torch.tensor([1, 1, 0.6, 1])
        proposals = torch.full((len(images), 2, len(CLASSES)), -9.0)
        proposals[:, :, 1] = torch.tensor([4.0, 9.0])
        logits = proposals
        if self.config.decoder.classification == "softmax":
            logits = torch.cat([proposals, torch.full((len(images), 2, 1), 2.0)], dim=2)  # the background comes last
        valid = torch.tensor([[True, False]]).expand(len(images), 2)
        return SimpleNamespace(
            layers=[SimpleNamespace(boxes=boxes, logits=logits) for boxes in (half, right)],
            queries=SimpleNamespace(valid=valid, reference_boxes=whole, logits=proposals),
            count=torch.ones(len(images)) if self.counts else None,
        )


def run(detector: nn.Module, pictures: Pictures, batch: int, precision: Literal["bf16", "fp32"] = "fp32") -> Metrics:
    return detect(cast(Detector, detector), pictures, 128, batch, "cpu", precision, progress=False).metrics()


def look(detector: nn.Module, pictures: Pictures, every_layer: bool = False) -> Findings:
    chosen = cast(Detector, detector)
    return detect(chosen, pictures, 128, 2, "cpu", "fp32", every_layer=every_layer, progress=False)


PICTURES = [
    painted(200, 100, (20, 30, 80, 60), 1),
    painted(60, 90, (10, 6, 40, 54), 2),
    painted(64, 64, (4, 8, 60, 60), 3),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_boxes_found_on_the_canvas_are_scored_on_the_stored_picture(precision: Literal["bf16", "fp32"]) -> None:
    detector = BrightBox().train()
    metrics = run(detector, Pictures(PICTURES), 2, precision)
    assert metrics.ap50 == pytest.approx(1)
    assert metrics.ap75 == pytest.approx(1)
    assert (metrics.precision, metrics.recall) == (1, 1)
    assert (metrics.count_mae, metrics.mean_queries) == (0, 1)
    assert detector.training


def test_the_batch_size_does_not_change_the_scores() -> None:
    assert run(BrightBox(), Pictures(PICTURES), 1) == run(BrightBox(), Pictures(PICTURES), 3)


def test_a_picture_that_stands_in_for_a_corrupt_one_is_scored_once() -> None:
    findings = look(BrightBox(), Pictures([PICTURES[0], PICTURES[0], PICTURES[1]]))
    assert findings.indices == [0, 2]
    assert findings.metrics().images == 2


def test_a_softmax_host_is_read_without_its_background() -> None:
    findings = look(BrightBox("softmax"), Pictures(PICTURES))
    scores = [found.scores.tolist() for found in findings.by_layer[-1]]
    assert scores == [[pytest.approx(1 / (1 + math.exp(2 - 4)), abs=1e-3)]] * 3
    assert findings.metrics().ap50 == pytest.approx(1)


def test_without_density_there_is_no_count_to_score() -> None:
    metrics = run(BrightBox(counts=False), Pictures(PICTURES), 2)
    assert (metrics.count_mae, metrics.count_relative_mae, metrics.count_correlation) == (None, None, None)
    assert metrics.ap50 == pytest.approx(1)


@pytest.mark.parametrize("classification", ["sigmoid", "softmax"])
def test_proposals_and_every_layer_are_scored_in_one_pass(classification: str) -> None:
    findings = look(BrightBox(classification), Pictures(PICTURES[:2]), every_layer=True)
    scored = [findings.metrics(layer=layer) for layer in range(3)]
    assert [metrics.ap50 for metrics in scored] == pytest.approx([0, 1, 1])
    assert [metrics.ap75 for metrics in scored] == pytest.approx([0, 0, 1])


def test_every_layer_of_a_real_detector_gives_its_detections(make_detector: Callable[..., Detector]) -> None:
    findings = look(make_detector(classes=CLASSES), Pictures(PICTURES), every_layer=True)
    assert [len(found) for found in findings.by_layer] == [len(PICTURES)] * 4
    assert len(findings.counts) == len(findings.queries) == len(PICTURES)
