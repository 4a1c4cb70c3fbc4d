"""The figures are those of pycocotools, the reference, on the same detections: crowds, ties, empty pictures."""

import contextlib
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from training.evaluation.matches import Detections, Truth
from training.evaluation.metrics import MAX_DETECTIONS, SIZES, Metrics, coco_metrics

CLASSES = ("plane", "ship", "tank", "never there")


def crowded(seed: int) -> tuple[list[Truth], list[Detections]]:
    """Pictures with 0 to 150 objects of 3 to 90 px, many detections with the same score, some on the same box.

    On one picture more than 1,500 detections of one class compete for three boxes.
    """
    rng = np.random.default_rng(seed)
    truths, detections = [], []
    for count in (0, 3, 40, 150, 1, 0, 80):
        low = rng.uniform(0, 560, (count, 2))
        boxes = np.concatenate([low, low + np.exp(rng.uniform(np.log(3), np.log(90), (count, 2)))], axis=1)
        labels = rng.choice(3, size=count, p=[0.6, 0.3, 0.1])
        truths.append(Truth(boxes.astype(np.float32), labels))
        detections.append(flood(truths[-1], rng) if count == 3 else noisy(boxes, labels, rng, extra=60))
    return truths, detections


def flood(truth: Truth, rng: np.random.Generator) -> Detections:
    """1,600 detections of class 0, the worst of which are right: beyond the length of the list they do not count."""
    low = rng.uniform(0, 560, (1600, 2))
    boxes = np.concatenate([low, low + 30], axis=1).astype(np.float32)
    boxes[-len(truth.boxes) :] = truth.boxes
    scores = np.linspace(0.9, 0.1, len(boxes)).astype(np.float32)
    return Detections(boxes, scores, np.zeros(len(boxes), np.int64))


def noisy(boxes: NDArray, labels: NDArray, rng: np.random.Generator, extra: int) -> Detections:
    """Some boxes twice, shaken, some with a wrong class, among `extra` others; scores of two decimals."""
    rows = rng.permutation(np.repeat(np.arange(len(boxes)), 2))[: int(1.6 * len(boxes))]
    shaken = boxes[rows] + rng.normal(0, 1.5, (len(rows), 4)) * (rng.random((len(rows), 1)) < 0.8)
    low = rng.uniform(0, 560, (extra, 2))
    others = np.concatenate([low, low + rng.uniform(3, 60, (extra, 2))], axis=1)
    told = np.concatenate([shaken, others])
    told[:, 2:] = np.maximum(told[:, 2:], told[:, :2] + 1)
    wrong = rng.integers(0, len(CLASSES), len(rows) + extra)
    kinds = np.concatenate(
        [np.where(rng.random(len(rows)) < 0.9, labels[rows], wrong[: len(rows)]), wrong[len(rows) :]]
    )
    scores = np.round(np.concatenate([rng.beta(4, 2, len(rows)), rng.beta(1.5, 6, extra)]), 2)
    order = np.argsort(-scores, kind="stable")
    return Detections(told[order].astype(np.float32), scores[order].astype(np.float32), kinds[order].astype(np.int64))


@dataclass(frozen=True)
class Reference:
    """pycocotools' arrays with our list length and sizes."""

    precision: NDArray[np.float64]
    """(IoU, recall, class, area range); -1 where there is no ground truth."""
    recall: NDArray[np.float64]
    """(IoU, class, area range)."""

    @classmethod
    def of(cls, truths: list[Truth], detections: list[Detections]) -> "Reference":
        data = {
            "images": [{"id": place} for place in range(len(truths))],
            "categories": [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)],
            "annotations": (annotations := []),
        }
        results = []
        for place, (truth, found) in enumerate(zip(truths, detections, strict=True)):
            for box, label in zip(xywh(truth.boxes), truth.labels.tolist(), strict=True):
                shared = {"id": len(annotations) + 1, "image_id": place, "category_id": label + 1}
                annotations.append(shared | {"bbox": box, "area": box[2] * box[3], "iscrowd": 0})
            for box, score, label in zip(xywh(found.boxes), found.scores.tolist(), found.labels.tolist(), strict=True):
                results.append({"image_id": place, "category_id": label + 1, "bbox": box, "score": score})
        with contextlib.redirect_stdout(io.StringIO()):
            truth_set: Any = COCO()  # its type knows of files only
            truth_set.dataset = data
            truth_set.createIndex()
            scorer = COCOeval(truth_set, truth_set.loadRes(results), "bbox")
            scorer.params.maxDets = [MAX_DETECTIONS]
            scorer.params.areaRng = [[0, 1e10], *(list(area) for area in SIZES.values())]
            scorer.params.areaRngLbl = ["all", *SIZES]
            scorer.evaluate()
            scorer.accumulate()
        return cls(scorer.eval["precision"][..., 0], scorer.eval["recall"][..., 0])


def xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()


def mean(values: NDArray[np.float64]) -> float | None:
    return float(values[values > -1].mean()) if (values > -1).any() else None


@pytest.fixture(scope="module", params=[0, 1])
def both(request: pytest.FixtureRequest) -> tuple[Metrics, Reference]:
    truths, detections = crowded(request.param)
    return coco_metrics(truths, detections, CLASSES), Reference.of(truths, detections)


def test_ap_and_ar_are_those_of_the_reference(both: tuple[Metrics, Reference]) -> None:
    metrics, reference = both
    everything = reference.precision[..., 0]
    assert 0.1 < metrics.ap < 0.9
    assert metrics.ap == pytest.approx(mean(everything), abs=1e-6)
    assert metrics.ap50 == pytest.approx(mean(everything[0]), abs=1e-6)
    assert metrics.ap75 == pytest.approx(mean(everything[5]), abs=1e-6)
    assert metrics.ar == pytest.approx(mean(reference.recall[..., 0]), abs=1e-6)


def test_ap_by_size_is_that_of_the_reference(both: tuple[Metrics, Reference]) -> None:
    metrics, reference = both
    theirs = [mean(reference.precision[..., 1 + place]) for place in range(len(SIZES))]
    assert list(metrics.ap_by_size.values()) == pytest.approx(theirs, abs=1e-6)


def test_the_figures_of_a_class_are_those_of_the_reference(both: tuple[Metrics, Reference]) -> None:
    metrics, reference = both
    everything = reference.precision[..., 0]
    for label, row in enumerate(metrics.by_class.values()):
        assert row.ap == pytest.approx(mean(everything[:, :, label]), abs=1e-6)
        assert row.ap50 == pytest.approx(mean(everything[0, :, label]), abs=1e-6)
    assert metrics.by_class["never there"].ap is None


def test_the_curve_of_a_class_is_that_of_the_reference(both: tuple[Metrics, Reference]) -> None:
    metrics, reference = both
    for label, row in enumerate(list(metrics.by_class.values())[:3]):
        assert row.curve == pytest.approx(reference.precision[0, :, label, 0].tolist(), abs=1e-6)


def test_as_many_boxes_are_found_as_the_reference_finds() -> None:
    truths, detections = crowded(0)
    few = [Detections(found.boxes[:300], found.scores[:300], found.labels[:300]) for found in detections]
    metrics = coco_metrics(truths, few, CLASSES, operating_threshold=-1.0)
    ours = [row.recall for row in metrics.by_class.values()][:3]
    assert ours == pytest.approx(Reference.of(truths, few).recall[0, :3, 0].tolist(), abs=1e-6)
