"""Each loss against its formula, written out entry by entry."""

import math

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from model.boxes import to_xyxy
from training.losses import (
    count_loss,
    dense_quality_loss,
    density_focal_loss,
    iou_and_giou_loss,
    matchability_aware_loss,
    tiny_l1,
)

LOGITS = torch.tensor([[2.0, -1.0, 0.3], [-3.0, 0.1, 1.0], [0.5, 0.5, -4.0], [8.0, -8.0, 0.0]])
LABELS = torch.tensor([0, -1, 2, 1])
QUALITY = torch.tensor([0.8, 0.7, 0.0, 0.35])
WEIGHT = torch.tensor([1.0, 1.0, 1.0, 0.0])


def cross_entropy(p: float, t: float) -> float:
    return -(t * math.log(p) + (1 - t) * math.log(1 - p))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def boxes(seed: int) -> torch.Tensor:
    return torch.rand(12, 4, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.01


@pytest.mark.parametrize("gamma", [1.5, 2.0])
def test_the_matchability_aware_loss_follows_its_formula(gamma: float) -> None:
    expected = 0.0
    columns = (x.tolist() for x in (LOGITS, LABELS, QUALITY, WEIGHT))
    for row, label, quality, weight in zip(*columns, strict=True):
        for c, logit in enumerate(row):
            p, q = sigmoid(logit), max(quality, 1e-3) ** gamma
            expected += weight * (cross_entropy(p, q) if c == label else -(p**gamma) * math.log(1 - p))
    assert float(matchability_aware_loss(LOGITS, LABELS, QUALITY, WEIGHT, gamma)) == pytest.approx(expected, rel=1e-4)


def test_the_dense_quality_loss_follows_its_formula() -> None:
    expected = 0.0
    for row, label, quality in zip(LOGITS.tolist(), LABELS.tolist(), QUALITY.tolist(), strict=True):
        for c, logit in enumerate(row):
            p = sigmoid(logit)
            if c == label:
                expected += cross_entropy(p, quality) * max(abs(quality - p), 0.1)
            else:
                expected += cross_entropy(p, 0) * 0.75 * p**2
    assert float(dense_quality_loss(LOGITS, LABELS, QUALITY)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", ["matchability", "dense"])
def test_the_gradient_raises_a_positive_and_lowers_the_rest(loss: str) -> None:
    logits = LOGITS[:1].clone().requires_grad_()
    good = torch.tensor([0.99])
    if loss == "dense":
        dense_quality_loss(logits, LABELS[:1], good).backward()
    else:
        matchability_aware_loss(logits, LABELS[:1], good, WEIGHT[:1]).backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] < 0
    assert (logits.grad[0, 1:] > 0).all()


def test_a_query_without_weight_costs_nothing() -> None:
    assert matchability_aware_loss(LOGITS, LABELS, QUALITY, torch.zeros(4)) == 0


def test_the_refined_box_loss_follows_its_formula() -> None:
    for got, a, b in zip(tiny_l1(boxes(0), boxes(1)).tolist(), boxes(0).tolist(), boxes(1).tolist(), strict=True):
        expected = abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(math.log(a[2] / b[2])) + abs(math.log(a[3] / b[3]))
        assert got == pytest.approx(expected, rel=1e-4)


def test_the_refined_box_loss_of_a_box_without_sides_is_finite() -> None:
    flat = torch.tensor([0.5, 0.5, 0.0, 0.0], requires_grad=True)
    loss = tiny_l1(flat, torch.tensor([0.5, 0.5, 0.1, 0.1]))
    loss.backward()
    assert torch.isfinite(loss)
    assert flat.grad is not None
    assert torch.isfinite(flat.grad).all()


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
    density = torch.tensor([[0.1, 0.5, 0.9], [0.2, 0.02, 0.7]])
    target = torch.tensor([[0.0, 0.4, 0.9], [0.25, 0.0, 0.0]])
    expected = 0.0
    for p, t in zip(density.flatten().tolist(), target.flatten().tolist(), strict=True):
        expected += abs(t - p) ** alpha * cross_entropy(p, t) if t > 0 else p**alpha * -math.log(1 - p)
    assert float(density_focal_loss(density, target, alpha)) == pytest.approx(expected, rel=1e-5)


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
