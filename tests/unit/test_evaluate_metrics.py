"""The figures: COCO's, precision and recall, the best threshold, confusion, the count."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from training.evaluation.matches import Detections, Truth, Verdicts, confusion_matrix, match
from training.evaluation.metrics import coco_metrics

CLASSES = ("ship", "tank", "court")


def truth(boxes: list[list[float]], labels: list[int] | None = None) -> Truth:
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Truth(array, np.array(labels or [0] * len(boxes), dtype=np.int64))


def found(of: Truth, score: float = 0.9) -> Detections:
    """Detections exactly on the ground truth."""
    return Detections(of.boxes.copy(), np.full(len(of.labels), score, dtype=np.float32), of.labels.copy())


NOTHING = found(truth([]))
SCENE = [truth([[0, 0, 5, 6], [20, 20, 32, 32]], [0, 1]), truth([[10, 10, 90, 110]]), truth([])]


def test_perfect_detections_score_one() -> None:
    metrics = coco_metrics(SCENE, [found(t) for t in SCENE], CLASSES, counts=[2, 1, 0])
    assert (metrics.images, metrics.boxes) == (3, 3)
    assert [metrics.ap, metrics.ap50, metrics.ap75, metrics.ar] == pytest.approx([1] * 4)
    assert (metrics.precision, metrics.recall) == (1, 1)
    assert metrics.count_mae == 0
    assert metrics.count_correlation == pytest.approx(1)


def test_no_detections_score_zero() -> None:
    metrics = coco_metrics(SCENE, [NOTHING] * 3, CLASSES)
    assert [metrics.ap, metrics.ap50, metrics.ap75, metrics.ar, metrics.precision, metrics.recall] == [0] * 6
    assert metrics.count_mae is None


def test_sizes_and_classes_without_ground_truth_have_no_score() -> None:
    metrics = coco_metrics(SCENE, [found(SCENE[0]), NOTHING, NOTHING], CLASSES)
    assert list(metrics.ap_by_size.values()) == pytest.approx([1, 1, None, None, 0])
    found_ap = {name: row.ap for name, row in metrics.by_class.items()}
    assert found_ap == {"ship": pytest.approx(0.505, abs=0.01), "tank": 1, "court": None}


@pytest.mark.parametrize(
    ("side", "name"), [(7.9, "very tiny"), (8.5, "tiny"), (31, "small"), (63, "medium"), (65, "large")]
)
def test_a_box_counts_in_the_size_of_the_root_of_its_area(side: float, name: str) -> None:
    scene = [truth([[10, 10, 10 + side * 2, 10 + side / 2]])]
    scored = coco_metrics(scene, [found(scene[0])], CLASSES).ap_by_size
    assert [size.split(" (")[0] for size, value in scored.items() if value is not None] == [name]


def test_a_box_off_by_a_third_counts_at_half_overlap_only() -> None:
    scene = [truth([[0, 0, 40, 40]])]
    shifted = Detections(
        scene[0].boxes + np.array([8, 0, 8, 0], np.float32), np.array([0.9], np.float32), np.array([0])
    )
    metrics = coco_metrics(scene, [shifted], CLASSES)
    assert (metrics.ap50, metrics.ap75) == (pytest.approx(1), 0)


def test_a_detection_of_the_wrong_class_is_wrong() -> None:
    scene = [truth([[0, 0, 40, 40]])]
    wrong = Detections(scene[0].boxes, np.array([0.9], np.float32), np.array([1]))
    metrics = coco_metrics(scene, [wrong], CLASSES)
    assert (metrics.ap, metrics.precision, metrics.recall) == (0, 0, 0)


def test_precision_and_recall_count_only_detections_above_the_threshold_and_each_box_once() -> None:
    scene = [truth([[0, 0, 40, 40], [50, 50, 90, 90]])]
    boxes = np.array([[0, 0, 40, 40], [0, 0, 40, 39], [50, 50, 90, 90]], dtype=np.float32)
    told = Detections(boxes, np.array([0.9, 0.8, 0.2], np.float32), np.zeros(3, np.int64))
    metrics = coco_metrics(scene, [told], CLASSES, operating_threshold=0.3)
    assert (metrics.precision, metrics.recall) == (0.5, 0.5)


def test_more_than_a_hundred_detections_count() -> None:
    boxes = [[float(x), float(y), x + 6.0, y + 6.0] for x in range(0, 160, 10) for y in range(0, 160, 10)]
    scene = [truth(boxes)]
    metrics = coco_metrics(scene, [found(scene[0])], CLASSES)
    assert metrics.ar == pytest.approx(1)


def test_the_count_error_is_told() -> None:
    metrics = coco_metrics(SCENE, [NOTHING] * 3, CLASSES, counts=[4, 2, 0])
    assert metrics.count_mae == pytest.approx(1)
    assert metrics.count_relative_mae == pytest.approx(3 / 3)
    assert metrics.count_correlation == pytest.approx(1)


def test_a_constant_count_has_no_correlation() -> None:
    assert coco_metrics(SCENE, [NOTHING] * 3, CLASSES, counts=[2, 2, 2]).count_correlation is None


def test_no_ground_truth_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no box in 1 pictures"):
        coco_metrics([truth([])], [NOTHING], CLASSES)


def test_unequal_numbers_of_pictures_are_an_error() -> None:
    with pytest.raises(ValueError, match="3 pictures have ground truth, 1 have detections"):
        coco_metrics(SCENE, [NOTHING], CLASSES)


def test_the_table_shows_a_dash_where_there_is_nothing_to_measure() -> None:
    table = coco_metrics(SCENE, [found(t) for t in SCENE], CLASSES).table()
    assert "| AP50 | 1.000 |" in table
    assert "| AP small (16-32) | - |" in table
    assert "| court | 0 | - | - | - | - |" in table


def test_metrics_are_valid_json() -> None:
    metrics = coco_metrics(SCENE, [found(t) for t in SCENE], CLASSES)
    assert json.loads(metrics.to_json()) == asdict(metrics)


def test_each_class_has_its_own_precision_and_recall() -> None:
    scene = [truth([[0, 0, 40, 40], [50, 50, 90, 90]], [0, 1])]
    boxes = np.array([[0, 0, 40, 40], [200, 0, 240, 40], [50, 50, 90, 90]], np.float32)
    told = Detections(boxes, np.array([0.9, 0.8, 0.2], np.float32), np.array([0, 0, 1]))
    rows = coco_metrics(scene, [told], CLASSES, operating_threshold=0.3).by_class
    assert [(rows[name].precision, rows[name].recall) for name in CLASSES] == [(0.5, 1), (None, 0), (None, None)]


def test_the_area_under_the_curve_of_a_class_is_its_ap50() -> None:
    rng = np.random.default_rng(0)
    scene = [truth([[x, 0, x + 20, 20] for x in range(0, 400, 25)])]
    shaken = scene[0].boxes + rng.normal(0, 4, scene[0].boxes.shape).astype(np.float32)
    told = Detections(shaken, rng.random(len(shaken), np.float32), scene[0].labels)
    row = coco_metrics(scene, [told], CLASSES).by_class["ship"]
    assert row.curve is not None
    assert 0.2 < np.mean(row.curve) < 0.99
    assert np.mean(row.curve) == pytest.approx(row.ap50)


def test_the_best_detection_of_a_box_chooses_first_and_the_next_takes_what_is_left() -> None:
    scene = truth([[0, 0, 40, 40], [0, 10, 40, 50]])
    boxes = np.array([[0, 1, 40, 41], [0, 0, 40, 40], [0, 0, 40, 40]], np.float32)
    told = Detections(boxes, np.array([0.7, 0.9, 0.8], np.float32), np.zeros(3, np.int64))
    assert match(scene, told).tolist() == [-1, 0, 1]


def verdicts(scores: list[float], right: list[bool], boxes: int) -> Verdicts:
    return Verdicts(np.array(scores), np.zeros(len(scores), np.int64), np.array(right, bool), np.array([boxes]))


def test_the_best_threshold_is_halfway_below_the_last_detection_it_keeps() -> None:
    judged = verdicts([0.9, 0.8, 0.6, 0.5], [True, True, False, False], boxes=2)
    assert judged.best_threshold() == pytest.approx(0.7)
    assert judged.at(judged.best_threshold()) == (1, 1)


def test_the_best_threshold_does_not_split_equal_scores() -> None:
    judged = verdicts([0.5, 0.5, 0.4], [True, False, True], boxes=2)
    assert judged.best_threshold() == pytest.approx(0.2)
    assert judged.at(judged.best_threshold()) == (2 / 3, 1)


def test_no_threshold_has_a_higher_f1_than_the_best_one() -> None:
    rng = np.random.default_rng(3)
    scores = np.sort(rng.integers(1, 40, 200) / 40)[::-1]
    judged = verdicts(scores.tolist(), (rng.random(200) < scores).tolist(), boxes=150)

    def f1(threshold: float) -> float:
        precision, recall = (value or 0.0 for value in judged.at(threshold))
        return 2 * precision * recall / ((precision + recall) or 1)

    best = max(f1(threshold) for threshold in np.linspace(0, 1, 401))
    assert f1(judged.best_threshold()) == pytest.approx(best)


def test_without_detections_the_best_threshold_shows_nothing() -> None:
    metrics = coco_metrics(SCENE, [NOTHING] * 3, CLASSES)
    assert (metrics.best_threshold, metrics.best_f1) == (1, 0)


def test_confusion_has_a_row_for_the_truth_and_a_column_for_the_prediction() -> None:
    scene = [truth([[0, 0, 40, 40], [50, 50, 90, 90], [100, 0, 140, 40]], [0, 0, 1])]
    boxes = np.array([[0, 0, 40, 40], [50, 50, 90, 90], [200, 200, 240, 240], [100, 0, 140, 40]], np.float32)
    told = Detections(boxes, np.array([0.9, 0.8, 0.7, 0.2], np.float32), np.array([0, 2, 1, 1]))
    matrix = confusion_matrix(scene, [told], 3, threshold=0.3)
    assert matrix.tolist() == [[1, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_a_better_detection_of_another_class_does_not_take_a_box_from_the_right_one() -> None:
    scene = [truth([[0, 0, 40, 40]])]
    told = Detections(scene[0].boxes.repeat(2, axis=0), np.array([0.9, 0.8], np.float32), np.array([1, 0]))
    matrix = confusion_matrix(scene, [told], 2, threshold=0.3)
    assert matrix.tolist() == [[1, 0, 0], [0, 0, 0], [0, 1, 0]]


def test_the_diagonal_of_the_confusion_is_what_precision_counts() -> None:
    rng = np.random.default_rng(5)
    scene = [truth([[x, 0, x + 20, 20] for x in range(0, 400, 18)], rng.integers(0, 3, 23).tolist()) for _ in range(4)]
    told = []
    for t in scene:
        shaken = t.boxes + rng.normal(0, 4, t.boxes.shape).astype(np.float32)
        told.append(Detections(shaken, rng.random(23, np.float32), rng.permutation(t.labels)))
    metrics = coco_metrics(scene, told, CLASSES, operating_threshold=0.4)
    matrix = np.array(metrics.confusion)
    assert matrix[:3].sum(axis=1).tolist() == [row.boxes for row in metrics.by_class.values()]
    assert np.trace(matrix) / matrix[:, :3].sum() == pytest.approx(metrics.precision)
    assert np.trace(matrix) / metrics.boxes == pytest.approx(metrics.recall)
