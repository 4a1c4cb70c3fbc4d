"""Scores a detector on annotated pictures: COCO's AP with AI-TOD's sizes, precision and recall, the count.

The picture goes onto the model's canvas, and detections are picked from its outputs, as the service does it.
K queries, C classes, M boxes, S side of the canvas.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.ops import box_iou, nms
from tqdm import tqdm

from model.boxes import to_xyxy
from model.structures import DetectorOutput
from training.data.canvas import boxes_to_picture, letterbox
from training.data.samples import Sample
from training.data.transforms import Pictures

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


@dataclass(frozen=True)
class Detections:
    """M detections in one picture, best first."""

    boxes: NDArray[np.float32]
    """(M, 4), xyxy in pixels of the stored picture."""
    scores: NDArray[np.float32]
    """(M,), in [0, 1]."""
    labels: NDArray[np.int64]
    """(M,)."""


class LabelledBoxes(Protocol):
    """The ground truth of one picture: boxes (M, 4) xyxy in pixels and labels (M,). A Sample is one."""

    @property
    def boxes(self) -> NDArray[np.float32]: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Truth:
    """The ground truth of one picture, without its pixels."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


class AnnotatedPictures(Pictures, Protocol):
    """A dataset that knows the names of its labels."""

    @property
    def classes(self) -> tuple[str, ...]: ...


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
    ap_by_class: dict[str, float | None]
    ap50_by_class: dict[str, float | None]
    operating_threshold: float
    """Score above which a detection counts for `precision` and `recall`, both at IoU 0.5."""
    precision: float
    recall: float
    count_mae: float | None = None
    """Mean absolute difference between the estimated and the true count of a picture."""
    count_correlation: float | None = None
    mean_queries: float | None = None
    """Mean number of queries of a picture (K)."""

    def to_json(self) -> str:
        """All values as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    def table(self) -> str:
        """All values as two Markdown tables, overall and by class; `-` where nothing can be measured."""
        rows: list[tuple[str, float | None]] = [("AP", self.ap), ("AP50", self.ap50), ("AP75", self.ap75)]
        rows += [(f"AP {name}", value) for name, value in self.ap_by_size.items()]
        rows += [
            ("AR", self.ar),
            (f"precision at score {self.operating_threshold:g}", self.precision),
            (f"recall at score {self.operating_threshold:g}", self.recall),
            ("count: mean absolute error", self.count_mae),
            ("count: correlation", self.count_correlation),
            ("mean queries", self.mean_queries),
        ]
        lines = [f"| {self.images} images, {self.boxes} boxes | |", "|---|---:|"]
        lines += [f"| {name} | {_shown(value)} |" for name, value in rows]
        lines += ["", "| class | AP | AP50 |", "|---|---:|---:|"]
        for name, value in self.ap_by_class.items():
            lines.append(f"| {name} | {_shown(value)} | {_shown(self.ap50_by_class[name])} |")
        return "\n".join(lines)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def evaluate(
    detector: nn.Module,
    dataset: AnnotatedPictures,
    size: int,
    batch_size: int,
    device: torch.device | str,
    precision: Literal["bf16", "fp32"],
    threshold: float = 0.01,
    nms_iou: float | None = None,
    max_detections: int = MAX_DETECTIONS,
    operating_threshold: float = 0.3,
    progress: bool = True,
) -> Metrics:
    """Run the detector over a dataset of stored-size pictures (`CocoDataset(..., size=None)`) and score it.

    Args:
        size: side of the square canvas.
        threshold: detections with lower scores do not enter AP.
        nms_iou: class-wise non-maximum suppression; None switches it off.
        max_detections: detections kept per picture.
        operating_threshold: score at which precision and recall are told.
    Raises:
        ValueError: the dataset has no box.
    """
    truths: list[Truth] = []
    found: list[Detections] = []
    counts: list[float] = []
    queries: list[int] = []
    was_training = detector.training
    detector.eval()
    batches = math.ceil(len(dataset) / batch_size)
    for samples in tqdm(
        _batches(dataset, batch_size), desc="evaluate", total=batches, unit="batch", disable=not progress
    ):
        fitted = [letterbox(sample.image, size) for sample in samples]
        output = _run(detector, [canvas for canvas, _ in fitted], device, precision)
        scores = output.layers[-1].logits.float().sigmoid() * output.queries.valid[:, :, None]  # (B, K, C)
        boxes = to_xyxy(output.layers[-1].boxes.float()) * size  # (B, K, 4)
        for row, (sample, (_, scale)) in enumerate(zip(samples, fitted, strict=True)):
            picked = select_detections(boxes[row], scores[row], threshold, nms_iou, max_detections)
            on_canvas, score, label = (part.cpu().numpy() for part in picked)
            height, width = sample.image.shape[:2]
            found.append(Detections(boxes_to_picture(on_canvas, scale, (width, height)), score, label))
            truths.append(Truth(sample.boxes, sample.labels))
        counts += output.count.float().tolist()
        queries += output.queries.valid.sum(dim=1).tolist()
    detector.train(was_training)
    metrics = coco_metrics(truths, found, dataset.classes, operating_threshold, counts)
    return replace(metrics, mean_queries=float(np.mean(queries)))


def _batches(dataset: AnnotatedPictures, size: int) -> Iterator[list[Sample]]:
    """The pictures, `size` at a time; one that also stands in for a corrupt one comes once only."""
    seen: set[int] = set()
    for first in range(0, len(dataset), size):
        batch = []
        for index in range(first, min(first + size, len(dataset))):
            sample = dataset[index]
            if sample.image_id not in seen:
                batch.append(sample)
            seen.add(sample.image_id)
        if batch:
            yield batch


@torch.inference_mode()
def _run(
    detector: Callable[[Tensor], DetectorOutput],
    canvases: list[NDArray[np.uint8]],
    device: torch.device | str,
    precision: Literal["bf16", "fp32"],
) -> DetectorOutput:
    """One batch of canvases (S, S, 3) through the detector."""
    images = torch.from_numpy(np.stack(canvases)).permute(0, 3, 1, 2).contiguous().to(device)  # (B, 3, S, S)
    with torch.autocast(images.device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
        return detector(images)


def select_detections(
    boxes: Tensor, scores: Tensor, threshold: float, nms_iou: float | None, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All (query, class) pairs above the threshold, without duplicates inside a class, best first.

    Args:
        boxes: (K, 4), xyxy.
        scores: (K, C).
        nms_iou: of two boxes of a class that overlap by more, the worse is dropped; None keeps both.
    Returns:
        Boxes (M, 4), scores (M,), labels (M,), with M <= max_detections.
    """
    query, labels = (scores > threshold).nonzero(as_tuple=True)
    found = scores[query, labels]
    order = found.argsort(descending=True, stable=True)
    query, labels, found = query[order], labels[order], found[order]
    if nms_iou is not None and len(found):
        members = [(labels == label).nonzero().flatten() for label in labels.unique()]
        kept = torch.cat([member[nms(boxes[query[member]], found[member], nms_iou)] for member in members])
        kept = kept.sort().values  # the pairs were sorted by score
        query, labels, found = query[kept], labels[kept], found[kept]
    return boxes[query[:max_detections]], found[:max_detections], labels[:max_detections]


def coco_metrics(
    truths: Sequence[LabelledBoxes],
    detections: Sequence[Detections],
    classes: tuple[str, ...],
    operating_threshold: float = 0.3,
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
    precision_at, recall_at = _precision_recall(truths, detections, operating_threshold)
    everything, best = 0, -1  # index of the area range "all" and of the largest number of detections
    metrics = Metrics(
        images=len(truths),
        boxes=int(true_counts.sum()),
        ap=_mean(average_precision[:, :, :, everything, best]) or 0.0,
        ap50=_mean(average_precision[0, :, :, everything, best]) or 0.0,
        ap75=_mean(average_precision[5, :, :, everything, best]) or 0.0,
        ar=_mean(recall[:, :, everything, best]) or 0.0,
        ap_by_size={n: _mean(average_precision[:, :, :, 1 + i, best]) for i, n in enumerate(SIZES)},
        ap_by_class={n: _mean(average_precision[:, :, i, everything, best]) for i, n in enumerate(classes)},
        ap50_by_class={n: _mean(average_precision[0, :, i, everything, best]) for i, n in enumerate(classes)},
        operating_threshold=operating_threshold,
        precision=precision_at,
        recall=recall_at,
    )
    if counts is None:
        return metrics
    estimated = np.array(counts, dtype=np.float64)
    varied = min(estimated.std(), true_counts.std()) > 0
    return replace(
        metrics,
        count_mae=float(np.abs(estimated - true_counts).mean()),
        count_correlation=float(np.corrcoef(estimated, true_counts)[0, 1]) if varied else None,
    )


def _coco_arrays(
    truths: Sequence[LabelledBoxes], detections: Sequence[Detections], classes: tuple[str, ...]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """COCO's precision (IoU, recall, class, area, max detections) and recall (the same without recall).

    -1 where there is no ground truth.
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
    return np.asarray(scorer.eval["precision"]), np.asarray(scorer.eval["recall"])


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    """(M, 4) corners to COCO's lists."""
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()


def _mean(values: NDArray[np.float64]) -> float | None:
    """Mean over the entries that have ground truth."""
    present = values[values > -1]
    return float(present.mean()) if present.size else None


def _precision_recall(
    truths: Sequence[LabelledBoxes], detections: Sequence[Detections], threshold: float
) -> tuple[float, float]:
    """Share of detections above the threshold that are right, and share of boxes found, at IoU 0.5."""
    right = told = 0
    for truth, found in zip(truths, detections, strict=True):
        above = np.flatnonzero(found.scores > threshold)
        told += len(above)
        if not len(above) or not len(truth.labels):
            continue
        overlap = box_iou(torch.from_numpy(found.boxes[above]), torch.from_numpy(truth.boxes)).numpy()
        overlap[found.labels[above][:, None] != truth.labels[None, :]] = 0  # (detections, boxes)
        for row in np.argsort(-found.scores[above], kind="stable"):
            column = int(overlap[row].argmax())
            if overlap[row, column] >= 0.5:
                right += 1
                overlap[:, column] = 0
    boxes = sum(len(truth.labels) for truth in truths)
    return right / told if told else 0.0, right / boxes
