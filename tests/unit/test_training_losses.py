"""Each loss against its formula, written out entry by entry in double precision."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from model.boxes import to_xyxy
from training.losses import (
    ClassificationKind,
    classification_loss,
    count_loss,
    cross_entropy,
    cross_entropy_weight,
    dense_quality_loss,
    density_focal_loss,
    focal_loss,
    iou_and_giou_loss,
    l1,
    matchability_aware_loss,
    tiny_l1,
    varifocal_loss,
)

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 3 * torch.randn(20, 4, generator=GENERATOR, dtype=torch.float64)
LABELS = torch.randint(-1, 3, (20,), generator=GENERATOR)  # the fourth column is the background of a softmax
QUALITY = torch.rand(20, generator=GENERATOR, dtype=torch.float64)
WEIGHT = torch.rand(20, generator=GENERATOR, dtype=torch.float64)
KINDS: list[ClassificationKind] = ["mal", "vfl", "focal", "cross_entropy"]


def binary(p: float, t: float) -> float:
    """Binary cross-entropy."""
    return -(t * math.log(p) + (1 - t) * math.log(1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def sum_over_entries(entry: Callable[[float, bool, float], float]) -> float:
    """Adds entry(p, whether it is the label, quality), weighed per row."""
    columns = (x.tolist() for x in (LOGITS, LABELS, QUALITY, WEIGHT))
    return sum(
        weight * entry(sigmoid(logit), c == label, quality)
        for row, label, quality, weight in zip(*columns, strict=True)
        for c, logit in enumerate(row)
    )


def boxes(seed: int) -> Tensor:
    return torch.rand(12, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 0.5 + 0.01


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_the_matchability_aware_loss_follows_its_formula(gamma: float) -> None:
    def entry(p: float, is_label: bool, q: float) -> float:
        return binary(p, max(q, 1e-3) ** gamma) if is_label else p**gamma * binary(p, 0)

    loss = matchability_aware_loss(LOGITS, LABELS, QUALITY, WEIGHT, gamma)
    assert float(loss) == pytest.approx(sum_over_entries(entry), rel=1e-6)


def test_the_varifocal_loss_follows_its_formula() -> None:
    def entry(p: float, is_label: bool, q: float) -> float:
        return q * binary(p, q) if is_label else 0.75 * p**2 * binary(p, 0)

    assert float(varifocal_loss(LOGITS, LABELS, QUALITY, WEIGHT)) == pytest.approx(sum_over_entries(entry), rel=1e-6)


def test_the_focal_loss_follows_its_formula() -> None:
    def entry(p: float, is_label: bool, _q: float) -> float:
        return -0.25 * (1 - p) ** 2 * math.log(p) if is_label else -0.75 * p**2 * math.log(1 - p)

    assert float(focal_loss(LOGITS, LABELS, WEIGHT)) == pytest.approx(sum_over_entries(entry), rel=1e-6)


def test_the_focal_loss_has_the_gradient_of_torchvisions() -> None:
    ours, theirs = LOGITS.clone().requires_grad_(), LOGITS.clone().requires_grad_()
    focal_loss(ours, LABELS, torch.ones_like(WEIGHT)).backward()
    answers = torch.nn.functional.one_hot(LABELS + 1, 5)[:, 1:].double()
    sigmoid_focal_loss(theirs, answers, reduction="sum").backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_the_cross_entropy_follows_its_formula() -> None:
    expected = 0.0
    for row, label, weight in zip(LOGITS.tolist(), LABELS.tolist(), WEIGHT.tolist(), strict=True):
        answer, balance = (label, 1.0) if label >= 0 else (3, 0.1)
        expected -= weight * balance * math.log(math.exp(row[answer]) / sum(math.exp(x) for x in row))
    assert float(cross_entropy(LOGITS, LABELS, WEIGHT)) == pytest.approx(expected, rel=1e-6)


def test_the_cross_entropy_over_its_weights_is_the_weighted_mean_of_detr() -> None:
    ones, answers = torch.ones_like(WEIGHT), torch.where(LABELS < 0, 3, LABELS)
    balance = torch.tensor([1, 1, 1, 0.1], dtype=torch.float64)
    mean = torch.nn.functional.cross_entropy(LOGITS, answers, balance)
    torch.testing.assert_close(cross_entropy(LOGITS, LABELS, ones) / cross_entropy_weight(LABELS, ones).sum(), mean)


def test_the_dense_quality_loss_follows_its_formula() -> None:
    expected = 0.0
    for row, label, quality in zip(LOGITS.tolist(), LABELS.tolist(), QUALITY.tolist(), strict=True):
        for c, logit in enumerate(row):
            p = sigmoid(logit)
            if c == label:
                expected += binary(p, quality) * max(abs(quality - p), 0.1)
            else:
                expected += binary(p, 0) * 0.75 * p**2
    assert float(dense_quality_loss(LOGITS, LABELS, QUALITY)) == pytest.approx(expected, rel=1e-6)


def assert_raises_the_first_and_lowers_the_rest(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    logits = torch.tensor([[2.0, -1.0, 0.3]], requires_grad=True)
    loss(logits, torch.tensor([0]), torch.tensor([0.99])).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] < 0
    assert (logits.grad[0, 1:] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_raises_a_positive_and_lowers_the_rest(kind: ClassificationKind) -> None:
    assert_raises_the_first_and_lowers_the_rest(
        lambda logits, labels, quality: classification_loss(kind, logits, labels, quality, torch.ones(1))
    )


def test_the_gradient_of_the_dense_head_raises_a_positive_and_lowers_the_rest() -> None:
    assert_raises_the_first_and_lowers_the_rest(dense_quality_loss)


@pytest.mark.parametrize("kind", KINDS)
def test_a_query_without_weight_costs_nothing(kind: ClassificationKind) -> None:
    assert classification_loss(kind, LOGITS, LABELS, QUALITY, torch.zeros_like(WEIGHT)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_classification_is_its_own_loss(kind: ClassificationKind) -> None:
    losses = {
        "mal": matchability_aware_loss(LOGITS, LABELS, QUALITY, WEIGHT),
        "vfl": varifocal_loss(LOGITS, LABELS, QUALITY, WEIGHT),
        "focal": focal_loss(LOGITS, LABELS, WEIGHT),
        "cross_entropy": cross_entropy(LOGITS, LABELS, WEIGHT),
    }
    assert torch.equal(classification_loss(kind, LOGITS, LABELS, QUALITY, WEIGHT), losses[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_no_queries_at_all_cost_nothing(kind: ClassificationKind) -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = classification_loss(kind, logits, torch.zeros(0, dtype=torch.long), torch.zeros(0), torch.zeros(0))
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("kind", KINDS)
def test_logits_far_out_have_a_finite_loss_and_gradient(kind: ClassificationKind) -> None:
    logits = torch.tensor([[1e4, -1e4, 0], [-1e4, 1e4, 0], [1e4, 1e4, 1e4]], requires_grad=True)
    loss = classification_loss(kind, logits, torch.tensor([1, 1, -1]), torch.tensor([0.0, 1, 0]), torch.ones(3))
    loss.backward()
    assert torch.isfinite(loss)
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_the_refined_box_loss_follows_its_formula() -> None:
    for got, a, b in zip(tiny_l1(boxes(0), boxes(1)).tolist(), boxes(0).tolist(), boxes(1).tolist(), strict=True):
        expected = abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(math.log(a[2] / b[2])) + abs(math.log(a[3] / b[3]))
        assert got == pytest.approx(expected, rel=1e-6)


def test_the_plain_box_loss_follows_its_formula() -> None:
    for got, a, b in zip(l1(boxes(0), boxes(1)).tolist(), boxes(0).tolist(), boxes(1).tolist(), strict=True):
        assert got == pytest.approx(sum(abs(x - y) for x, y in zip(a, b, strict=True)), rel=1e-6)


def test_the_refined_box_loss_of_a_box_without_sides_is_finite() -> None:
    flat = torch.tensor([0.5, 0.5, 0.0, 0.0], requires_grad=True)
    loss = tiny_l1(flat, torch.tensor([0.5, 0.5, 0.1, 0.1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


def corners(box: list[float]) -> tuple[float, float, float, float]:
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def test_the_overlaps_follow_their_formulas() -> None:
    first, second = boxes(0), boxes(0)
    second[1:] = boxes(1)[1:]  # the first pair is the same box
    iou, loss = iou_and_giou_loss(first, second)
    for got_iou, got_loss, a, b in zip(iou.tolist(), loss.tolist(), first.tolist(), second.tolist(), strict=True):
        (al, at, ar, ab), (bl, bt, br, bb) = corners(a), corners(b)
        shared = max(0.0, min(ar, br) - max(al, bl)) * max(0.0, min(ab, bb) - max(at, bt))
        union = a[2] * a[3] + b[2] * b[3] - shared
        hull = (max(ar, br) - min(al, bl)) * (max(ab, bb) - min(at, bt))
        assert got_iou == pytest.approx(shared / union, abs=1e-6)
        assert got_loss == pytest.approx(1 - (shared / union - (hull - union) / hull), abs=1e-6)


def test_the_giou_loss_is_that_of_torchvision() -> None:
    _, loss = iou_and_giou_loss(boxes(0), boxes(1))
    expected = generalized_box_iou_loss(to_xyxy(boxes(0)), to_xyxy(boxes(1)))
    torch.testing.assert_close(loss, expected, rtol=0, atol=1e-5)


def test_the_overlap_used_as_a_target_has_no_gradient() -> None:
    iou, loss = iou_and_giou_loss(boxes(0).requires_grad_(), boxes(1))
    assert not iou.requires_grad
    assert loss.requires_grad


@pytest.mark.parametrize("alpha", [2.0, 1.0])
def test_the_density_focal_loss_follows_its_formula(alpha: float) -> None:
    density = torch.rand(5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    target = torch.rand(5, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    target[target < 0.5] = 0
    expected = 0.0
    for p, t in zip(density.flatten().tolist(), target.flatten().tolist(), strict=True):
        expected += abs(t - p) ** alpha * binary(p, t) if t > 0 else p**alpha * -math.log(1 - p)
    assert float(density_focal_loss(density, target, alpha)) == pytest.approx(expected, rel=1e-6)


def test_the_density_focal_loss_takes_the_papers_alpha() -> None:
    density, target = torch.tensor([0.3, 0.6]), torch.tensor([0.0, 0.5])
    assert torch.equal(density_focal_loss(density, target), density_focal_loss(density, target, alpha=2))


def test_the_density_focal_loss_stays_finite_for_a_saturated_map_and_a_crowded_target() -> None:
    density = torch.tensor([0.0, 1.0, 0.0, 1.0], requires_grad=True)
    loss = density_focal_loss(density, torch.tensor([1.7, 1.7, 0.0, 0.0]))
    loss.backward()
    assert torch.isfinite(loss)
    assert density.grad is not None
    assert torch.isfinite(density.grad).all()


def test_the_count_loss_is_relative() -> None:
    count, truth = torch.tensor([3.0, 0.0, 110.0]), torch.tensor([0.0, 0.0, 90.0])
    assert float(count_loss(count, truth)) == pytest.approx(3 / 10 + 0 + 20 / 100)


def test_tiny_l1_pulls_on_a_side_that_has_all_but_vanished() -> None:
    box = torch.tensor([0.5, 0.5, 5e-6, 5e-6], requires_grad=True)
    tiny_l1(box, torch.tensor([0.5, 0.5, 0.01, 0.01])).backward()
    assert box.grad is not None
    assert (box.grad[2:] < 0).all()
