"""Multi-scale deformable encoder (Deformable DETR, Zhu et al., 2021, section 4.1), the one of D3Q's hosts."""

import math

import torch
from torch import Tensor, nn

from model.boxes import anchors
from model.config import GROUPS, DeformableEncoderConfig, DetectorConfig
from model.deformable_attention import DeformableAttention
from model.layers import MLP, checkpointed, tokens
from model.structures import LevelHeat


class DeformableEncoder(nn.Module):
    """Every cell of every level looks at a few points around itself on all levels, layer after layer."""

    def __init__(self, config: DetectorConfig, channels: list[int]) -> None:
        super().__init__()
        if not isinstance(config.encoder, DeformableEncoderConfig):
            raise ValueError(f"a deformable encoder cannot be built from {type(config.encoder).__name__}")
        width, levels, encoder = config.width, len(channels), config.encoder
        self.temperature = encoder.temperature
        self.checkpointing = config.decoder.checkpointing
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Conv2d(inputs, width, 1), nn.GroupNorm(GROUPS, width)) for inputs in channels
        )
        self.level_embedding = nn.Parameter(torch.randn(levels, width))
        self.layers = nn.ModuleList(DeformableEncoderLayer(encoder, width, levels) for _ in range(encoder.layers))

    def forward(
        self, pyramid: list[Tensor], shift: Tensor | None = None
    ) -> tuple[list[Tensor], list[LevelHeat], list[Tensor]]:
        """Encode.

        Args:
            pyramid: per level (B, channels, h, w).
            shift: has no meaning here, where positions are fractions of the image, not pixels.
        Returns:
            Per level memory (B, D, h, w); no heat and no E_mixed, as this host has none.
        """
        levels = [project(x).float() for project, x in zip(self.inputs, pyramid, strict=True)]
        shapes = [(level.shape[2], level.shape[3]) for level in levels]
        x = torch.cat([tokens(level) for level in levels], 1)  # (B, N, D)
        cells = anchors(shapes, 0.0, like=x)  # (1, N, 4), boxes without extent
        position = self._position(cells[..., :2], shapes)
        boxes = cells.expand(x.shape[0], -1, -1)
        for layer in self.layers:
            x = checkpointed(self.checkpointing and self.training, layer, x, position, boxes, shapes)
        return to_levels(x, shapes), [], []

    def _position(self, centres: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """Sine encoding of the place plus an embedding of the level, (1, N, D)."""
        sines = sine_of_points(centres, self.level_embedding.shape[1], self.temperature)
        levels = zip(self.level_embedding, shapes, strict=True)
        return sines + torch.cat([level.expand(h * w, -1) for level, (h, w) in levels])


class DeformableEncoderLayer(nn.Module):
    """Deformable self-attention and a feed-forward network, each with a residual and a norm after it."""

    def __init__(self, config: DeformableEncoderConfig, width: int, levels: int) -> None:
        super().__init__()
        # Boxes without extent and as many cells as points: an offset is then a plain number of cells.
        self.attention = DeformableAttention(
            width, config.heads, levels, config.points, min_offset_cells=config.points, projects_values=True
        )
        self.norm = nn.LayerNorm(width)
        self.feedforward = MLP(width, config.feedforward, width)
        self.last_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, boxes: Tensor, shapes: list[tuple[int, int]]) -> Tensor:
        """(B, N, D), position (1, N, D) and boxes (B, N, 4) without extent, to (B, N, D)."""
        x = self.norm(x + self.attention(x + position, boxes, to_levels(x, shapes)))
        return self.last_norm(x + self.feedforward(x))


def to_levels(memory: Tensor, shapes: list[tuple[int, int]]) -> list[Tensor]:
    """(B, N, D) to (B, D, h, w) per level."""
    parts = memory.split([h * w for h, w in shapes], 1)
    return [part.transpose(1, 2).unflatten(2, shape) for part, shape in zip(parts, shapes, strict=True)]


def sine_of_points(points: Tensor, width: int, temperature: float) -> Tensor:
    """Sinusoidal encoding of places in fractions of the image, as in DETR, a full turn across the image at most.

    Args:
        points: (..., 2), x and y.
        width: channels, divisible by 4; half for y, half for x.
        temperature: ratio of the lowest frequency to the highest; 20 in D3Q's hosts.
    Returns:
        (..., width).
    """
    steps = torch.arange(width // 4, device=points.device, dtype=points.dtype) / (width // 4)
    angles = 2 * math.pi * points.flip(-1)[..., None] * temperature**-steps  # (..., 2, width / 4)
    return torch.cat([angles.sin(), angles.cos()], -1).flatten(-2)
