"""From decoder outputs to a list of detections, in numpy; the service and its benchmarks share it."""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.letterbox import FloatArray
from service.manifest import Manifest


@dataclass(frozen=True)
class DetectionOptions:
    """What counts as a detection, complete: nothing is looked up later.

    Attributes:
        thresholds: (C,) scores below or at the threshold of their class are dropped.
        classes: class ids wanted; None for all.
        nms_iou: two boxes of one class that overlap more than this are one object; None keeps both.
        max_detections: length of the list.
    """

    thresholds: FloatArray
    classes: frozenset[int] | None
    nms_iou: float | None
    max_detections: int

    @classmethod
    def from_manifest(
        cls,
        manifest: Manifest,
        threshold: float | None = None,
        max_detections: int | None = None,
        classes: Collection[int] | None = None,
    ) -> "DetectionOptions":
        """Fill what is not given from the manifest. A threshold given here holds for every class."""
        spec = manifest.postprocess
        if threshold is None:
            per_class = [spec.class_thresholds.get(name, spec.threshold) for name in manifest.classes]
        else:
            per_class = [threshold] * len(manifest.classes)
        return cls(
            thresholds=np.array(per_class, dtype=np.float32),
            classes=None if classes is None else frozenset(classes),
            nms_iou=spec.nms_iou,
            max_detections=spec.max_detections if max_detections is None else max_detections,
        )


@dataclass(frozen=True)
class Detections:
    """M detections, best first: boxes (M, 4) xyxy, scores (M,), labels (M,)."""

    boxes: FloatArray
    scores: FloatArray
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> "Detections":
        """The detections at these positions."""
        return Detections(self.boxes[index], self.scores[index], self.labels[index])


def select_detections(boxes: FloatArray, scores: FloatArray, options: DetectionOptions) -> Detections:
    """Every (query, class) pair above its threshold, without duplicates, sorted by score.

    Args:
        boxes: (K, 4) xyxy.
        scores: (K, C) in [0, 1].
    """
    wanted = scores > options.thresholds  # (K, C)
    if options.classes is not None:
        wanted &= np.isin(np.arange(scores.shape[1]), sorted(options.classes))
    queries, labels = np.nonzero(wanted)
    found = Detections(boxes[queries], scores[queries, labels], labels.astype(np.int64))
    found = found.take(np.argsort(-found.scores, kind="stable"))
    if options.nms_iou is not None:
        found = found.take(keep_best_of_each(found, options.nms_iou))
    return found.take(np.arange(min(len(found), options.max_detections)))


def keep_best_of_each(found: Detections, max_iou: float) -> NDArray[np.bool_]:
    """Greedy non-maximum suppression inside each class, over detections sorted by score; (M,) true = kept."""
    keep = np.ones(len(found), dtype=bool)
    for label in np.unique(found.labels):
        members = np.flatnonzero(found.labels == label)
        keep[members] = _suppress(found.boxes[members], max_iou)
    return keep


def _suppress(boxes: FloatArray, max_iou: float) -> NDArray[np.bool_]:
    """A box falls if a better box that stands overlaps it.

    Repeated until nothing changes: after round t the first t boxes are final, so the end is greedy.
    """
    beats = np.triu(pairwise_iou(boxes, boxes) > max_iou, k=1)  # (M, M): row is better and overlaps column
    keep = np.ones(len(boxes), dtype=bool)
    while True:
        standing = np.logical_not(np.any(beats[keep], axis=0))
        if np.array_equal(standing, keep):
            return keep
        keep = standing


def pairwise_iou(first: FloatArray, second: FloatArray) -> FloatArray:
    """Intersection over union of (M, 4) and (N, 4) xyxy boxes; (M, N), 0 where both are empty."""
    top_left = np.maximum(first[:, None, :2], second[None, :, :2])  # (M, N, 2)
    bottom_right = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.prod(np.clip(bottom_right - top_left, 0, None), axis=-1)  # (M, N)
    union = _areas(first)[:, None] + _areas(second)[None, :] - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _areas(boxes: FloatArray) -> FloatArray:
    return np.prod(np.clip(boxes[:, 2:] - boxes[:, :2], 0, None), axis=-1)
