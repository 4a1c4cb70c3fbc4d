"""The deformable decoder: a few layers that turn proposals into boxes (HMPE, section 5, needs only three)."""

from typing import Literal

import torch
from torch import Tensor, nn

from model.boxes import extent, refine
from model.config import DeformableEncoderConfig, DetectorConfig
from model.deformable_attention import DeformableAttention
from model.layers import MLP, SelfAttention, checkpointed, classifier
from model.structures import Denoising, LayerPrediction

BLOCKED = -1e4
"""Added to an attention logit to forbid it; finite, so that a row with nothing allowed stays finite."""


class Decoder(nn.Module):
    """Refines boxes layer by layer; every layer classifies too, so that any prefix is a detector."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, num_classes, count = config.width, len(config.classes), config.decoder.layers
        self.finest_stride = config.strides[0]
        self.look_forward_twice = config.decoder.look_forward_twice
        self.checkpointing = config.decoder.checkpointing
        self.embed_box = MLP(4, width, width)
        self.embed_label = nn.Embedding(num_classes, width)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(count))
        self.classify = nn.ModuleList(
            query_classifier(width, num_classes, config.decoder.classification) for _ in range(count)
        )
        self.regress = nn.ModuleList(MLP(width, width, 4, starts_at_zero=True) for _ in range(count))

    def forward(
        self,
        queries: Tensor,
        reference_boxes: Tensor,
        memory: list[Tensor],
        bias: Tensor | None,
        shift: Tensor | None = None,
    ) -> list[LayerPrediction]:
        """Decode.

        Args:
            queries: (B, T, D), denoising queries first, if any.
            reference_boxes: (B, T, 4), cxcywh in fractions of the image.
            memory: per level (B, D, h, w).
            bias: (B or 1, 1, T, T), added to the self-attention logits, or None.
            shift: (B, 2), x and y in pixels that are added to every position.
        Returns:
            One prediction per layer. Each layer starts from the boxes of the one before, detached; with
            `look_forward_twice` (DINO, section 3.5) its own boxes also teach the layer before.
        """
        predictions = []
        boxes = undetached = reference_boxes.detach()
        for layer, classify, regress in zip(self.layers, self.classify, self.regress, strict=True):
            position = self._position(boxes, memory[0], shift)
            checkpointing = self.checkpointing and self.training
            queries = checkpointed(checkpointing, layer, queries, position, boxes, memory, bias)
            deltas = regress(queries)
            refined = refine(boxes, deltas)
            predicted = refine(undetached, deltas) if self.look_forward_twice else refined
            predictions.append(LayerPrediction(classify(queries), predicted))
            boxes, undetached = refined.detach(), refined
        return predictions

    def _position(self, boxes: Tensor, finest: Tensor, shift: Tensor | None) -> Tensor:
        """Embed boxes in pixels, not in fractions: a crop and the whole image then mean the same."""
        h, w = finest.shape[-2:]
        size = extent(w, h, like=boxes) * self.finest_stride
        centre = boxes[..., :2] * size if shift is None else boxes[..., :2] * size + shift[:, None]
        sides = (boxes[..., 2:] * size).clamp_min(0.5).log() - 2
        return self.embed_box(torch.cat([centre / 128 - 1, sides], -1))


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention into the memory, feed-forward; a norm after each."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width, decoder = config.width, config.decoder
        self.self_attention = SelfAttention(width, decoder.heads)
        # The memory of the hybrid encoder ends in a projection made for sampling, that of the deformable one in a norm.
        projects_values = isinstance(config.encoder, DeformableEncoderConfig)
        self.cross_attention = DeformableAttention(
            width, decoder.heads, len(config.strides), decoder.points, decoder.min_offset_cells, projects_values
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


def query_classifier(width: int, num_classes: int, classification: Literal["sigmoid", "softmax"]) -> nn.Linear:
    """(..., width) to logits as `class_scores` reads them; every query starts as background."""
    match classification:
        case "sigmoid":
            return classifier(width, num_classes)
        case "softmax":
            layer = classifier(width, num_classes + 1)
            with torch.no_grad():
                layer.bias[-1] = 0
            return layer


def class_scores(logits: Tensor, classification: Literal["sigmoid", "softmax"]) -> Tensor:
    """How sure a query is of each class.

    Args:
        logits: (..., C) for `sigmoid`, (..., C + 1) with the background last for `softmax`.
        classification: how the head that gave the logits was trained, as in `DecoderConfig`.
    Returns:
        (..., C) in [0, 1], without the background.
    """
    match classification:
        case "sigmoid":
            return logits.sigmoid()
        case "softmax":
            return logits.softmax(-1)[..., :-1]


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
        groups, noised = denoising.groups, denoising.groups.shape[-1]
        queries = noised + valid.shape[1]
        blocked = valid.new_zeros(valid.shape[0], 1, queries, queries)
        blocked[:, 0, :noised, :noised] = groups[..., :, None] != groups[..., None, :]
        blocked[:, 0, noised:, :noised] = True
        blocked[:, :, :, noised:] |= ~valid[:, None, None, :]
    return blocked.to(torch.float32) * BLOCKED
