"""HMPE's heat maps: the closed form against automatic differentiation, and what the maps promise."""

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from model.config import HeatConfig
from model.heat import (
    HeatEmbedding,
    box_activation,
    class_activation,
    deviation_heat,
    hottest_share,
    normalised,
    residual_heat,
)

READINGS: list[dict[str, Any]] = [
    {"source": source, "box": box}
    for source in ("probability", "cam")
    for box in ("residual", "deviation", "cam", "off")
]


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


def lower_median(values: list[float]) -> float:
    return sorted(values)[(len(values) - 1) // 2]


def slow_deviation(deltas: Tensor) -> Tensor:
    """Picture by picture, coordinate by coordinate: three robust standard deviations from the median count as 1."""
    batch, coordinates, h, w = deltas.shape
    loss = torch.zeros(batch, h * w, dtype=deltas.dtype)
    for b, m in torch.cartesian_prod(torch.arange(batch), torch.arange(coordinates)).tolist():
        values = deltas[b, m].flatten().tolist()
        middle = lower_median(values)
        sigma = max(1.4826 * lower_median([abs(value - middle) for value in values]), 0.01)
        for i, value in enumerate(values):
            z = abs(value - middle) / (3 * sigma)
            loss[b, i] += (0.5 * z * z if z < 1 else z - 0.5) / coordinates
    return (1 - torch.exp(-loss)).view(batch, 1, h, w)


@pytest.mark.parametrize(("spread", "size"), [(1.0, (5, 7)), (1.0, (4, 6)), (1e-4, (3, 4)), (1.0, (1, 1))])
def test_the_deviation_heat_is_what_a_plain_loop_gives(spread: float, size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(2)
    deltas = 0.7 + spread * torch.randn(2, 4, *size, generator=generator, dtype=torch.float64) ** 3
    torch.testing.assert_close(deviation_heat(deltas), slow_deviation(deltas), rtol=0, atol=1e-12)


def test_a_box_that_the_whole_background_predicts_is_cold_and_another_one_hot() -> None:
    deltas = torch.tensor([0.2, -0.1, 0.8, 0.7])[None, :, None, None] + 0.01 * torch.randn(1, 4, 12, 9)
    deltas[:, :, 5, 4] = 0  # an object of just the anchor's size
    heat = deviation_heat(deltas)
    assert heat[0, 0, 5, 4] > 0.9
    assert heat.median() < 0.15
    assert residual_heat(deltas)[0, 0, 5, 4] == 0


def test_the_deviation_heat_of_a_picture_does_not_depend_on_its_batch() -> None:
    deltas = torch.randn(3, 4, 6, 5) * torch.tensor([0.1, 1.0, 10.0])[:, None, None, None]
    torch.testing.assert_close(deviation_heat(deltas)[1:2], deviation_heat(deltas[1:2]), rtol=0, atol=0)


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_heat_is_between_zero_and_one(reading: dict[str, Any]) -> None:
    heat, _ = HeatEmbedding(HeatConfig.model_validate(reading), 8, 3)(5 * torch.randn(2, 8, 6, 7))
    assert heat.maps().shape == (2, 4, 6, 7)
    for tensor in (heat.maps(), heat.by_class):
        assert tensor.min() >= 0
        assert tensor.max() <= 1


def test_class_heat_is_the_probability_of_any_class() -> None:
    heat, _ = HeatEmbedding(HeatConfig(), 8, 3)(5 * torch.randn(1, 8, 4, 4))
    torch.testing.assert_close(heat.by_class, heat.logits.sigmoid())
    torch.testing.assert_close(heat.of_class, heat.by_class.sum(1, keepdim=True).clamp(max=1))


def test_mixed_heat_is_half_class_half_box_at_the_start_and_follows_its_gate() -> None:
    module, level = HeatEmbedding(HeatConfig(), 8, 3), torch.randn(1, 8, 4, 4)
    heat, _ = module(level)
    torch.testing.assert_close(heat.mixed, (heat.of_class + heat.of_box) / 2)
    nn.init.constant_(module.balance, math.log(0.2 / 0.8))  # lambda of formula 5 is 0.2
    heat, _ = module(level)
    torch.testing.assert_close(heat.mixed, 0.2 * heat.of_class + 0.8 * heat.of_box)


def test_without_box_heat_mixed_heat_is_class_heat_whatever_its_gate() -> None:
    module = HeatEmbedding(HeatConfig(box="off"), 8, 3)
    nn.init.constant_(module.balance, math.log(0.2 / 0.8))
    heat, _ = module(5 * torch.randn(1, 8, 4, 4))
    torch.testing.assert_close(heat.mixed, heat.of_class)


def test_class_heat_and_box_heat_are_read_each_in_its_own_way() -> None:
    level = 5 * torch.randn(1, 8, 4, 6)
    for reading in READINGS:
        torch.manual_seed(0)
        module = HeatEmbedding(HeatConfig.model_validate(reading), 8, 3)
        heat, _ = module(level)
        class_weight, box_weight = (head.weight.flatten(1) for head in (module.classify, module.regress))
        box = {
            "residual": residual_heat(heat.deltas),
            "deviation": deviation_heat(heat.deltas),
            "cam": normalised(box_activation(level, box_weight, heat.deltas)),
            "off": heat.of_class,
        }
        by_class = {
            "probability": heat.logits.sigmoid(),
            "cam": normalised(class_activation(level, class_weight, heat.logits)),
        }
        torch.testing.assert_close(heat.of_box, box[reading["box"]])
        torch.testing.assert_close(heat.by_class, by_class[reading["source"]])


def test_a_soft_mask_is_a_sigmoid_around_tau() -> None:
    heat, _ = HeatEmbedding(HeatConfig(tau=0.3, temperature=0.05), 8, 3)(8 * torch.randn(1, 8, 5, 8))
    expected = [1 / (1 + math.exp((0.3 - value) / 0.05)) for value in heat.mixed.flatten().tolist()]
    assert heat.mask.flatten().tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("tau", "hot"), [(0.25, 8), (0.3, 10), (0.99, 34), (0.01, 0)])  # of 35 cells
def test_a_quantile_mask_is_one_on_the_hottest_share_of_each_picture(tau: float, hot: int) -> None:
    embedding = HeatEmbedding(HeatConfig(mask="quantile", tau=tau), 8, 3).eval()
    level = 8 * torch.randn(2, 8, 5, 7) * torch.tensor([1.0, 0.1])[:, None, None, None]
    heat, _ = embedding(level)
    for mixed, mask in zip(heat.mixed, heat.mask, strict=True):
        hottest = sorted(range(35), key=mixed.flatten().tolist().__getitem__, reverse=True)[:hot]
        assert mask.flatten().tolist() == [float(i in hottest) for i in range(35)]


def test_equal_cells_at_the_quantile_stay_cold() -> None:
    assert not (torch.ones(1, 1, 3, 4) > hottest_share(torch.ones(1, 1, 3, 4), 0.5)).any()


def test_a_hard_mask_is_one_exactly_where_the_heat_is_above_tau() -> None:
    embedding = HeatEmbedding(HeatConfig(mask="hard", tau=0.1), 8, 3).eval()
    heat, _ = embedding(8 * torch.randn(1, 8, 8, 8))
    assert 0 < heat.mask.mean() < 1
    assert torch.equal(heat.mask, (heat.mixed > 0.1).float())


def trained_mask(config: HeatConfig, level: Tensor) -> tuple[Tensor, Tensor]:
    """The mask in training, and the gradient of its sum to lambda."""
    torch.manual_seed(0)
    embedding = HeatEmbedding(config, 8, 3).train()
    heat, _ = embedding(level)
    heat.mask.sum().backward()
    assert embedding.balance.grad is not None
    return heat.mask.detach(), embedding.balance.grad


def test_a_hard_mask_has_the_gradient_of_the_soft_one_in_training() -> None:
    level = 8 * torch.randn(1, 8, 8, 8)
    hard, of_hard = trained_mask(HeatConfig(mask="hard"), level)
    soft, of_soft = trained_mask(HeatConfig(mask="soft"), level)
    torch.testing.assert_close(of_hard, of_soft)
    torch.testing.assert_close(hard, hard.round())
    assert not torch.equal(hard, soft)


def test_a_quantile_mask_has_the_gradient_of_a_soft_one_around_its_threshold_in_training() -> None:
    level = 8 * torch.randn(1, 8, 6, 8)
    mask, gradient = trained_mask(HeatConfig(mask="quantile", tau=0.25), level)
    torch.manual_seed(0)
    embedding = HeatEmbedding(HeatConfig(), 8, 3)
    mixed = embedding(level)[0].mixed.flatten()
    threshold = mixed.sort(descending=True).values[12]
    ((mixed - threshold) / 0.1).sigmoid().sum().backward()
    torch.testing.assert_close(gradient, embedding.balance.grad)
    assert gradient.abs() > 0
    torch.testing.assert_close(mask.sum(), torch.tensor(12.0))


@pytest.mark.parametrize("mask", ["hard", "quantile"])
def test_a_mask_of_zeros_and_ones_is_the_same_in_training_and_inference(mask: str) -> None:
    embedding = HeatEmbedding(HeatConfig.model_validate({"mask": mask, "box": "deviation"}), 8, 3)
    level = 8 * torch.randn(2, 8, 4, 6)
    torch.testing.assert_close(embedding.train()(level)[0].mask, embedding.eval()(level)[0].mask)


def test_a_heat_that_nothing_is_made_of_has_no_embedding() -> None:
    embedding = HeatEmbedding(HeatConfig(), 8, 3, embeds=False)
    assert embedding(torch.randn(1, 8, 4, 4))[1] is None
    assert not [name for name, _ in embedding.named_parameters() if "embed" in name]


@pytest.mark.parametrize("reading", READINGS, ids=str)
def test_heat_maps_send_no_gradient_into_the_level_or_the_head(reading: dict[str, Any]) -> None:
    embedding = HeatEmbedding(HeatConfig.model_validate(reading), 8, 3)
    heat, _ = embedding(torch.randn(1, 8, 4, 4).requires_grad_())
    assert not heat.of_class.requires_grad
    assert not heat.of_box.requires_grad
    assert heat.logits.requires_grad


class Maps(nn.Module):
    """The maps of one level, to be exported."""

    def __init__(self, config: HeatConfig) -> None:
        super().__init__()
        self.embedding = HeatEmbedding(config, 8, 3)

    def forward(self, level: Tensor) -> Tensor:
        return self.embedding(level)[0].maps()


@torch.no_grad()
def test_deviation_heat_and_quantile_mask_are_the_same_in_onnx_whatever_the_size(tmp_path: Path) -> None:
    maps = Maps(HeatConfig(box="deviation", mask="quantile", tau=0.3)).eval()
    maps.embedding.regress.weight.mul_(20)
    shape = {0: Dim("B", min=1), 2: Dim("h", min=1), 3: Dim("w", min=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own making
        program = torch.onnx.export(
            maps, (torch.randn(2, 8, 6, 10),), dynamo=True, dynamic_shapes=(shape,), opset_version=18, verbose=False
        )
    assert program is not None
    program.save(tmp_path / "maps.onnx")
    session = ort.InferenceSession(tmp_path / "maps.onnx", providers=["CPUExecutionProvider"])
    for size in ((1, 8, 5, 8), (3, 8, 12, 7), (1, 8, 1, 1)):
        level = 4 * torch.randn(size)
        (found,) = session.run(None, {"level": level.numpy()})
        np.testing.assert_allclose(np.asarray(found), maps(level).numpy(), rtol=0, atol=1e-5)
