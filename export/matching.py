"""Detections of two runtimes, paired."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.config import Config


@dataclass(frozen=True)
class Detections:
    """M detections of one picture: boxes (M, 4) xyxy in pixels of the canvas, scores (M,), labels (M,)."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    def count_above(self, threshold: float) -> int:
        """How many have a higher score."""
        return int((self.scores > threshold).sum())


class Match(Config):
    """How well two sets of detections agree."""

    matched: int
    unmatched: int
    """Above the threshold on one side, without a partner within the tolerance on the other."""
    max_box_px: float
    """Largest difference of a coordinate between partners."""
    max_score: float
    """Largest difference of a score between partners."""

    def joined(self, other: "Match") -> "Match":
        """Both together."""
        return Match(
            matched=self.matched + other.matched,
            unmatched=self.unmatched + other.unmatched,
            max_box_px=max(self.max_box_px, other.max_box_px),
            max_score=max(self.max_score, other.max_score),
        )


def above(
    boxes: NDArray[np.float32], scores: NDArray[np.float32], threshold: float, best_class_only: bool = False
) -> Detections:
    """All (query, class) pairs with a score above the threshold.

    Args:
        boxes: (K, 4).
        scores: (K, C).
        best_class_only: take one class of each query, as detector.onnx does.
    """
    wanted = scores > threshold
    if best_class_only:
        wanted &= np.arange(scores.shape[1]) == scores.argmax(1)[:, None]
    queries, labels = np.nonzero(wanted)
    return Detections(boxes[queries], scores[queries, labels], labels.astype(np.int64))


def match(first: Detections, second: Detections, threshold: float, max_box_px: float, max_score: float) -> Match:
    """Pair detections of one class, best pair first; each has one partner at most.

    Args:
        first, second: detections down to a little below the threshold: what one side puts just above it, the other
            may put just below.
        threshold: detections above it need a partner.
        max_box_px, max_score: partners differ by no more than this.
    """
    box_gap = np.abs(first.boxes[:, None] - second.boxes[None]).max(-1, initial=0)  # (M, N)
    score_gap = np.abs(first.scores[:, None] - second.scores[None])
    cost = np.maximum(box_gap / max_box_px, score_gap / max_score)
    cost[first.labels[:, None] != second.labels[None]] = np.inf
    worst_box = worst_score = 0.0
    free_first, free_second = np.ones(len(first.scores), dtype=bool), np.ones(len(second.scores), dtype=bool)
    matched = 0
    for i, j in zip(*np.unravel_index(np.argsort(cost, axis=None), cost.shape), strict=True):
        if cost[i, j] > 1 or np.isnan(cost[i, j]):
            break
        if free_first[i] and free_second[j]:
            free_first[i] = free_second[j] = False
            matched += 1
            worst_box, worst_score = max(worst_box, float(box_gap[i, j])), max(worst_score, float(score_gap[i, j]))
    alone = (free_first & (first.scores > threshold)).sum() + (free_second & (second.scores > threshold)).sum()
    return Match(matched=matched, unmatched=int(alone), max_box_px=worst_box, max_score=worst_score)
