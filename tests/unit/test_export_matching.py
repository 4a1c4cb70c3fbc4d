"""Detections of two runtimes are paired fairly."""

import numpy as np
import pytest

from export.matching import Detections, above, match


def detections(*rows: tuple[float, float, int]) -> Detections:
    """(x, score, label) each; boxes of 10 px."""
    boxes = np.array([[x, 0, x + 10, 10] for x, _, _ in rows], dtype=np.float32).reshape(-1, 4)
    scores = np.array([score for _, score, _ in rows], dtype=np.float32)
    return Detections(boxes, scores, np.array([label for _, _, label in rows], dtype=np.int64))


def compare(first: Detections, second: Detections) -> tuple[int, int]:
    result = match(first, second, threshold=0.3, max_box_px=0.5, max_score=1e-3)
    return result.matched, result.unmatched


def test_order_does_not_matter() -> None:
    assert compare(detections((0, 0.9, 0), (50, 0.8, 1)), detections((50, 0.8, 1), (0, 0.9, 0))) == (2, 0)


def test_the_largest_differences_are_told() -> None:
    result = match(detections((0, 0.9, 0), (50, 0.8, 1)), detections((0.25, 0.9, 0), (50, 0.8005, 1)), 0.3, 0.5, 1e-3)
    assert result.max_box_px == pytest.approx(0.25)
    assert result.max_score == pytest.approx(5e-4, rel=1e-3)


def test_a_box_too_far_away_has_no_partner() -> None:
    assert compare(detections((0, 0.9, 0)), detections((0.6, 0.9, 0))) == (0, 2)


def test_another_score_has_no_partner() -> None:
    assert compare(detections((0, 0.9, 0)), detections((0, 0.902, 0))) == (0, 2)


def test_another_label_has_no_partner() -> None:
    assert compare(detections((0, 0.9, 0)), detections((0, 0.9, 1))) == (0, 2)


def test_a_detection_is_partner_only_once() -> None:
    assert compare(detections((0, 0.9, 0), (0.1, 0.9, 0)), detections((0, 0.9, 0))) == (1, 1)


def test_the_best_pair_goes_first() -> None:
    result = match(detections((0.3, 0.9, 0), (0, 0.9, 0)), detections((0, 0.9, 0), (0.3, 0.9, 0)), 0.3, 0.5, 1e-3)
    assert result.max_box_px == pytest.approx(0)


def test_a_score_may_fall_just_below_the_threshold_on_one_side() -> None:
    assert compare(detections((0, 0.3004, 0)), detections((0, 0.2998, 0))) == (1, 0)


def test_what_is_below_the_threshold_on_both_sides_needs_no_partner() -> None:
    assert compare(detections((0, 0.2995, 0)), detections()) == (0, 0)


def test_nothing_agrees_with_nothing() -> None:
    assert compare(detections(), detections()) == (0, 0)


def test_a_box_that_is_no_number_has_no_partner() -> None:
    assert compare(detections((np.nan, 0.9, 0)), detections((np.nan, 0.9, 0))) == (0, 2)


def test_every_class_above_the_threshold_is_a_detection() -> None:
    boxes = np.zeros((2, 4), dtype=np.float32)
    scores = np.array([[0.9, 0.5], [0.2, 0.1]], dtype=np.float32)
    assert above(boxes, scores, 0.3).labels.tolist() == [0, 1]
    assert above(boxes, scores, 0.3, best_class_only=True).labels.tolist() == [0]
    assert above(boxes, scores, 0.3).count_above(0.6) == 1
