"""Runs a detector over annotated pictures and scores what it says.

The picture goes onto the model's canvas, and detections are picked from its outputs, as the service does it.
B pictures of a batch, K queries, C classes, M detections, S side of the canvas.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.ops import nms
from tqdm import tqdm

from model.boxes import to_xyxy
from model.decoder import class_scores
from model.detector import Detector
from model.structures import DetectorOutput
from training.data.canvas import boxes_to_picture, letterbox
from training.data.samples import Sample
from training.data.transforms import Pictures
from training.evaluation.matches import Detections, Truth
from training.evaluation.metrics import MAX_DETECTIONS, OPERATING_THRESHOLD, Metrics, coco_metrics

LOWEST_SCORE = 0.01
"""Detections with lower scores do not enter AP."""


class AnnotatedPictures(Pictures, Protocol):
    """A dataset that knows the names of its labels."""

    @property
    def classes(self) -> tuple[str, ...]: ...


@dataclass
class Findings:
    """What a detector says of the pictures of a dataset, beside the truth; one entry per picture in each list."""

    classes: tuple[str, ...]
    indices: list[int] = field(default_factory=list)
    """Places of the pictures in the dataset."""
    truths: list[Truth] = field(default_factory=list)
    by_layer: list[list[Detections]] = field(default_factory=list)
    """Per layer that was asked for, the last one last."""
    counts: list[float] = field(default_factory=list)
    """Estimated numbers of objects; empty where the detector estimates none."""
    queries: list[int] = field(default_factory=list)
    """K of each picture."""

    def metrics(self, operating_threshold: float = OPERATING_THRESHOLD, layer: int = -1) -> Metrics:
        """Score one layer. Raises ValueError if there is no box."""
        found, counts = self.by_layer[layer], self.counts or None
        metrics = coco_metrics(self.truths, found, self.classes, operating_threshold, counts)
        return replace(metrics, mean_queries=float(np.mean(self.queries)))

    def layer_metrics(self) -> list[Metrics]:
        """Of every layer that was asked for, the last one last. Raises ValueError if there is no box."""
        return [self.metrics(layer=layer) for layer in range(len(self.by_layer))]


def detect(
    detector: Detector,
    dataset: AnnotatedPictures,
    size: int,
    batch_size: int,
    device: torch.device | str,
    precision: Literal["bf16", "fp32"],
    nms_iou: float | None = None,
    every_layer: bool = False,
    progress: bool = True,
) -> Findings:
    """Run the detector over a dataset of stored-size pictures (`CocoDataset(..., size=None)`).

    Args:
        size: side of the square canvas.
        nms_iou: class-wise non-maximum suppression; None switches it off.
        every_layer: read the proposals (HMPE's Det0) and each decoder layer, not the last one alone.
    """
    findings = Findings(dataset.classes)
    was_training = detector.training
    detector.eval()
    batches = math.ceil(len(dataset) / batch_size)
    for batch in tqdm(
        _batches(dataset, batch_size), desc="evaluate", total=batches, unit="batch", disable=not progress
    ):
        fitted = [letterbox(sample.image, size) for _, sample in batch]
        output = _run(detector, [canvas for canvas, _ in fitted], device, precision)
        readings = _readings(output, detector.config.decoder.classification, every_layer)
        findings.by_layer = findings.by_layer or [[] for _ in readings]
        for found, (boxes, scores) in zip(findings.by_layer, readings, strict=True):
            for row, ((_, sample), (_, scale)) in enumerate(zip(batch, fitted, strict=True)):
                height, width = sample.image.shape[:2]
                found.append(picture_detections(boxes[row] * size, scores[row], scale, (width, height), nms_iou))
        findings.indices += [index for index, _ in batch]
        findings.truths += [Truth(sample.boxes, sample.labels) for _, sample in batch]
        findings.counts += [] if output.count is None else output.count.float().tolist()
        findings.queries += output.queries.valid.sum(dim=1).tolist()
    detector.train(was_training)
    return findings


def _batches(dataset: AnnotatedPictures, size: int) -> Iterator[list[tuple[int, Sample]]]:
    """The pictures with their places, `size` at a time; one that also stands in for a corrupt one comes once only."""
    seen: set[int] = set()
    for first in range(0, len(dataset), size):
        batch = []
        for index in range(first, min(first + size, len(dataset))):
            sample = dataset[index]
            if sample.image_id not in seen:
                batch.append((index, sample))
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


@torch.inference_mode()
def _readings(
    output: DetectorOutput, classification: Literal["sigmoid", "softmax"], every_layer: bool
) -> list[tuple[Tensor, Tensor]]:
    """Per layer boxes (B, K, 4), xyxy in fractions of the canvas, and scores (B, K, C), zero where not valid."""
    queries, layers = output.queries, output.layers if every_layer else output.layers[-1:]
    read = [(layer.boxes, class_scores(layer.logits.float(), classification)) for layer in layers]
    if every_layer:  # proposals are always classified by sigmoid, whatever the decoder does (D3Q)
        read = [(queries.reference_boxes, queries.logits.float().sigmoid()), *read]
    valid = queries.valid[:, :, None]
    return [(to_xyxy(boxes.float()).cpu(), (scores * valid).cpu()) for boxes, scores in read]


def picture_detections(
    boxes: Tensor,
    scores: Tensor,
    scale: tuple[float, float],
    picture: tuple[int, int],
    nms_iou: float | None,
    max_detections: int = MAX_DETECTIONS,
) -> Detections:
    """Detections in pixels of the picture; boxes that lie wholly in the padding are dropped and take no place.

    Args:
        boxes: (K, 4), xyxy in pixels of the canvas.
        scores: (K, C).
        scale: canvas pixels per pixel of the picture, along x and y.
        picture: its (width, height).
        nms_iou, max_detections: see `select_detections`.
    """
    clipped = boxes_to_picture(boxes.numpy(), scale, picture)
    inside = torch.from_numpy((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    on_canvas, score, label = select_detections(boxes[inside], scores[inside], LOWEST_SCORE, nms_iou, max_detections)
    return Detections(boxes_to_picture(on_canvas.numpy(), scale, picture), score.numpy(), label.numpy())


def select_detections(
    boxes: Tensor, scores: Tensor, threshold: float, nms_iou: float | None, max_detections: int
) -> tuple[Tensor, Tensor, Tensor]:
    """All (query, class) pairs above the threshold, without duplicates inside a class, best first.

    Args:
        boxes: (K, 4), xyxy.
        scores: (K, C).
        nms_iou: of two boxes of a class that overlap by more, the worse is dropped; None keeps both.
        max_detections: length of the list.
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
