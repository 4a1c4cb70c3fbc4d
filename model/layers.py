"""Small building blocks shared by the parts of the detector."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

PRIOR_LOGIT = -4.6
"""Every cell and query starts as background: sigmoid(-4.6) is 0.01."""


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, and SiLU unless told otherwise; `starts_at_zero` zeroes the norm's scale."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        activate: bool = True,
        starts_at_zero: bool = False,
    ) -> None:
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        norm = nn.BatchNorm2d(outputs)
        if starts_at_zero:
            nn.init.zeros_(norm.weight)
        super().__init__(convolution, norm, nn.SiLU() if activate else nn.Identity())


class ResidualBlock(nn.Module):
    """x + two 3x3 convolutions, then SiLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ConvNorm(channels, channels, 3)
        self.second = ConvNorm(channels, channels, 3, activate=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x + self.second(self.first(x)))


class MLP(nn.Sequential):
    """Two linear layers with a ReLU between; `starts_at_zero` zeroes the second."""

    def __init__(self, inputs: int, hidden: int, outputs: int, starts_at_zero: bool = False) -> None:
        first, second = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)
        if starts_at_zero:
            zero(second)
        super().__init__(first, nn.ReLU(), second)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose queries and keys carry a position that the values do not."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_query_key = nn.Linear(width, 2 * width)
        self.to_value = nn.Linear(width, width)
        self.to_output = nn.Linear(width, width)

    def forward(self, positioned: Tensor, content: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend.

        Args:
            positioned: (B, T, D), gives queries and keys.
            content: (B, T, D), gives values.
            bias: (B or 1, 1, T, T), added to the attention logits.
        Returns:
            (B, T, D).
        """
        query, key = self.to_query_key(positioned).chunk(2, -1)
        query, key, value = (self._split(x) for x in (query, key, self.to_value(content)))  # (B, heads, T, D / heads)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return self.to_output(attended.transpose(1, 2).flatten(2))  # (B, T, D)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def zero(layer: nn.Linear | nn.Conv2d) -> None:
    """Let a layer say nothing until it has learned something."""
    nn.init.zeros_(layer.weight)
    fill_bias(layer, 0.0)


def fill_bias(layer: nn.Linear | nn.Conv2d, value: float) -> None:
    """Set every entry of the bias. Raises ValueError for a layer that has none."""
    if layer.bias is None:
        raise ValueError(f"{layer} has no bias to set to {value}")
    nn.init.constant_(layer.bias, value)


def classifier(width: int, num_classes: int) -> nn.Linear:
    """(..., width) to logits (..., num_classes) that start as background."""
    layer = nn.Linear(width, num_classes)
    fill_bias(layer, PRIOR_LOGIT)
    return layer


def sine_encoding(
    h: int, w: int, width: int, like: Tensor, origin: Tensor | None = None, temperature: float = 10_000.0
) -> Tensor:
    """Sinusoidal encoding of cell positions (HMPE, formula 7 without its mask).

    Args:
        h, w: cells of the level.
        width: channels, divisible by 4; half for rows, half for columns.
        like: tensor that gives device and dtype.
        origin: (B, 2), x and y of the first cell, in cells; without it (0, 0).
    Returns:
        (1 or B, width, h, w).
    """
    steps = torch.arange(width // 4, device=like.device, dtype=torch.float32) / (width // 4)
    frequency = temperature**-steps  # (width / 4,)
    y, x = (torch.arange(side, device=like.device, dtype=torch.float32)[None] for side in (h, w))  # (1, side)
    if origin is not None:
        x, y = x + origin[:, :1], y + origin[:, 1:]  # (B, side)
    y, x = (along[:, None] * frequency[:, None] for along in (y, x))  # (1 or B, width / 4, side)
    rows = torch.cat([y.sin(), y.cos()], 1)[..., None].expand(-1, -1, h, w)
    columns = torch.cat([x.sin(), x.cos()], 1)[:, :, None].expand(-1, -1, h, w)
    return torch.cat([rows, columns], 1).to(like.dtype)


def tokens(level: Tensor) -> Tensor:
    """(B, D, h, w) to (B, h * w, D), row by row."""
    return level.flatten(2).transpose(1, 2)


def checkpointed(enabled: bool, layer: nn.Module, *inputs: Any) -> Tensor:
    """Call a layer; if enabled, forget its activations and compute them again in the backward pass."""
    if not enabled:
        return layer(*inputs)
    output = checkpoint(layer, *inputs, use_reentrant=False)
    assert isinstance(output, Tensor)  # None only if the layer gives None
    return output
