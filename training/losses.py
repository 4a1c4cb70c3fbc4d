"""The terms of the objective, as pure functions. Each returns a sum; the criterion normalises and weighs."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from model.boxes import overlaps, to_xyxy

ClassificationKind = Literal["mal", "vfl", "focal", "cross_entropy"]
"""How queries learn their class; `cross_entropy` is over C + 1 classes, the others over C sigmoids."""
BACKGROUND_WEIGHT = 0.1
"""Weight of a background query in the cross-entropy (DETR, Carion et al., 2020; D3Q's published variant)."""
SMALLEST_SIDE = 1e-7
"""Fraction of the image below which a side is not told apart in a logarithm."""


def classification_loss(
    kind: ClassificationKind, logits: Tensor, labels: Tensor, quality: Tensor, weight: Tensor
) -> Tensor:
    """The sum of one of the losses below.

    Args:
        kind: which.
        logits: (M, C), or (M, C + 1) with the background last for `cross_entropy`.
        labels: (M,), int64, -1 for background.
        quality: (M,), IoU with the object, in [0, 1]; `focal` and `cross_entropy` do not ask for it.
        weight: (M,), 0 leaves a row out.
    """
    match kind:
        case "mal":
            return matchability_aware_loss(logits, labels, quality, weight)
        case "vfl":
            return varifocal_loss(logits, labels, quality, weight)
        case "focal":
            return focal_loss(logits, labels, weight)
        case "cross_entropy":
            return cross_entropy(logits, labels, weight)


def matchability_aware_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, weight: Tensor, gamma: float = 1.5
) -> Tensor:
    """MAL (DEIM, Huang et al., 2025): a positive should score its overlap^gamma, a negative costs its score^gamma.

    Args:
        logits: (M, C).
        labels: (M,), int64, -1 for background.
        quality: (M,), IoU with the matched object, in [0, 1].
        weight: (M,), 0 leaves a row out.
    """
    positive = _one_hot(labels, logits)
    target = positive * quality[:, None].clamp_min(1e-3) ** gamma
    balance = torch.where(positive, 1.0, logits.detach().sigmoid() ** gamma)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * balance
    return (loss.sum(1) * weight).sum()


def varifocal_loss(
    logits: Tensor, labels: Tensor, quality: Tensor, weight: Tensor, alpha: float = 0.75, gamma: float = 2.0
) -> Tensor:
    """VFL (Zhang et al., 2021): q BCE(p, q) for a positive of overlap q, alpha p^gamma BCE(p, 0) for a negative.

    The balance carries no gradient, as in RT-DETR (Zhao et al., 2024). Arguments as of `matchability_aware_loss`.
    """
    positive = _one_hot(labels, logits)
    target = positive * quality[:, None]
    balance = torch.where(positive, target, alpha * logits.detach().sigmoid() ** gamma)
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * balance
    return (loss.sum(1) * weight).sum()


def focal_loss(logits: Tensor, labels: Tensor, weight: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss (Lin et al., 2017): alpha (1 - p)^gamma BCE(p, 1), and (1 - alpha) p^gamma BCE(p, 0)."""
    positive = _one_hot(labels, logits)
    scores = logits.sigmoid()
    balance = torch.where(positive, alpha * (1 - scores) ** gamma, (1 - alpha) * scores**gamma)
    loss = F.binary_cross_entropy_with_logits(logits, positive.to(logits), reduction="none") * balance
    return (loss.sum(1) * weight).sum()


def cross_entropy(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Softmax cross-entropy over C + 1 classes, the background last and weighing BACKGROUND_WEIGHT (D3Q, as DETR)."""
    answers = torch.where(labels >= 0, labels, logits.shape[1] - 1)
    return (F.cross_entropy(logits, answers, reduction="none") * cross_entropy_weight(labels, weight)).sum()


def cross_entropy_weight(labels: Tensor, weight: Tensor) -> Tensor:
    """What each row weighs in `cross_entropy`, whose sum is divided by the sum of these; any shape, the same out."""
    return weight * torch.where(labels >= 0, 1.0, BACKGROUND_WEIGHT)


def _one_hot(labels: Tensor, logits: Tensor) -> Tensor:
    """(M, C), true for the label of a row that is not background."""
    return labels[:, None] == torch.arange(logits.shape[1], device=labels.device)  # F.one_hot makes a GPU wait


def dense_quality_loss(logits: Tensor, labels: Tensor, quality: Tensor) -> Tensor:
    """Quality focal loss (Li et al., 2020), gentler: a cell should give its assigned quality, the rest nothing.

    BCE(p, q) * max(|q - p|, 0.1) for the label of a cell that has one, and BCE(p, 0) * 0.75 p^2 for all others.

    Args:
        logits: (M, C).
        labels: (M,), int64, -1 for background.
        quality: (M,), in [0, 1].
    """
    positive = _one_hot(labels, logits)
    target = positive * quality[:, None]
    scores = logits.detach().sigmoid()
    balance = torch.where(positive, (target - scores).abs().clamp_min(0.1), 0.75 * scores**2)
    return (F.binary_cross_entropy_with_logits(logits, target, reduction="none") * balance).sum()


def tiny_l1(boxes: Tensor, targets: Tensor) -> Tensor:
    """D3Q's refined box loss: |dcx| + |dcy| + |log(w / w')| + |log(h / h')|; (..., 4) each, broadcast, to (...)."""
    centre = (boxes[..., :2] - targets[..., :2]).abs().sum(-1)
    ratio = boxes[..., 2:].clamp_min(SMALLEST_SIDE).log() - targets[..., 2:].clamp_min(SMALLEST_SIDE).log()
    return centre + ratio.abs().sum(-1)


def l1(boxes: Tensor, targets: Tensor) -> Tensor:
    """DETR's box loss: the sum of |differences|; cxcywh (..., 4) each, broadcast, to (...)."""
    return (boxes - targets).abs().sum(-1)


def iou_and_giou_loss(boxes: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """IoU without gradient, and 1 - GIoU; cxcywh (..., 4) each, broadcast, to (...)."""
    iou, giou = overlaps(to_xyxy(boxes), to_xyxy(targets))
    return iou.detach(), 1 - giou


def density_focal_loss(density: Tensor, target: Tensor, alpha: float = 2.0) -> Tensor:
    """D3Q's density focal loss: |t - p|^alpha BCE(p, t) where t > 0, and p^alpha (-log(1 - p)) elsewhere.

    Args:
        density: p, any shape, in [0, 1].
        target: t, same shape, not negative; what exceeds 1 in a cell cannot be said by p and counts as 1.
    """
    target = target.clamp_max(1)
    density = density.clamp(1e-6, 1 - 1e-6)
    cross_entropy = -(target * density.log() + (1 - target) * (1 - density).log())
    return ((target - density).abs() ** alpha * cross_entropy).sum()


def count_loss(count: Tensor, truth: Tensor) -> Tensor:
    """|count - n| / (10 + n), (B,) each, summed: the focal loss alone over-counts empty images."""
    return ((count - truth).abs() / (10 + truth)).sum()
