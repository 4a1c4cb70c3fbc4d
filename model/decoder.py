"""The deformable decoder: a few layers that turn proposals into boxes (HMPE, section 5, needs only three)."""

import torch
from torch import Tensor, nn

from model.boxes import extent, refine
from model.config import DetectorConfig
from model.deformable_attention import DeformableAttention
from model.layers import MLP, SelfAttention, classifier
from model.structures import Denoising, LayerPrediction

BLOCKED = -1e4
"""Added to an attention logit to forbid it; finite, so that a row with nothing allowed stays finite."""


class Decoder(nn.Module):
    """Refines boxes layer by layer; every layer classifies too, so that any prefix is a detector."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, num_classes, count = config.width, len(config.classes), config.decoder.layers
        self.finest_stride = config.strides[0]
        self.embed_box = MLP(4, width, width)
        self.embed_label = nn.Embedding(num_classes, width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(count))
        self.classify = nn.ModuleList(classifier(width, num_classes) for _ in range(count))
        self.regress = nn.ModuleList(MLP(width, width, 4, starts_at_zero=True) for _ in range(count))

    def forward(
        self, queries: Tensor, reference_boxes: Tensor, memory: list[Tensor], bias: Tensor | None
    ) -> list[LayerPrediction]:
        """Decode.

        Args:
            queries: (B, T, D), denoising queries first, if any.
            reference_boxes: (B, T, 4), cxcywh in fractions of the image.
            memory: per level (B, D, h, w).
            bias: (B or 1, 1, T, T), added to the self-attention logits, or None.
        Returns:
            One prediction per layer. Each layer starts from the boxes of the one before, detached.
        """
        predictions = []
        boxes = reference_boxes.detach()
        for layer, classify, regress in zip(self.layers, self.classify, self.regress, strict=True):
            queries = layer(queries, self._position(boxes, memory[0]), boxes, memory, bias)
            refined = refine(boxes, regress(queries))
            predictions.append(LayerPrediction(classify(queries), refined))
            boxes = refined.detach()
        return predictions

    def _position(self, boxes: Tensor, finest: Tensor) -> Tensor:
        """Embed boxes in pixels, not in fractions: a crop and the whole image then mean the same."""
        h, w = finest.shape[-2:]
        size = extent(w, h, like=boxes) * self.finest_stride
        centre = boxes[..., :2] * size / 128 - 1
        sides = (boxes[..., 2:] * size).clamp_min(0.5).log() - 2
        return self.embed_box(torch.cat([centre, sides], -1))


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention into the memory, feed-forward; a norm after each."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, decoder = config.width, config.decoder
        self.self_attention = SelfAttention(width, decoder.heads)
        self.cross_attention = DeformableAttention(
            width, decoder.heads, len(config.strides), decoder.points, decoder.min_offset_cells
        )
        self.feedforward = MLP(width, decoder.feedforward, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(
        self, queries: Tensor, position: Tensor, boxes: Tensor, memory: list[Tensor], bias: Tensor | None
    ) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        x = self.norms[0](queries + self.self_attention(queries + position, queries, bias))
        x = self.norms[1](x + self.cross_attention(x + position, boxes, memory))
        return self.norms[2](x + self.feedforward(x))


def attention_bias(valid: Tensor, denoising: Denoising | None) -> Tensor:
    """What self-attention may not see: invalid queries, other denoising groups, and, for real queries, any denoising.

    Args:
        valid: (B, Q).
        denoising: M queries that stand before the real ones, or None.
    Returns:
        (B, 1, M + Q or 1, M + Q), 0 where allowed, BLOCKED elsewhere.
    """
    if denoising is None:
        blocked = ~valid[:, None, None, :]  # (B, 1, 1, Q)
    else:
        groups = denoising.groups
        among_noised = groups[:, None] != groups[None, :]  # (M, M)
        to_real = valid.new_zeros(len(groups), valid.shape[1])
        to_noised = valid.new_ones(valid.shape[1], len(groups))
        among_real = valid.new_zeros(valid.shape[1], valid.shape[1])
        structure = torch.cat([torch.cat([among_noised, to_real], 1), torch.cat([to_noised, among_real], 1)])
        padding = torch.cat([valid.new_zeros(valid.shape[0], len(groups)), ~valid], 1)  # (B, M + Q)
        blocked = structure[None, None] | padding[:, None, None, :]
    return blocked.to(torch.float32) * BLOCKED
