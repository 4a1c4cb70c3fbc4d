"""What the parts of the detector hand to each other.

Dimension letters, used everywhere: B batch, N memory tokens of all levels, Q queries, D width, L decoder layers,
C classes, G objects, H W image, h w level.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LevelHeat:
    """Heat of one level (HMPE, section 1) and the dense head it is read from."""

    by_class: Tensor
    """(B, C, h, w), heat per class in [0, 1]."""
    of_class: Tensor
    """(B, 1, h, w), heat of any class in [0, 1]."""
    of_box: Tensor
    """(B, 1, h, w), heat of the box branch in [0, 1]."""
    mixed: Tensor
    """(B, 1, h, w), learned mixture of class and box heat."""
    mask: Tensor
    """(B, 1, h, w), 1 where hot, 0 where cold."""
    logits: Tensor
    """(B, C, h, w), classification of the dense head."""
    deltas: Tensor
    """(B, 4, h, w), box residuals of the dense head against the anchors."""

    def maps(self) -> Tensor:
        """(B, 4, h, w): class, box, mixed, mask."""
        return torch.cat([self.of_class, self.of_box, self.mixed, self.mask], 1)


@dataclass(frozen=True)
class Encoded:
    """What the encoder knows of an image."""

    memory: list[Tensor]
    """Per level (B, D, h, w)."""
    heat: list[LevelHeat]
    """Per level; empty for a host without HMPE."""
    heat_embedding: list[Tensor]
    """Per level (B, D, h, w): E_class and E_bbox side by side; empty likewise. Times the mixed heat it is E_mixed."""
    density: Tensor | None
    """(B, 1, h, w) on the finest level, each cell in [0, 1]; sums to the object count. None without D3Q."""

    @property
    def count(self) -> Tensor | None:
        """(B,), estimated number of objects, or None without D3Q."""
        return None if self.density is None else self.density.sum((1, 2, 3))

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(h, w) per level."""
        return [(level.shape[2], level.shape[3]) for level in self.memory]


@dataclass(frozen=True)
class Queries:
    """The proposals that the decoder refines, best first."""

    features: Tensor
    """(B, Q, D)."""
    reference_boxes: Tensor
    """(B, Q, 4), cxcywh in fractions of the image."""
    logits: Tensor
    """(B, Q, C), the encoder's classification of the proposals."""
    valid: Tensor
    """(B, Q), true for the first K of an image, its own number of queries."""


@dataclass(frozen=True)
class Denoising:
    """Noised ground truth that the decoder must restore beside the real queries (training only)."""

    labels: Tensor
    """(B, M), label that the query claims."""
    boxes: Tensor
    """(B, M, 4), noised boxes, cxcywh in fractions of the image."""
    groups: Tensor
    """(B, M), queries of different groups do not see each other."""


@dataclass(frozen=True)
class LayerPrediction:
    """What one decoder layer says."""

    logits: Tensor
    """(B, Q, C), or (B, Q, C + 1) with the background last; `model.decoder.class_scores` reads both."""
    boxes: Tensor
    """(B, Q, 4), cxcywh in fractions of the image."""


@dataclass(frozen=True)
class DetectorOutput:
    """Everything a loss or a picture can ask for; the same in training and evaluation."""

    layers: list[LayerPrediction]
    denoising_layers: list[LayerPrediction]
    """Predictions for the denoising queries, empty without them."""
    encoded: Encoded
    queries: Queries

    @property
    def count(self) -> Tensor | None:
        """(B,), estimated number of objects, or None without D3Q."""
        return self.encoded.count
