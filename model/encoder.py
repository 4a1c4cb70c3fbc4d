"""Hybrid encoder with MOHFE, the Multi-Scale ObjectBox-Heatmap Fusion Encoder (HMPE, section 2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import DetectorConfig
from model.heat import HeatEmbedding
from model.layers import ConvNorm, SelfAttention, sine_encoding, tokens
from model.lsconv import LSConv
from model.structures import LevelHeat


class HybridEncoder(nn.Module):
    """Heat per level, attention on the coarsest, then a pyramid down and up again."""

    def __init__(self, config: DetectorConfig, channels: list[int]) -> None:
        super().__init__()
        width, levels, fusion_blocks = config.width, len(channels), config.encoder.fusion_blocks
        self.mohfe = config.encoder.mohfe
        self.laterals = nn.ModuleList(ConvNorm(inputs, width, activate=False) for inputs in channels)
        self.lsconvs = nn.ModuleList(LSConv(width) for _ in range(config.encoder.lsconv_levels))
        self.heat = nn.ModuleList(HeatEmbedding(config.heat, width, len(config.classes)) for _ in channels)
        self.gates = nn.ParameterList(torch.zeros(1, width, 1, 1) for _ in channels) if self.mohfe else None
        self.attention = AttentionBlock(width, config.encoder.heads, config.encoder.feedforward)
        self.downward = nn.ModuleList(Fusion(width, fusion_blocks) for _ in range(levels - 1))
        self.upward = nn.ModuleList(Fusion(width, fusion_blocks) for _ in range(levels - 1))
        self.shrink = nn.ModuleList(ConvNorm(width, width, 3, stride=2) for _ in range(levels - 1))
        self.to_memory = nn.ModuleList(ConvNorm(width, width, activate=False) for _ in channels)

    def forward(self, pyramid: list[Tensor]) -> tuple[list[Tensor], list[LevelHeat], list[Tensor]]:
        """Encode.

        Args:
            pyramid: per level (B, channels, h, w).
        Returns:
            Per level: memory (B, D, h, w), heat, and E_mixed (B, D, h, w).
        """
        levels = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=True)]
        for i, lsconv in enumerate(self.lsconvs):
            levels[i] = lsconv(levels[i])
        heat, embeddings = zip(*(read(x) for read, x in zip(self.heat, levels, strict=True)), strict=True)
        if self.gates is not None:
            levels = [x + gate * e for x, gate, e in zip(levels, self.gates, embeddings, strict=True)]
        levels = [F.silu(x) for x in levels]
        levels[-1] = self.attention(levels[-1], heat[-1].mask if self.mohfe else None)
        memory = [project(x) for project, x in zip(self.to_memory, self._fuse(levels), strict=True)]
        return memory, list(heat), [e * h.mixed.to(e.dtype) for e, h in zip(embeddings, heat, strict=True)]

    def _fuse(self, levels: list[Tensor]) -> list[Tensor]:
        """The pyramid: coarse to fine, then fine to coarse."""
        levels = list(levels)
        for i in reversed(range(len(levels) - 1)):
            coarse = F.interpolate(levels[i + 1], size=levels[i].shape[-2:], mode="nearest")
            levels[i] = self.downward[i](levels[i], coarse)
        for i in range(len(levels) - 1):
            levels[i + 1] = self.upward[i](self.shrink[i](levels[i]), levels[i + 1])
        return levels


class AttentionBlock(nn.Module):
    """Self-attention among all cells of a level, then a feed-forward network, each with a residual and a norm.

    Hot cells carry their position, cold ones lose it (formulas 6 and 7).
    """

    def __init__(self, width: int, heads: int, feedforward: int) -> None:
        super().__init__()
        self.attention = SelfAttention(width, heads)
        self.norm = nn.LayerNorm(width)
        self.feedforward = nn.Sequential(nn.Linear(width, feedforward), nn.GELU(), nn.Linear(feedforward, width))
        self.last_norm = nn.LayerNorm(width)

    def forward(self, level: Tensor, mask: Tensor | None) -> Tensor:
        """(B, D, h, w), mask (B, 1, h, w) or None, to (B, D, h, w)."""
        width, h, w = level.shape[1:]
        position = sine_encoding(h, w, width, like=level)  # (1, D, h, w)
        if mask is not None:
            position = position * mask.to(level.dtype)
        x = tokens(level)
        x = self.norm(x + self.attention(tokens(level + position), x))
        x = self.last_norm(x + self.feedforward(x))
        return x.transpose(1, 2).unflatten(2, (h, w)).to(level.dtype)


class Fusion(nn.Module):
    """Join two levels of the same size: a plain and a residual path on half the channels, added and widened."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        half = width // 2
        self.plain = ConvNorm(2 * width, half)
        self.deep = ConvNorm(2 * width, half)
        self.blocks = nn.ModuleList(ConvNorm(half, half, 3) for _ in range(blocks))
        self.widen = ConvNorm(half, width)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Two of (B, D, h, w) to (B, D, h, w)."""
        x = torch.cat([first, second], 1)
        deep = self.deep(x)
        for block in self.blocks:
            deep = deep + block(deep)
        return self.widen(self.plain(x) + deep)
