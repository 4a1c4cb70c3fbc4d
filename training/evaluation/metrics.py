"""Scores detections against boxes: COCO's AP with AI-TOD's sizes, precision and recall, confusion, the count.

C classes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from training.evaluation.matches import Detections, LabelledBoxes, Verdicts, confusion_matrix

SIZES = {
    "very tiny (2-8)": (0, 8**2),
    "tiny (8-16)": (8**2, 16**2),
    "small (16-32)": (16**2, 32**2),
    "medium (32-64)": (32**2, 64**2),
    "large (>64)": (64**2, 10**10),
}
"""Ranges of the box area in square pixels (AI-TOD, Wang et al., ICPR 2021)."""

MAX_DETECTIONS = 1500
"""Detections counted per picture and class (AI-TOD)."""

OPERATING_THRESHOLD = 0.3
"""Score above which a detection is shown, unless a model's manifest says otherwise."""


@dataclass(frozen=True)
class ClassMetrics:
    """The figures of one class; None where there is nothing to measure on."""

    boxes: int
    ap: float | None
    ap50: float | None
    precision: float | None
    """At the operating threshold; None if no detection of the class is above it."""
    recall: float | None
    curve: list[float] | None
    """Precision at recall 0, 0.01, ..., 1 at IoU 0.5, made monotone as COCO does; its mean is `ap50`."""


@dataclass(frozen=True)
class Metrics:
    """What an evaluation found; None where there is nothing to measure on."""

    images: int
    boxes: int
    ap: float
    """Mean over IoU 0.5 to 0.95 and classes, of at most MAX_DETECTIONS per picture and class."""
    ap50: float
    ap75: float
    ar: float
    """Mean over IoU 0.5 to 0.95 and classes."""
    ap_by_size: dict[str, float | None]
    by_class: dict[str, ClassMetrics]
    operating_threshold: float
    """Score above which a detection counts for `precision`, `recall` and `confusion`, all at IoU 0.5."""
    precision: float
    recall: float
    best_threshold: float
    """The threshold with the highest F1 on these very pictures, and so an optimistic choice."""
    best_precision: float
    best_recall: float
    best_f1: float
    confusion: list[list[int]]
    """(C + 1, C + 1), see `confusion_matrix`."""
    count_mae: float | None = None
    """Mean absolute difference between the estimated and the true count of a picture."""
    count_relative_mae: float | None = None
    """Sum of these differences as a share of all boxes."""
    count_correlation: float | None = None
    mean_queries: float | None = None
    """Mean number of queries of a picture (K)."""

    def to_json(self) -> str:
        """All values as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    def rows(self) -> dict[str, float | None]:
        """The figures over all classes, by the name that a reader sees."""
        return {
            "AP": self.ap,
            "AP50": self.ap50,
            "AP75": self.ap75,
            **{f"AP {name}": value for name, value in self.ap_by_size.items()},
            "AR": self.ar,
            f"precision at score {self.operating_threshold:g}": self.precision,
            f"recall at score {self.operating_threshold:g}": self.recall,
            "score with the best F1": self.best_threshold,
            "precision at best F1": self.best_precision,
            "recall at best F1": self.best_recall,
            "best F1": self.best_f1,
            "count: mean absolute error": self.count_mae,
            "count: error / boxes": self.count_relative_mae,
            "count: correlation": self.count_correlation,
            "mean queries": self.mean_queries,
        }

    def table(self) -> str:
        """All values as two Markdown tables, overall and by class; `-` where nothing can be measured."""
        lines = [f"| {self.images} images, {self.boxes} boxes | |", "|---|---:|"]
        lines += [f"| {name} | {shown(value)} |" for name, value in self.rows().items()]
        lines += ["", "| class | boxes | AP | AP50 | precision | recall |", "|---|---:|---:|---:|---:|---:|"]
        for name, row in self.by_class.items():
            figures = " | ".join(shown(value) for value in (row.ap, row.ap50, row.precision, row.recall))
            lines.append(f"| {name} | {row.boxes} | {figures} |")
        return "\n".join(lines)


def shown(value: float | None) -> str:
    """Three decimals, or `-` for nothing."""
    return "-" if value is None else f"{value:.3f}"


def coco_metrics(
    truths: Sequence[LabelledBoxes],
    detections: Sequence[Detections],
    classes: tuple[str, ...],
    operating_threshold: float = OPERATING_THRESHOLD,
    counts: Sequence[float] | None = None,
) -> Metrics:
    """Score detections picture by picture against the ground truth.

    Args:
        truths, detections: one entry per picture, in the same order.
        counts: estimated number of objects per picture, if there is an estimate.
    Raises:
        ValueError: unequal lengths, or no ground truth at all.
    """
    if len(truths) != len(detections):
        raise ValueError(f"{len(truths)} pictures have ground truth, {len(detections)} have detections")
    true_counts = np.array([len(truth.labels) for truth in truths], dtype=np.float64)
    if not true_counts.sum():
        raise ValueError(f"no box in {len(truths)} pictures: there is nothing to score against")
    average_precision, recall = _coco_arrays(truths, detections, classes)
    verdicts = Verdicts.of(truths, detections, len(classes))
    precision_at, recall_at = verdicts.at(operating_threshold)
    best = verdicts.best_threshold()
    best_precision, best_recall = (value or 0.0 for value in verdicts.at(best))
    everything = average_precision[:, :, :, 0]  # (IoU, recall, class) of the area range "all"
    metrics = Metrics(
        images=len(truths),
        boxes=int(true_counts.sum()),
        ap=_mean(everything) or 0.0,
        ap50=_mean(everything[0]) or 0.0,
        ap75=_mean(everything[5]) or 0.0,
        ar=_mean(recall[:, :, 0]) or 0.0,
        ap_by_size={name: _mean(average_precision[:, :, :, 1 + place]) for place, name in enumerate(SIZES)},
        by_class={
            name: _class_metrics(everything[:, :, label], verdicts.of_class(label), operating_threshold)
            for label, name in enumerate(classes)
        },
        operating_threshold=operating_threshold,
        precision=precision_at or 0.0,
        recall=recall_at or 0.0,
        best_threshold=best,
        best_precision=best_precision,
        best_recall=best_recall,
        best_f1=2 * best_precision * best_recall / ((best_precision + best_recall) or 1.0),
        confusion=confusion_matrix(truths, detections, len(classes), operating_threshold).tolist(),
    )
    return metrics if counts is None else replace(metrics, **_count_error(np.array(counts, np.float64), true_counts))


def _class_metrics(average_precision: NDArray[np.float64], verdicts: Verdicts, threshold: float) -> ClassMetrics:
    """The figures of one class from its COCO array (IoU, recall) and its verdicts."""
    boxes = int(verdicts.boxes.sum())
    precision, recall = verdicts.at(threshold)
    return ClassMetrics(
        boxes=boxes,
        ap=_mean(average_precision),
        ap50=_mean(average_precision[0]),
        precision=precision,
        recall=recall,
        curve=average_precision[0].tolist() if boxes else None,
    )


def _count_error(estimated: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float | None]:
    """How far the estimated counts of the pictures are from the true ones."""
    error = np.abs(estimated - true)
    varied = min(estimated.std(), true.std()) > 0
    return {
        "count_mae": float(error.mean()),
        "count_relative_mae": float(error.sum() / true.sum()),
        "count_correlation": float(np.corrcoef(estimated, true)[0, 1]) if varied else None,
    }


def _coco_arrays(
    truths: Sequence[LabelledBoxes], detections: Sequence[Detections], classes: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """COCO's precision (IoU, recall, class, area range) and recall (IoU, class, area range) with MAX_DETECTIONS.

    -1 where there is no ground truth. The first area range is "all", the others are SIZES.
    """
    annotations: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image_id, (truth, found) in enumerate(zip(truths, detections, strict=True), start=1):
        for box, label in zip(_xywh(truth.boxes), truth.labels.tolist(), strict=True):
            place = {"id": len(annotations) + 1, "image_id": image_id, "category_id": label + 1}
            annotations.append({**place, "bbox": box, "area": box[2] * box[3], "iscrowd": 0})
        for box, score, label in zip(_xywh(found.boxes), found.scores.tolist(), found.labels.tolist(), strict=True):
            results.append({"image_id": image_id, "category_id": label + 1, "bbox": box, "score": score})
    images = [{"id": image_id} for image_id in range(1, len(truths) + 1)]
    categories = [{"id": label, "name": name} for label, name in enumerate(classes, start=1)]
    truth_set = COCO({"images": images, "annotations": annotations, "categories": categories})
    ranges = {name: list(area) for name, area in SIZES.items()}
    scorer = COCOeval_faster(truth_set, truth_set.loadRes(results), "bbox", ranges=ranges)
    scorer.params.maxDets = [1, 100, MAX_DETECTIONS]
    scorer.evaluate()
    scorer.accumulate()
    return np.asarray(scorer.eval["precision"])[..., -1], np.asarray(scorer.eval["recall"])[..., -1]


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    """(M, 4) corners to COCO's lists."""
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean over the entries that have ground truth."""
    present = values[values > -1]
    return float(present.mean()) if present.size else None
