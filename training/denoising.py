"""Contrastive denoising (DINO, Zhang et al., 2023, section 3.3): restore noised objects, reject stronger noise."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.structures import Denoising
from training.config import DenoisingConfig
from training.data.samples import Targets

MOST_GROUPS = 5


@dataclass(frozen=True)
class DenoisingTask:
    """Noised queries for the model, and what they should become."""

    queries: Denoising
    labels: Tensor
    """(B, M), true label, -1 for a query that should be rejected."""
    boxes: Tensor
    """(B, M, 4), true boxes."""
    weight: Tensor
    """(B, M), 0 for padding."""
    groups: int
    """How many noised copies each object has."""


def make_denoising(targets: Targets, num_classes: int, config: DenoisingConfig) -> DenoisingTask | None:
    """Noise the ground truth, in groups of one positive and one negative copy of each object.

    Positives move by up to `box_noise` sides, negatives by one to two times that. None if there is nothing to noise.
    A picture with fewer objects than the fullest is padded with copies of a box in its middle; as in DINO, they are
    seen within their group, but weigh nothing.
    """
    objects = int(targets.counts.max())
    if config.queries == 0 or objects == 0:
        return None
    groups = max(1, min(MOST_GROUPS, config.queries // objects))
    labels = targets.labels[:, :objects].repeat(1, 2 * groups)  # (B, M), M = 2 * groups * objects
    boxes = targets.boxes[:, :objects].repeat(1, 2 * groups, 1)
    position = torch.arange(labels.shape[1], device=labels.device)
    negative = position // objects % 2 == 1  # (M,)
    real = labels >= 0
    queries = Denoising(
        labels=_noised_labels(labels.clamp_min(0), num_classes, config.label_noise),
        boxes=_noised_boxes(boxes, negative, config.box_noise),
        groups=position // (2 * objects),
    )
    return DenoisingTask(queries, labels.masked_fill(negative, -1), boxes, real.float(), groups)


def _noised_labels(labels: Tensor, num_classes: int, chance: float) -> Tensor:
    random_labels = torch.randint_like(labels, num_classes)
    return torch.where(torch.rand(labels.shape, device=labels.device) < chance, random_labels, labels)


def _noised_boxes(boxes: Tensor, negative: Tensor, amount: float) -> Tensor:
    sign = torch.randint_like(boxes, 2) * 2 - 1
    size = torch.rand_like(boxes) + negative[:, None]
    noise = sign * size * amount
    centre = boxes[..., :2] + noise[..., :2] * boxes[..., 2:]
    return torch.cat([centre.clamp(0, 1), (boxes[..., 2:] * noise[..., 2:].exp()).clamp(1e-3, 1)], -1)
