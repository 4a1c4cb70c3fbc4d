"""Contrastive denoising (DINO, Zhang et al., 2023, section 3.3): restore noised objects, reject stronger noise."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from model.boxes import to_xyxy
from model.structures import Denoising
from training.config import DenoisingConfig
from training.data.samples import Targets

PADDING = -1
"""Group of the queries that fill a picture up to the longest of its batch: only they see each other."""
SMALLEST_SIDE = 1e-3
"""Noised boxes are at least this fraction of the picture wide."""
NUMBERS = 10
"""Random numbers per query: whether the label is replaced, by which, and a sign and a size for each side of the box."""
Draw = Callable[[int, int], Tensor]
"""(B, M) to random numbers (B, M, NUMBERS), even in [0, 1)."""


@dataclass(frozen=True)
class DenoisingTask:
    """Noised queries for the model, and what they should become."""

    queries: Denoising
    labels: Tensor
    """(B, M), true label, -1 for a query that should be rejected."""
    boxes: Tensor
    """(B, M, 4), true boxes."""
    weight: Tensor
    """(B, M), one over the picture's groups, so that the copies of an object weigh 1 together; 0 for padding."""


def from_torch(pictures: int, queries: int) -> Tensor:
    """Random numbers from torch's own generator."""
    return torch.rand(pictures, queries, NUMBERS)


def make_denoising(
    targets: Targets, num_classes: int, config: DenoisingConfig, draw: Draw = from_torch
) -> DenoisingTask | None:
    """Noise the ground truth, in groups of one positive and one negative copy of each object.

    A picture gets as many groups as `queries` has room for, whatever it is batched with. (DINO counts the objects of
    the fullest picture; for D3Q, which trains with one picture a batch, the two are the same.) Padding stands apart and
    weighs nothing; a batch without objects is all padding, so that every process uses the same parameters.

    Returns:
        None if denoising is off. M is at least 2.
    """
    if config.queries == 0:
        return None
    objects = targets.counts  # (B,)
    groups = (config.queries // objects.clamp_min(1)).clamp(1, config.max_groups)
    longest = max(1, int((groups * objects).max()))
    position = torch.arange(2 * longest, device=objects.device)[None]  # (1, M)
    # Within a group: first each object once to restore, then each once to reject.
    in_turn = position // objects.clamp_min(1)[:, None]  # (B, M)
    index = position - in_turn * objects.clamp_min(1)[:, None]
    negative, group = in_turn % 2 == 1, in_turn // 2
    real = (group < groups[:, None]) & (objects > 0)[:, None]
    labels = targets.labels.gather(1, index).masked_fill(~real, 0)
    boxes = targets.boxes.gather(1, index[..., None].expand(-1, -1, 4))
    boxes = torch.where(real[..., None], boxes, 0.5)
    numbers = draw(*labels.shape).to(boxes.device)
    queries = Denoising(
        labels=_noised_labels(labels, num_classes, config.label_noise, numbers[..., :2]),
        boxes=_noised_boxes(boxes, negative, config, numbers[..., 2:]),
        groups=group.masked_fill(~real, PADDING),
    )
    return DenoisingTask(queries, labels.masked_fill(negative | ~real, -1), boxes, real / groups[:, None])


def _noised_labels(labels: Tensor, num_classes: int, chance: float, numbers: Tensor) -> Tensor:
    """(B, M), some of them replaced, by random numbers (B, M, 2)."""
    return torch.where(numbers[..., 0] < chance, (numbers[..., 1] * num_classes).long(), labels)


def _noised_boxes(boxes: Tensor, negative: Tensor, config: DenoisingConfig, numbers: Tensor) -> Tensor:
    """(B, M, 4), of which `negative` (B, M) are noised by one to two times the noise, the others by up to one.

    The random numbers are (B, M, 8).
    """
    sign = (numbers[..., :4] < 0.5).to(boxes) * 2 - 1
    noise = sign * (numbers[..., 4:] + negative[..., None]) * config.box_noise
    sides = boxes[..., 2:]
    match config.box_noise_on:
        case "centre":
            centre, sides = boxes[..., :2] + noise[..., :2] * sides, sides * noise[..., 2:].exp()
        case "corners":
            corners = (to_xyxy(boxes) + noise * (sides / 2).repeat(1, 1, 2)).clamp(0, 1)
            centre, sides = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
    return torch.cat([centre.clamp(0, 1), sides.clamp(SMALLEST_SIDE, 1)], -1)
