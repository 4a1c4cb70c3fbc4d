"""How good a list of boxes of a whole scene is, also for a part of its objects alone; and which boxes are doubles."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray

from benchmarks.scene_figures import Accuracy
from training.evaluation.matches import Detections, Truth, match

EVERY_AREA = 10**10  # COCO's upper end
MANY = 100_000  # boxes of a class that count: a scene is one picture
SHARED = 0.5  # of the smaller of two boxes, from which on they show one thing


@dataclass(frozen=True)
class Look:
    """A scene as it was seen once.

    Attributes:
        truth_group, found_group: (N,) and (M,) numbers of groups from 1; 0 for what belongs to none.
    """

    truth: Truth
    found: Detections
    truth_group: NDArray[np.int64]
    found_group: NDArray[np.int64]

    @classmethod
    def ungrouped(cls, truth: Truth, found: Detections) -> "Look":
        """All in group 1."""
        return cls(truth, found, np.ones(len(truth.labels), np.int64), np.ones(len(found.labels), np.int64))


def read_objects(path: Path, classes: Sequence[str]) -> tuple[Truth, NDArray[np.float32]]:
    """Boxes of a COCO file with labels by their place in `classes`; and their scores, 1 where it tells none."""
    document = json.loads(path.read_text(encoding="utf-8"))
    label = {each["id"]: classes.index(each["name"]) for each in document["categories"]}
    rows = document["annotations"]
    xywh = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1).astype(np.float32)
    labels = np.array([label[row["category_id"]] for row in rows], np.int64)
    return Truth(xyxy, labels), np.array([row.get("score", 1.0) for row in rows], np.float32)


def read_found(path: Path, classes: Sequence[str]) -> Detections:
    """Detections of a COCO file."""
    objects, scores = read_objects(path, classes)
    return Detections(objects.boxes, scores, objects.labels)


def accuracy(looks: Sequence[Look], classes: Sequence[str], groups: int = 1) -> list[Accuracy]:
    """Average precision of each group, over the classes that all groups have.

    A false alarm counts in the group that it is said to be in, a right box in that of its object. COCO's ranges of
    areas tell the groups apart: the number of the group stands for the area.
    """
    truth, found = _coco(looks, classes)
    edges = [0, *(group + 0.5 for group in range(groups)), EVERY_AREA]
    ranges = {str(group): list(edge) for group, edge in enumerate(pairwise(edges))}
    results = truth.loadRes(found)
    for row, group in zip(results.anns.values(), np.concatenate([look.found_group for look in looks]), strict=True):
        row["area"] = int(group)
    scorer = COCOeval_faster(truth, results, "bbox", ranges=ranges)
    scorer.params.maxDets = [1, 100, MANY]
    scorer.evaluate()
    scorer.accumulate()
    precision = np.asarray(scorer.eval["precision"])[..., 2:, -1]  # (IoU, recall, class, group), after "all" and 0
    everywhere = (precision[0, 0] > -1).all(axis=1)
    sizes = [sum(int((look.truth_group == group).sum()) for look in looks) for group in range(1, groups + 1)]
    return [
        Accuracy(objects=size, ap=_mean(precision[:, :, everywhere, at]), ap50=_mean(precision[0, :, everywhere, at]))
        for at, size in enumerate(sizes)
    ]


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else 0.0


def _coco(looks: Sequence[Look], classes: Sequence[str]) -> tuple[COCO, list[dict]]:
    annotations: list[dict] = []
    found: list[dict] = []
    for image, look in enumerate(looks, start=1):
        boxes = zip(_xywh(look.truth.boxes), look.truth.labels.tolist(), look.truth_group.tolist(), strict=True)
        for box, label, group in boxes:
            place = {"id": len(annotations) + 1, "image_id": image, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**place, "bbox": box, "area": group})
        rows = zip(_xywh(look.found.boxes), look.found.labels.tolist(), look.found.scores.tolist(), strict=True)
        found += [{"image_id": image, "category_id": row[1] + 1, "bbox": row[0], "score": row[2]} for row in rows]
    images = [{"id": image} for image in range(1, len(looks) + 1)]
    categories = [{"id": label, "name": name} for label, name in enumerate(classes, start=1)]
    return COCO({"images": images, "annotations": annotations, "categories": categories}), found


def _xywh(boxes: NDArray[np.float32]) -> list[list[float]]:
    wide = boxes.astype(np.float64)
    return np.concatenate([wide[:, :2], wide[:, 2:] - wide[:, :2]], axis=1).tolist()


def double_pairs(truth: Truth, found: Detections) -> NDArray[np.int64]:
    """(P, 2) positions of boxes of one class, more than half of the smaller inside the other, that are not two objects.

    Two boxes that find two objects, one each, are right however much they overlap.
    """
    chosen = match(truth, found)
    pairs = []
    for label in np.unique(found.labels):
        members = np.flatnonzero(found.labels == label)
        first, second = np.nonzero(np.triu(_share_of_smaller(found.boxes[members]) > SHARED, k=1))
        pairs.append(np.stack([members[first], members[second]], axis=1))
    every = np.concatenate(pairs) if pairs else np.zeros((0, 2), np.int64)
    return every[~(chosen[every] >= 0).all(axis=1)]


def _share_of_smaller(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(M, M) what two boxes share, as a part of the smaller one."""
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])  # (M, M, 2)
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=-1)
    return shared / np.maximum(np.minimum(area[:, None], area[None, :]), 1e-6)
