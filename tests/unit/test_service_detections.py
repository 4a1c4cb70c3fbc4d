"""Post-processing: thresholds, classes, duplicates, length."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.detections import DetectionOptions, pairwise_iou, select_detections

BOXES = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [50, 50, 60, 60]], dtype=np.float32)
SCORES = np.array([[0.9, 0.2], [0.8, 0.4], [0.5, 0.6]], dtype=np.float32)


def options(**changes: object) -> DetectionOptions:
    defaults: dict = {
        "thresholds": np.array([0.3, 0.3]),
        "classes": None,
        "nms_iou": None,
        "max_detections": 100,
    }
    return DetectionOptions(**{**defaults, **changes})


def test_every_pair_above_its_threshold_is_returned_best_first() -> None:
    found = select_detections(BOXES, SCORES, options())
    assert found.scores.tolist() == pytest.approx([0.9, 0.8, 0.6, 0.5, 0.4])
    assert found.labels.tolist() == [0, 0, 1, 0, 1]


def test_a_score_at_the_threshold_is_dropped() -> None:
    assert len(select_detections(BOXES[:1], SCORES[:1], options(thresholds=SCORES[0]))) == 0


def test_a_class_may_have_its_own_threshold() -> None:
    found = select_detections(BOXES, SCORES, options(thresholds=np.array([0.95, 0.1])))
    assert found.labels.tolist() == [1, 1, 1]


def test_other_classes_are_filtered() -> None:
    assert set(select_detections(BOXES, SCORES, options(classes=frozenset({1}))).labels) == {1}


def test_of_two_boxes_of_one_class_the_better_stays() -> None:
    found = select_detections(BOXES, SCORES, options(nms_iou=0.5))
    assert [(int(label), box[0]) for label, box in zip(found.labels, found.boxes, strict=True)] == [
        (0, 0.0),
        (1, 50.0),
        (0, 50.0),
        (1, 1.0),
    ]


def test_the_list_has_a_largest_length() -> None:
    assert select_detections(BOXES, SCORES, options(max_detections=2)).scores.tolist() == pytest.approx([0.9, 0.8])


def test_nothing_gives_nothing() -> None:
    empty = select_detections(np.zeros((0, 4), np.float32), np.zeros((0, 2), np.float32), options(nms_iou=0.5))
    assert (empty.boxes.shape, empty.scores.shape, empty.labels.shape) == ((0, 4), (0,), (0,))


def test_boxes_without_area_overlap_nothing() -> None:
    empty = np.zeros((2, 4), dtype=np.float32)
    assert pairwise_iou(empty, empty).tolist() == [[0, 0], [0, 0]]


def greedy(boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, max_iou: float) -> list[int]:
    """The textbook loop."""
    overlap = pairwise_iou(boxes, boxes)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if all(labels[index] != labels[other] or overlap[other, index] <= max_iou for other in kept):
            kept.append(int(index))
    return kept


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(0, 60), max_iou=st.sampled_from([0.1, 0.5, 0.8]))
def test_suppression_equals_the_greedy_loop(seed: int, count: int, max_iou: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 20, (count, 2))
    boxes = np.concatenate([corners, corners + random.uniform(1, 15, (count, 2))], axis=1).astype(np.float32)
    labels = random.integers(0, 2, count)
    scores = np.zeros((count, 2), dtype=np.float32)
    scores[np.arange(count), labels] = random.uniform(0.4, 1, count)
    best = scores[np.arange(count), labels]
    expected = boxes[greedy(boxes, best, labels, max_iou)]
    assert np.array_equal(select_detections(boxes, scores, options(nms_iou=max_iou)).boxes, expected)
