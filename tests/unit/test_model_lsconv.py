"""The Linear-Snake Convolution."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import LSConvConfig
from model.lsconv import TAPS, LSConv, accumulate, snake_paths, snake_strip

FORMS: list[dict[str, Any]] = [
    {"paths": paths, "resolution": resolution}
    for paths in ("both", "snake", "linear")
    for resolution in ("half", "full")
]


def make(form: dict[str, Any], channels: int = 6) -> LSConv:
    """A layer in double precision and evaluation mode; nothing in it is zero, as if it had been trained."""
    torch.manual_seed(0)
    layer = LSConv(channels, LSConvConfig.model_validate({"bottleneck": 3} | form)).double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.eval()


def bilinear(channel: Tensor, row: float, column: float) -> float:
    """Sample (h, w) between its cells; outside it is zero."""
    top, left = math.floor(row), math.floor(column)
    value = 0.0
    for y, x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= y < channel.shape[0] and 0 <= x < channel.shape[1]:
            value += (1 - abs(row - y)) * (1 - abs(column - x)) * float(channel[y, x])
    return value


def walk(bend: list[float]) -> list[float]:
    """How far aside each tap lies: from the centre to both ends, adding up the offsets."""
    aside, half = [0.0] * TAPS, TAPS // 2
    for step in range(1, half + 1):
        aside[half + step] = aside[half + step - 1] + bend[half + step - 1]
        aside[half - step] = aside[half - step + 1] + bend[half - step]
    return aside


def slow_snake(x: Tensor, bends: Tensor, weights: Tensor) -> Tensor:
    """HMPE, section 4, cell by cell and tap by tap."""
    result, half = torch.zeros_like(x), TAPS // 2
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        for tap, aside in enumerate(walk(bends[b, :, i, j].tolist())):
            result[b, c, i, j] += weights[tap, c] * bilinear(x[b, c], i + aside, j + tap - half)
    return result


def slow_linear(x: Tensor, weights: Tensor) -> Tensor:
    """A strip along x, (TAPS, C) weights, cell by cell and tap by tap."""
    return slow_snake(x, x.new_zeros(x.shape[0], TAPS - 1, *x.shape[2:]), weights)


def turned(x: Tensor) -> Tensor:
    return x.transpose(2, 3)


def slow_lsconv(layer: LSConv, x: Tensor) -> Tensor:
    """The whole layer, with every strip as a loop."""
    narrow, paths = layer.reduce(x), []
    if layer.to_bends is not None and layer.snake_x is not None and layer.snake_y is not None:
        bends_x, bends_y = layer.to_bends(narrow).tanh().split(TAPS - 1, 1)
        along_y = turned(slow_snake(turned(narrow), turned(bends_y), layer.snake_y))
        paths.append(slow_snake(narrow, bends_x, layer.snake_x) + along_y)
    if layer.linear_x is not None and layer.linear_y is not None:
        weights_x, weights_y = (line.weight.flatten(1).t() for line in (layer.linear_x, layer.linear_y))
        paths.append(slow_linear(narrow, weights_x) + turned(slow_linear(turned(narrow), weights_y)))
    if layer.mix is None:
        (mixture,) = paths
    else:
        snake, linear = layer.mix.exp().tolist()
        mixture = 2 * (snake * paths[0] + linear * paths[1]) / (snake + linear)
    strips = layer.expand(narrow + mixture)
    return x + torch.stack(
        [strips[..., i // layer.stride, j // layer.stride] for i in range(x.shape[2]) for j in range(x.shape[3])], -1
    ).view_as(x)


@torch.no_grad()
def test_the_snake_strip_is_what_a_plain_loop_gives() -> None:
    torch.manual_seed(0)
    x, bends = torch.randn(2, 2, 6, 7).double(), torch.rand(2, TAPS - 1, 6, 7).double() * 2 - 1
    weights = torch.randn(TAPS, 2).double()
    torch.testing.assert_close(snake_strip(x, bends, weights), slow_snake(x, bends, weights), rtol=0, atol=1e-10)


@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_every_form_is_what_plain_loops_give(form: dict[str, Any]) -> None:
    layer, x = make(form), torch.randn(2, 6, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(layer(x), slow_lsconv(layer, x), rtol=0, atol=1e-8)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_parameter_of_every_form_learns(form: dict[str, Any]) -> None:
    layer = make(form).train()
    layer(torch.randn(2, 6, 5, 8, dtype=torch.float64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in layer.parameters())


@pytest.mark.parametrize(("paths", "missing"), [("snake", ("linear", "mix")), ("linear", ("snake", "bends", "mix"))])
def test_a_strip_that_is_off_has_no_parameters(paths: str, missing: tuple[str, ...]) -> None:
    names = [name for name, _ in make({"paths": paths}).named_parameters()]
    assert not [name for name in names if any(part in name for part in missing)]


def test_a_layer_without_paths_is_refused() -> None:
    with pytest.raises(ValueError, match="leave it out"):
        make({"paths": "off"})


@pytest.mark.parametrize("resolution", ["half", "full"])
@torch.no_grad()
def test_the_drawn_paths_are_those_that_the_strips_take(resolution: str) -> None:
    layer, level = make({"resolution": resolution}), torch.randn(1, 6, 10, 14, dtype=torch.float64)
    assert layer.to_bends is not None
    bends_x, bends_y = layer.to_bends(layer.reduce(level)).tanh().split(TAPS - 1, 1)
    row, column, stride, ahead = 5, 8, layer.stride, [tap - TAPS // 2 for tap in range(TAPS)]
    i, j = row // stride, column // stride
    aside_x, aside_y = (walk(bends[0, :, i, j].tolist()) for bends in (bends_x, bends_y))
    along_x, along_y = snake_paths(layer, level, row, column)
    expected_x = [[(j + a) * stride, (i + b) * stride] for a, b in zip(ahead, aside_x, strict=True)]
    expected_y = [[(j + b) * stride, (i + a) * stride] for a, b in zip(ahead, aside_y, strict=True)]
    torch.testing.assert_close(along_x, torch.tensor(expected_x), rtol=0, atol=1e-5)
    torch.testing.assert_close(along_y, torch.tensor(expected_y), rtol=0, atol=1e-5)


def test_a_new_lsconv_looks_straight_along_its_row_and_column() -> None:
    layer = LSConv(6, LSConvConfig(resolution="full")).eval()
    along_x, along_y = snake_paths(layer, torch.randn(1, 6, 12, 16), 7, 5)
    assert along_x.tolist() == [[5 + step, 7] for step in range(-4, 5)]
    assert along_y.tolist() == [[5, 7 + step] for step in range(-4, 5)]


def test_a_layer_that_does_not_bend_has_no_paths_to_draw() -> None:
    assert snake_paths(make({"paths": "linear"}), torch.zeros(1, 6, 4, 4).double(), 0, 0) == []


@pytest.mark.parametrize(("row", "column"), [(4, 0), (0, 6), (-1, 0)])
def test_paths_of_a_cell_outside_the_level_are_refused(row: int, column: int) -> None:
    with pytest.raises(ValueError, match=rf"4 x 6 cells has no cell at row {row}, column {column}"):
        snake_paths(make({}), torch.zeros(1, 6, 4, 6).double(), row, column)


def test_a_snake_that_does_not_bend_is_a_straight_convolution() -> None:
    x, weights = torch.randn(1, 3, 8, 12), torch.randn(TAPS, 3)
    straight = F.conv2d(x, weights.t()[:, None, None, :], padding=(0, TAPS // 2), groups=3)
    torch.testing.assert_close(snake_strip(x, torch.zeros(1, TAPS - 1, 8, 12), weights), straight, rtol=1e-4, atol=1e-5)


def test_offsets_add_up_outwards_from_the_centre() -> None:
    bends = torch.arange(1.0, TAPS).view(1, TAPS - 1, 1, 1)
    assert accumulate(bends).flatten().tolist() == [10, 9, 7, 4, 0, 5, 11, 18, 26]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_lsconv_starts_as_the_identity(form: dict[str, Any], size: tuple[int, int], training: bool) -> None:
    x = torch.randn(2, 16, *size)
    assert torch.equal(LSConv(16, LSConvConfig.model_validate(form)).train(training)(x), x)


def test_a_new_lsconv_can_learn() -> None:
    layer = LSConv(16, LSConvConfig())
    layer(torch.randn(2, 16, 8, 8)).square().sum().backward()
    scale = layer.expand[1].weight
    assert isinstance(scale, Tensor)
    assert scale.grad is not None
    assert scale.grad.abs().max() > 0
