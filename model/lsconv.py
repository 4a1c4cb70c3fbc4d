"""LSConv, the Linear-Snake Convolution (HMPE, section 4): strips of nine taps that bend along thin objects."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.layers import ConvNorm, zero

TAPS = 9


class LSConv(nn.Module):
    """A straight and a bending strip, along x and along y, mixed by learned weights and added to the input.

    The fast form: channels are reduced to a narrow bottleneck, the strips work at half resolution, and each tap
    weighs its channel on its own (depthwise). Starts as the identity. Relative: Dynamic Snake Convolution
    (Qi et al., ICCV 2023).
    """

    def __init__(self, channels: int, bottleneck: int = 32) -> None:
        super().__init__()
        self.reduce = ConvNorm(channels, bottleneck, 3, stride=2)
        self.to_bends = nn.Conv2d(bottleneck, 2 * (TAPS - 1), 3, padding=1)
        self.snake_x = nn.Parameter(torch.randn(TAPS, bottleneck) / TAPS)
        self.snake_y = nn.Parameter(torch.randn(TAPS, bottleneck) / TAPS)
        self.linear_x = depthwise(bottleneck, (1, TAPS))
        self.linear_y = depthwise(bottleneck, (TAPS, 1))
        self.mix = nn.Parameter(torch.zeros(2))
        self.expand = ConvNorm(bottleneck, channels, activate=False, starts_at_zero=True)
        zero(self.to_bends)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        narrow = self.reduce(x)
        bends_x, bends_y = torch.tanh(self.to_bends(narrow)).chunk(2, 1)  # (B, TAPS - 1, h / 2, w / 2) each
        snake = snake_strip(narrow, bends_x, self.snake_x) + snake_strip(
            narrow.transpose(2, 3), bends_y.transpose(2, 3), self.snake_y
        ).transpose(2, 3)
        linear = self.linear_x(narrow) + self.linear_y(narrow)
        snake_share, linear_share = self.mix.softmax(0)
        strips = self.expand(narrow + 2 * (snake_share * snake + linear_share * linear))
        return x + F.interpolate(strips, size=x.shape[-2:], mode="nearest")


def depthwise(channels: int, kernel: tuple[int, int]) -> nn.Conv2d:
    """A strip of taps per channel that keeps the size, with zeros outside the map."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(channels, channels, kernel, padding=padding, groups=channels, bias=False)


def accumulate(bends: Tensor) -> Tensor:
    """Sum offsets outwards from the centre tap, so that the path stays connected.

    Args:
        bends: (B, TAPS - 1, h, w), offset of each tap against its inner neighbour, first half before the centre.
    Returns:
        (B, TAPS, h, w), offset of each tap against the centre, whose own is zero.
    """
    before, after = bends.chunk(2, 1)
    before = before.flip(1).cumsum(1).flip(1)
    return torch.cat([before, torch.zeros_like(bends[:, :1]), after.cumsum(1)], 1)


def snake_strip(x: Tensor, bends: Tensor, weights: Tensor) -> Tensor:
    """Weigh bilinear samples along a path that runs in x and bends in y; outside the map is zero.

    Args:
        x: (B, C, h, w).
        bends: (B, TAPS - 1, h, w), in cells, see `accumulate`.
        weights: (TAPS, C).
    Returns:
        (B, C, h, w): sum over taps t of weights[t] * x[row + offset_t, column + t - TAPS // 2].
    """
    h, w = x.shape[-2:]
    offsets = accumulate(bends.float()).permute(0, 2, 3, 1)  # (B, h, w, TAPS)
    taps = torch.arange(TAPS, device=x.device, dtype=torch.float32) - TAPS // 2
    columns = torch.arange(w, device=x.device, dtype=torch.float32)[:, None] + taps  # (w, TAPS)
    rows = torch.arange(h, device=x.device, dtype=torch.float32)[:, None, None] + offsets  # (B, h, w, TAPS)
    grid = torch.stack([((columns + 0.5) * (2 / w) - 1).expand_as(rows), (rows + 0.5) * (2 / h) - 1], -1)
    grid = grid.flatten(2, 3)  # (B, h, w * TAPS, 2)
    samples = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return (samples.unflatten(-1, (w, TAPS)) * weights.t()[None, :, None, None, :].float()).sum(-1).to(x.dtype)
