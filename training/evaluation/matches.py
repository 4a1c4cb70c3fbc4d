"""Which detections are right: boxes found one to one at IoU 0.5, precision and recall at a score, confusion of classes.

M detections or G boxes of one picture, N detections of all pictures, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

MATCH_IOU = 0.5
"""Overlap at which a detection finds a box."""


@dataclass(frozen=True)
class Detections:
    """M detections in one picture, best first."""

    boxes: NDArray[np.float32]
    """(M, 4), xyxy in pixels of the stored picture."""
    scores: NDArray[np.float32]
    """(M,), in [0, 1]."""
    labels: NDArray[np.int64]
    """(M,)."""

    def above(self, threshold: float) -> "Detections":
        """Those with a higher score."""
        kept = self.scores > threshold
        return Detections(self.boxes[kept], self.scores[kept], self.labels[kept])


class LabelledBoxes(Protocol):
    """The ground truth of one picture: boxes (G, 4) xyxy in pixels and labels (G,). A Sample is one."""

    @property
    def boxes(self) -> NDArray[np.float32]: ...

    @property
    def labels(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True)
class Truth:
    """The ground truth of one picture, without its pixels."""

    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]


def match(truth: LabelledBoxes, found: Detections) -> NDArray[np.int64]:
    """(M,), the box of its class that each detection finds, or -1; the best one chooses first, as in COCO."""
    overlap = _overlap(truth, found)
    overlap[found.labels[:, None] != truth.labels[None, :]] = 0
    return _assign(overlap, found.scores)


def _overlap(truth: LabelledBoxes, found: Detections) -> NDArray[np.float64]:
    """(M, G), IoU."""
    boxes, others = (torch.from_numpy(part.boxes.astype(np.float64)) for part in (found, truth))
    return box_iou(boxes, others).numpy()


def _assign(overlap: NDArray[np.float64], scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """(M, G) to (M,): each row takes the free column that it overlaps most, best score first; -1 below MATCH_IOU."""
    overlap = overlap.copy()
    chosen = np.full(len(scores), -1, dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    for row in order[(overlap[order] >= MATCH_IOU).any(axis=1)]:
        column = int(overlap[row].argmax())
        if overlap[row, column] >= MATCH_IOU:
            chosen[row] = column
            overlap[:, column] = 0
    return chosen


@dataclass(frozen=True)
class Verdicts:
    """Every detection of a dataset, best first, and whether it is right."""

    scores: NDArray[np.float64]
    """(N,)."""
    labels: NDArray[np.int64]
    """(N,)."""
    right: NDArray[np.bool_]
    """(N,), whether it finds a box of its class that no better detection has found."""
    boxes: NDArray[np.int64]
    """(C,), boxes there are per class."""

    @classmethod
    def of(cls, truths: Sequence[LabelledBoxes], detections: Sequence[Detections], num_classes: int) -> "Verdicts":
        """Match picture by picture."""
        scores = np.concatenate([found.scores for found in detections]).astype(np.float64)
        labels = np.concatenate([found.labels for found in detections])
        right = np.concatenate([match(t, found) >= 0 for t, found in zip(truths, detections, strict=True)])
        boxes = np.bincount(np.concatenate([truth.labels for truth in truths]), minlength=num_classes)
        order = np.argsort(-scores, kind="stable")
        return cls(scores[order], labels[order], right[order], boxes)

    def of_class(self, label: int) -> "Verdicts":
        """Those of one class."""
        kept = self.labels == label
        return Verdicts(self.scores[kept], self.labels[kept], self.right[kept], self.boxes[label : label + 1])

    def at(self, threshold: float) -> tuple[float | None, float | None]:
        """Share of the detections above the threshold that are right, and share of the boxes that they find.

        None where there is no such detection, or no box.
        """
        told = int((self.scores > threshold).sum())
        right, boxes = int(self.right[:told].sum()), int(self.boxes.sum())
        return right / told if told else None, right / boxes if boxes else None

    def best_threshold(self) -> float:
        """The threshold with the highest F1, halfway to the next lower score; 1 if there is no detection."""
        if not len(self.scores):
            return 1.0
        told = np.arange(1, len(self.scores) + 1)
        f1 = 2 * np.cumsum(self.right) / (told + self.boxes.sum())  # 2 PR / (P + R)
        following = np.append(self.scores[1:], 0.0)
        f1[self.scores == following] = -1  # a threshold cannot separate equal scores
        best = int(f1.argmax())
        return float(self.scores[best] + following[best]) / 2


def confusion_matrix(
    truths: Sequence[LabelledBoxes], detections: Sequence[Detections], num_classes: int, threshold: float
) -> NDArray[np.int64]:
    """(C + 1, C + 1): rows are true classes, columns predicted ones; the last of each is background.

    Detections first find boxes of their own class, so the diagonal holds what precision and recall count. Those left
    over then find, whatever their class, the boxes left over; the rest are false alarms (last row) and misses (last
    column).
    """
    matrix = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    for truth, found in zip(truths, detections, strict=True):
        told = found.above(threshold)
        right = match(truth, told)
        overlap = _overlap(truth, told)
        overlap[right >= 0] = 0
        overlap[:, right[right >= 0]] = 0
        chosen = np.where(right >= 0, right, _assign(overlap, told.scores))
        rows = np.append(truth.labels, num_classes)[chosen]  # -1 takes the background
        np.add.at(matrix, (rows, told.labels), 1)
        missed = np.delete(truth.labels, chosen[chosen >= 0])
        matrix[:, num_classes] += np.bincount(missed, minlength=num_classes + 1)
    return matrix
