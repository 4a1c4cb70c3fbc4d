"""The Linear-Snake Convolution."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.lsconv import TAPS, LSConv, accumulate, snake_strip


def bilinear(channel: Tensor, row: float, column: float) -> float:
    """Sample (h, w) between its cells; outside it is zero."""
    top, left = math.floor(row), math.floor(column)
    value = 0.0
    for y, x in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= y < channel.shape[0] and 0 <= x < channel.shape[1]:
            value += (1 - abs(row - y)) * (1 - abs(column - x)) * float(channel[y, x])
    return value


def slow_snake(x: Tensor, bends: Tensor, weights: Tensor) -> Tensor:
    """HMPE, section 4, cell by cell and tap by tap: walk from the centre to both ends, adding up the offsets."""
    result, half = torch.zeros_like(x), TAPS // 2
    for b, c, i, j in torch.cartesian_prod(*(torch.arange(n) for n in x.shape)).tolist():
        bend = bends[b, :, i, j].tolist()
        total = float(weights[half, c]) * float(x[b, c, i, j])
        for direction in (-1, 1):
            row = float(i)
            for step in range(1, half + 1):
                row += bend[half - step] if direction < 0 else bend[half + step - 1]
                total += float(weights[half + direction * step, c]) * bilinear(x[b, c], row, j + direction * step)
        result[b, c, i, j] = total
    return result


def test_the_snake_strip_is_what_a_plain_loop_gives() -> None:
    torch.manual_seed(0)
    x, bends, weights = torch.randn(2, 2, 6, 7), torch.rand(2, TAPS - 1, 6, 7) * 2 - 1, torch.randn(TAPS, 2)
    torch.testing.assert_close(snake_strip(x, bends, weights), slow_snake(x, bends, weights), rtol=1e-4, atol=1e-4)


def test_a_snake_that_does_not_bend_is_a_straight_convolution() -> None:
    x, weights = torch.randn(1, 3, 8, 12), torch.randn(TAPS, 3)
    straight = F.conv2d(x, weights.t()[:, None, None, :], padding=(0, TAPS // 2), groups=3)
    torch.testing.assert_close(snake_strip(x, torch.zeros(1, TAPS - 1, 8, 12), weights), straight, rtol=1e-4, atol=1e-5)


def test_offsets_add_up_outwards_from_the_centre() -> None:
    bends = torch.arange(1.0, TAPS).view(1, TAPS - 1, 1, 1)
    assert accumulate(bends).flatten().tolist() == [10, 9, 7, 4, 0, 5, 11, 18, 26]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 1)])
def test_an_lsconv_starts_as_the_identity(size: tuple[int, int], training: bool) -> None:
    x = torch.randn(2, 16, *size)
    assert torch.equal(LSConv(16).train(training)(x), x)


def test_a_new_lsconv_can_learn() -> None:
    layer = LSConv(16)
    layer(torch.randn(2, 16, 8, 8)).square().sum().backward()
    scale = layer.expand[1].weight
    assert isinstance(scale, Tensor)
    assert scale.grad is not None
    assert scale.grad.abs().max() > 0
