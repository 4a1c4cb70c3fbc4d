"""HMPE's heat maps: the closed form against automatic differentiation, and what the maps promise."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import HeatConfig
from model.heat import HeatEmbedding, box_activation, class_activation, normalised, residual_heat


def derivatives(y: Tensor, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First, second and third derivative of each cell's y by each single activation (B, D, h, w), by autograd."""
    zero = torch.zeros_like(level)
    (first,) = torch.autograd.grad(y.sum(), level, create_graph=True)
    second, third = zero.clone(), zero.clone()
    for k in range(level.shape[1]):
        (by_k,) = torch.autograd.grad(first[:, k].sum(), level, create_graph=True)
        second[:, k] = by_k[:, k].detach()
        if by_k.requires_grad:
            (again,) = torch.autograd.grad(by_k[:, k].sum(), level, retain_graph=True, allow_unused=True)
            third[:, k] = zero[:, k] if again is None else again[:, k]
    return first.detach(), second, third


def paper_heat(y: Tensor, level: Tensor) -> Tensor:
    """Formulas 1 to 3 of HMPE, literally; y (B, h, w) to (B, h, w)."""
    first, second, third = derivatives(y, level)
    alpha = second + third
    beta = (alpha * first.relu()).sum((2, 3))  # (B, D)
    return (beta[:, :, None, None] * level.detach()).sum(1).relu()


def random_level(seed: int) -> Tensor:
    return torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("bias", [-4.6, 0.0, 2.0])
def test_the_closed_form_class_map_is_what_autograd_gives(bias: float) -> None:
    level, weight = random_level(0), torch.randn(3, 5, dtype=torch.float64)
    logits = torch.einsum("cd,bdhw->bchw", weight, level) + bias
    expected = torch.stack([paper_heat(logits[:, c].sigmoid(), level) for c in range(3)], 1)
    assert expected.max() > 0
    heat = class_activation(level.detach(), weight, logits.detach())
    torch.testing.assert_close(heat, expected, rtol=1e-10, atol=1e-14)


def test_the_closed_form_box_map_is_what_autograd_gives() -> None:
    level, weight = random_level(1), torch.randn(4, 5, dtype=torch.float64)
    deltas = torch.einsum("md,bdhw->bmhw", weight, level)
    huber = torch.where(deltas.abs() < 1, 0.5 * deltas**2, deltas.abs() - 0.5)
    expected = paper_heat(huber.sum(1), level)[:, None]
    assert expected.max() > 0
    heat = box_activation(level.detach(), weight, deltas.detach())
    torch.testing.assert_close(heat, expected, rtol=1e-10, atol=1e-14)


def test_a_map_is_normalised_by_its_own_maximum() -> None:
    heat = torch.rand(2, 3, 4, 5)
    scaled = normalised(heat * torch.tensor([1.0, 10.0])[:, None, None, None])
    torch.testing.assert_close(scaled, heat / heat.amax((2, 3), keepdim=True))


def test_a_map_without_heat_stays_zero() -> None:
    assert normalised(torch.zeros(1, 2, 3, 3)).abs().max() == 0


def test_the_box_heat_is_one_minus_the_exponential_of_the_mean_huber_loss() -> None:
    deltas = torch.randn(2, 4, 3, 3) * 2
    huber = F.huber_loss(deltas, torch.zeros_like(deltas), reduction="none")
    torch.testing.assert_close(residual_heat(deltas), 1 - torch.exp(-huber.mean(1, keepdim=True)))


@pytest.mark.parametrize("source", ["probability", "cam"])
def test_heat_is_between_zero_and_one(source: str) -> None:
    heat, _ = HeatEmbedding(HeatConfig.model_validate({"source": source}), 8, 3)(5 * torch.randn(2, 8, 6, 7))
    assert heat.maps().shape == (2, 4, 6, 7)
    for tensor in (heat.maps(), heat.by_class):
        assert tensor.min() >= 0
        assert tensor.max() <= 1


def test_class_heat_is_the_probability_of_any_class() -> None:
    heat, _ = HeatEmbedding(HeatConfig(), 8, 3)(5 * torch.randn(1, 8, 4, 4))
    torch.testing.assert_close(heat.by_class, heat.logits.sigmoid())
    torch.testing.assert_close(heat.of_class, heat.by_class.sum(1, keepdim=True).clamp(max=1))


def test_mixed_heat_is_half_class_half_box_at_the_start() -> None:
    heat, _ = HeatEmbedding(HeatConfig(), 8, 3)(torch.randn(1, 8, 4, 4))
    torch.testing.assert_close(heat.mixed, (heat.of_class + heat.of_box) / 2)


def test_a_hard_mask_is_one_exactly_where_the_heat_is_above_tau() -> None:
    embedding = HeatEmbedding(HeatConfig(mask="hard", tau=0.1), 8, 3).eval()
    heat, _ = embedding(8 * torch.randn(1, 8, 8, 8))
    assert 0 < heat.mask.mean() < 1
    assert torch.equal(heat.mask, (heat.mixed > 0.1).float())


def test_a_hard_mask_has_the_gradient_of_the_soft_one_in_training() -> None:
    gradients, masks = [], []
    for mask in ("hard", "soft"):
        torch.manual_seed(0)
        embedding = HeatEmbedding(HeatConfig.model_validate({"mask": mask}), 8, 3).train()
        heat, _ = embedding(8 * torch.randn(1, 8, 8, 8))
        heat.mask.sum().backward()
        gradients.append(embedding.balance.grad)
        masks.append(heat.mask.detach())
    torch.testing.assert_close(gradients[0], gradients[1])
    torch.testing.assert_close(masks[0], masks[0].round())
    assert not torch.equal(masks[0], masks[1])


@pytest.mark.parametrize("source", ["probability", "cam"])
def test_heat_maps_send_no_gradient_into_the_level_or_the_head(source: str) -> None:
    embedding = HeatEmbedding(HeatConfig.model_validate({"source": source}), 8, 3)
    heat, _ = embedding(torch.randn(1, 8, 4, 4).requires_grad_())
    assert not heat.of_class.requires_grad
    assert not heat.of_box.requires_grad
    assert heat.logits.requires_grad
