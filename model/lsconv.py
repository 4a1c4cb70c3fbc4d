"""LSConv, the Linear-Snake Convolution (HMPE, section 4): strips of nine taps that bend along thin objects."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import LSConvConfig
from model.layers import ConvNorm, zero

TAPS = 9


class LSConv(nn.Module):
    """A straight and a bending strip, along x and along y, mixed by learned weights and added to the input.

    Channels are reduced to a bottleneck, and each tap weighs its channel on its own (depthwise); at half resolution
    this is the fast form. Starts as the identity. One kind of strip can stand alone: the bending one is the Dynamic
    Snake Convolution (Qi et al., ICCV 2023), the paper's row "DSConv".
    """

    def __init__(self, channels: int, config: LSConvConfig) -> None:
        super().__init__()
        if config.paths == "off":
            raise ValueError("an LSConv without paths is no layer: leave it out")
        narrow, snakes, linears = config.bottleneck, config.paths != "linear", config.paths != "snake"
        self.stride = 2 if config.resolution == "half" else 1
        self.reduce = ConvNorm(channels, narrow, 3, stride=self.stride)
        self.to_bends = nn.Conv2d(narrow, 2 * (TAPS - 1), 3, padding=1) if snakes else None
        self.snake_x = nn.Parameter(torch.randn(TAPS, narrow) / TAPS) if snakes else None
        self.snake_y = nn.Parameter(torch.randn(TAPS, narrow) / TAPS) if snakes else None
        self.linear_x = depthwise(narrow, (1, TAPS)) if linears else None
        self.linear_y = depthwise(narrow, (TAPS, 1)) if linears else None
        self.mix = nn.Parameter(torch.zeros(2)) if snakes and linears else None
        self.expand = ConvNorm(narrow, channels, activate=False, starts_at_zero=True)
        if self.to_bends is not None:
            zero(self.to_bends)

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, h, w) to the same shape."""
        narrow = self.reduce(x)
        paths = [path for path in (self._snake(narrow), self._linear(narrow)) if path is not None]
        shares = [1.0] if self.mix is None else 2 * self.mix.softmax(0)
        strips = self.expand(narrow + sum(share * path for share, path in zip(shares, paths, strict=True)))
        if self.stride > 1:
            strips = F.interpolate(strips, scale_factor=2.0, mode="nearest")[..., : x.shape[2], : x.shape[3]]
        return x + strips

    def bends(self, narrow: Tensor) -> tuple[Tensor, Tensor] | None:
        """Offsets of the strips along x and along y, (B, TAPS - 1, h, w) each in (-1, 1) cells, if they bend."""
        if self.to_bends is None:
            return None
        bends_x, bends_y = torch.tanh(self.to_bends(narrow)).chunk(2, 1)
        return bends_x, bends_y

    def _snake(self, narrow: Tensor) -> Tensor | None:
        bends = self.bends(narrow)
        if bends is None or self.snake_x is None or self.snake_y is None:
            return None
        return snake_strip(narrow, bends[0], self.snake_x) + snake_strip(narrow, bends[1], self.snake_y, upright=True)

    def _linear(self, narrow: Tensor) -> Tensor | None:
        if self.linear_x is None or self.linear_y is None:
            return None
        return self.linear_x(narrow) + self.linear_y(narrow)


@torch.no_grad()
def snake_paths(lsconv: LSConv, level: Tensor, row: int, column: int) -> list[Tensor]:
    """Where the bending strips of one cell look, to be drawn.

    Args:
        lsconv: in evaluation mode.
        level: (1, channels, h, w), what enters it.
        row, column: the cell.
    Returns:
        The strip along x and the strip along y, (TAPS, 2) each: x and y of the taps in cells of the level, whose
        centres lie at whole numbers. At half resolution the paths start at the even cell before. Empty for an LSConv
        that does not bend.
    Raises:
        ValueError: the level has no such cell.
    """
    h, w = level.shape[-2:]
    if not (0 <= row < h and 0 <= column < w):
        raise ValueError(f"a level of {h} x {w} cells has no cell at row {row}, column {column}")
    bends = lsconv.bends(lsconv.reduce(level))
    if bends is None:
        return []
    centre = torch.tensor([column // lsconv.stride, row // lsconv.stride], device=level.device)
    ahead = torch.arange(TAPS, device=level.device) - TAPS // 2
    sideways = [accumulate(b)[0, :, centre[1], centre[0]].float() for b in bends]  # (TAPS,) each
    steps = torch.stack([ahead, sideways[0]], 1), torch.stack([sideways[1], ahead], 1)
    return [(centre + step) * lsconv.stride for step in steps]


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


def snake_strip(x: Tensor, bends: Tensor, weights: Tensor, upright: bool = False) -> Tensor:
    """Weigh bilinear samples along a path that runs in x and bends in y; outside the map is zero.

    Args:
        x: (B, C, h, w).
        bends: (B, TAPS - 1, h, w), in cells, see `accumulate`.
        weights: (TAPS, C).
        upright: the path runs in y and bends in x.
    Returns:
        (B, C, h, w): sum over taps t of weights[t] * x[row + offset_t, column + t - TAPS // 2], or, upright, of
        weights[t] * x[row + t - TAPS // 2, column + offset_t].
    """
    h, w = x.shape[-2:]
    precise = torch.promote_types(x.dtype, torch.float32)  # places in half precision would be off by cells
    rows, columns, taps = (torch.arange(n, device=x.device, dtype=precise) for n in (h, w, TAPS))
    ahead, aside = (taps - TAPS // 2)[:, None, None], accumulate(bends.to(precise))  # (TAPS, 1, 1), (B, TAPS, h, w)
    down, across = (ahead, aside) if upright else (aside, ahead)
    places = torch.broadcast_tensors((columns + across + 0.5) * (2 / w) - 1, (rows[:, None] + down + 0.5) * (2 / h) - 1)
    grid = torch.stack(places, -1).flatten(1, 2)  # (B, TAPS * h, w, 2)
    samples = F.grid_sample(x.to(precise), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    weighed = weights.t()[:, None].to(precise) @ samples.unflatten(2, (TAPS, h)).flatten(3)  # (B, C, 1, h * w)
    return weighed.unflatten(-1, (h, w))[:, :, 0].to(x.dtype)
