"""Hybrid encoder with MOHFE, the Multi-Scale ObjectBox-Heatmap Fusion Encoder (HMPE, section 2)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import DetectorConfig, HybridEncoderConfig
from model.heat import HeatEmbedding
from model.layers import ConvNorm, SelfAttention, checkpointed, sine_encoding, tokens
from model.lsconv import LSConv
from model.structures import LevelHeat


class HybridEncoder(nn.Module):
    """Heat per level, attention on the coarsest, then a pyramid down and up again."""

    def __init__(self, config: DetectorConfig, channels: list[int]) -> None:
        super().__init__()
        encoder, heat, width, levels = config.encoder, config.heat, config.width, len(channels)
        if not isinstance(encoder, HybridEncoderConfig):
            raise ValueError(f"a hybrid encoder cannot be built from {type(encoder).__name__}")
        self.attends_to_heat = encoder.mohfe == "attention"
        self.masked_position = "off" if heat is None else heat.masked_position
        self.makes_queries = config.query.content in ("memory+heat", "heat")
        self.checkpointing = config.decoder.checkpointing
        self.strides = config.strides
        self.laterals = nn.ModuleList(ConvNorm(inputs, width, activate=False) for inputs in channels)
        bending = 0 if encoder.lsconv.paths == "off" else encoder.lsconv.levels
        self.lsconvs = nn.ModuleList(LSConv(width, encoder.lsconv) for _ in range(bending))
        everywhere = self.makes_queries or encoder.mohfe == "gated"
        self.heat = nn.ModuleList()
        for i in range(levels):
            embeds = everywhere or (self.attends_to_heat and i == levels - 1)
            if heat is not None:
                self.heat.append(HeatEmbedding(heat, width, len(config.classes), embeds))
        self.gates = gates(width, levels) if encoder.mohfe == "gated" else None
        self.position_gates = gates(width, levels) if self.masked_position == "levels" else None
        self.attention = AttentionBlock(width, encoder.heads, encoder.feedforward)
        self.downward = nn.ModuleList(Fusion(width, encoder.fusion_blocks, enlarges=True) for _ in range(levels - 1))
        self.upward = nn.ModuleList(Fusion(width, encoder.fusion_blocks) for _ in range(levels - 1))
        self.shrink = nn.ModuleList(ConvNorm(width, width, 3, stride=2) for _ in range(levels - 1))
        self.to_memory = nn.ModuleList(ConvNorm(width, width, activate=False) for _ in channels)

    def forward(
        self, pyramid: list[Tensor], shift: Tensor | None = None
    ) -> tuple[list[Tensor], list[LevelHeat], list[Tensor]]:
        """Encode.

        Args:
            pyramid: per level (B, channels, h, w).
            shift: (B, 2), x and y in pixels that are added to every position.
        Returns:
            Per level: memory (B, D, h, w), heat (none for a host without HMPE), and the heat embedding (B, D, h, w) if
            queries are made of it.
        """
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for i, lsconv in enumerate(self.lsconvs):
            levels[i] = lsconv(levels[i])
        read = [module(x) for module, x in zip(self.heat, levels, strict=False)]  # nothing for a host without HMPE
        heat, embeddings = [heat for heat, _ in read], [embedding for _, embedding in read if embedding is not None]
        if self.gates is not None:
            levels = [x + gate * e for x, gate, e in zip(levels, self.gates, embeddings, strict=True)]
        if self.position_gates is not None:
            places = zip(levels, heat, self.strides, strict=True)
            positions = [self._position(x, h, stride, shift) for x, h, stride in places]
            levels = [x + gate * p for x, gate, p in zip(levels, self.position_gates, positions, strict=True)]
        levels = [F.silu(x) for x in levels]
        coarsest = levels[-1]
        position = self._position(coarsest, heat[-1] if heat else None, self.strides[-1], shift)
        content = embeddings[-1] if self.attends_to_heat else coarsest
        levels[-1] = checkpointed(self.checkpointing and self.training, self.attention, coarsest, content, position)
        memory = [project(x) for project, x in zip(self.to_memory, self._fuse(levels), strict=True)]
        if not self.makes_queries:
            return memory, heat, []
        return memory, heat, embeddings

    def _position(self, level: Tensor, heat: LevelHeat | None, stride: int, shift: Tensor | None) -> Tensor:
        """Positional encoding of a level's cells, which cold cells lose (formulas 6 and 7).

        Formula 7 writes sin(i / tau_d) + cos(j / tau_d), row and column in one number; this is the usual sine encoding
        of two dimensions, half of the channels for the row and half for the column, times the mask.

        Returns:
            (1, D, h, w), or (B, D, h, w) if it is masked or shifted.
        """
        width, h, w = level.shape[1:]
        position = sine_encoding(h, w, width, like=level, origin=None if shift is None else shift / stride)
        return position if heat is None or self.masked_position == "off" else position * heat.mask.to(level.dtype)

    def _fuse(self, levels: list[Tensor]) -> list[Tensor]:
        """The pyramid: coarse to fine, then fine to coarse."""
        levels = list(levels)
        for i in reversed(range(len(levels) - 1)):
            levels[i] = self.downward[i](levels[i], levels[i + 1])
        for i in range(len(levels) - 1):
            levels[i + 1] = self.upward[i](self.shrink[i](levels[i]), levels[i + 1])
        return levels


class AttentionBlock(nn.Module):
    """Self-attention among all cells of a level, then a feed-forward network, each with a residual and a norm."""

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.last_norm = nn.LayerNorm(width)

    def forward(self, level: Tensor, content: Tensor, position: Tensor) -> Tensor:
        """Attend.

        Args:
            level: (B, D, h, w), what is refined.
            content: (B, D, h, w), what queries, keys and values are made of: the level itself, or in the paper's MOHFE
                [E_class || E_bbox].
            position: (1 or B, D, h, w), added to the content of queries and keys.
        Returns:
            (B, D, h, w).
        """
        x = tokens(level)
        x = self.norm(x + self.attention(tokens(content + position), tokens(content)))
        x = self.last_norm(x + self.feedforward(x))
        return x.transpose(1, 2).unflatten(2, level.shape[2:]).to(level.dtype)


def gates(width: int, levels: int) -> nn.ParameterList:
    """One number per channel and level that lets nothing through at the start."""
    return nn.ParameterList(torch.zeros(1, width, 1, 1) for _ in range(levels))


class Fusion(nn.Module):
    """Join two levels: a plain and a residual path on half the channels, added and widened."""

    def __init__(self, width: int, blocks: int, enlarges: bool = False) -> None:
        """Build; `enlarges` true for a second level of half the size."""
        super().__init__()
        half = width // 2
        self.enlarges = enlarges
        self.plain = ConvNorm(2 * width, half)
        self.deep = ConvNorm(2 * width, half)
        self.blocks = nn.ModuleList(ConvNorm(half, half, 3) for _ in range(blocks))
        self.widen = ConvNorm(half, width)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """(B, D, h, w) and as much, or (B, D, h / 2, w / 2), to (B, D, h, w)."""
        deep = self._join(self.deep, first, second)
        for block in self.blocks:
            deep = deep + block(deep)
        return self.widen(self._join(self.plain, first, second) + deep)

    def _join(self, layer: ConvNorm, first: Tensor, second: Tensor) -> Tensor:
        """The layer on both, one above the other, without laying them so: a small level is enlarged after its part."""
        convolution, norm, activate = cast(tuple[nn.Conv2d, nn.Module, nn.Module], tuple(layer))
        width = first.shape[1]
        below = F.conv2d(second, convolution.weight[:, width:])
        if self.enlarges:
            below = F.interpolate(below, scale_factor=2.0, mode="nearest")
        return activate(norm(F.conv2d(first, convolution.weight[:, :width], convolution.bias) + below))
