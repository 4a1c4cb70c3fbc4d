"""What the dense head and the density head should say: task-aligned assignment and unit-mass Gaussians."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from model.boxes import overlaps, to_xyxy
from training.data.samples import Targets

CELLS_PER_BOX = 8
"""A level sees boxes of up to this many cells; the coarsest sees all larger ones."""
CANDIDATES = 6
"""Cells per object that the dense head learns from."""
SIGMA_CELLS = (0.8, 2.5)
"""Narrowest and widest Gaussian, in cells: a narrower one would exceed 1 per cell where two objects touch."""


@dataclass(frozen=True)
class DenseAssignment:
    """Which cells answer for which object."""

    labels: Tensor
    """(B, N), int64, -1 for background."""
    boxes: Tensor
    """(B, N, 4), cxcywh in fractions of the image, meaningless for background."""
    quality: Tensor
    """(B, N), in [0, 1], the score that the cell should give."""


@torch.no_grad()
def assign_dense(
    scores: Tensor, boxes: Tensor, anchors: Tensor, cell_sizes: Tensor, image_size: Tensor, targets: Targets
) -> DenseAssignment:
    """One-to-many assignment by how well a cell already does (TOOD, Feng et al., 2021), within levels of fitting size.

    Args:
        scores: (B, N, C), in [0, 1].
        boxes: (B, N, 4), predicted, cxcywh in fractions of the image.
        anchors: (N, 4), cxcywh; their centres are the cell centres.
        cell_sizes: (N,), stride of each token in pixels.
        image_size: (2,), width and height in pixels.
        targets: the ground truth.
    """
    batch, tokens, _ = scores.shape
    labels = torch.full((batch, tokens), -1, dtype=torch.long, device=scores.device)
    assigned_boxes, quality = torch.zeros_like(boxes), scores.new_zeros(batch, tokens)
    for i in range(batch):
        valid = targets.valid[i]
        if not valid.any():
            continue
        true_boxes, true_labels = targets.boxes[i][valid], targets.labels[i][valid]
        alignment, fit = _alignment(scores[i][:, true_labels], boxes[i], true_boxes)
        alignment = (alignment + 1e-9) * _candidates(anchors, true_boxes * image_size.repeat(2), cell_sizes, image_size)
        best, cells = alignment.topk(min(CANDIDATES, tokens), dim=0)  # (CANDIDATES, G)
        kept = torch.zeros_like(alignment).scatter_(0, cells, best)  # (N, G)
        strength, owner = kept.max(1)
        positive = strength > 0
        strongest = kept.amax(0).clamp_min(1e-9)  # (G,)
        best_fit = torch.where(kept > 0, fit, 0.0).amax(0)
        labels[i][positive] = true_labels[owner[positive]]
        assigned_boxes[i][positive] = true_boxes[owner[positive]]
        quality[i][positive] = (strength / strongest[owner] * best_fit[owner])[positive].clamp(0, 1)
    return DenseAssignment(labels, assigned_boxes, quality)


def _alignment(class_scores: Tensor, boxes: Tensor, true_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Score^0.5 * overlap^3 and the overlap itself, each (N, G); GIoU keeps tiny boxes comparable before they meet."""
    iou, giou = overlaps(to_xyxy(boxes)[:, None], to_xyxy(true_boxes)[None])
    return class_scores**0.5 * ((giou + 1) / 2) ** 3, ((iou + giou + 1) / 3).clamp(0, 1)


def _candidates(anchors: Tensor, true_boxes_px: Tensor, cell_sizes: Tensor, image_size: Tensor) -> Tensor:
    """(N, G), true for cells inside an object (or within one cell of its centre) on a level that fits its size."""
    distance = (anchors[:, None, :2] * image_size - true_boxes_px[None, :, :2]).abs()  # (N, G, 2)
    reach = torch.maximum(0.45 * true_boxes_px[None, :, 2:], cell_sizes[:, None, None])
    fits = true_boxes_px[:, 2:].amax(-1)[None] <= CELLS_PER_BOX * cell_sizes[:, None]
    coarsest = (cell_sizes == cell_sizes.max())[:, None]
    return (distance <= reach).all(-1) & (fits | coarsest)


def density_targets(
    boxes_cxcywh: Tensor,
    size: tuple[int, int],
    spread: Literal["box", "paper"] = "box",
    overlap: Literal["sum", "max"] = "sum",
) -> Tensor:
    """Spread each box as a unit-mass Gaussian, so that the map sums to the object count.

    Args:
        boxes_cxcywh: (M, 4), in fractions of the image.
        size: (h, w) of the finest level, in cells.
        spread: `box` lets three sigma be half a side, per axis; `paper` takes D3Q's sigma = (2r + 1) / 6 for both.
        overlap: `sum` adds objects; `max` takes the larger, as the paper does, and loses count in crowds.
    Returns:
        (h, w), non-negative. Each Gaussian is normalised inside the image, so that borders lose nothing.
        Source: D3Q, section III-B.
    """
    h, w = size
    cells = boxes_cxcywh * boxes_cxcywh.new_tensor([w, h, w, h])
    match spread:
        case "box":
            sigma = (cells[:, 2:] / 6).clamp(*SIGMA_CELLS)
        case "paper":
            radius = gaussian_radius(cells[:, 2:]).floor().clamp_min(1)
            sigma = ((2 * radius + 1) / 6)[:, None].expand(-1, 2)
    columns = _gaussian(cells[:, 0], sigma[:, 0], w)  # (M, w)
    rows = _gaussian(cells[:, 1], sigma[:, 1], h)  # (M, h)
    match overlap:
        case "sum":
            return rows.t() @ columns
        case "max":
            return _highest(rows, columns)


def gaussian_radius(sides: Tensor, min_overlap: float = 0.3) -> Tensor:
    """How far both corners of a box may move while its IoU with the moved box stays at least `min_overlap`.

    The smallest of three radii (CornerNet, Law and Deng, 2018): the corners move the same way, both inwards, or both
    outwards. Each is the root of a quadratic that sets the IoU to the limit.

    Args:
        sides: (M, 2), in cells.
        min_overlap: the limit, in (0, 1).
    Returns:
        (M,), in cells, not rounded.
    """
    total, area = sides.sum(-1), sides.prod(-1)
    shifted = (total - (total**2 - 4 * area * (1 - min_overlap) / (1 + min_overlap)).clamp_min(0).sqrt()) / 2
    difference = total**2 - 4 * area  # (width - height)^2
    shrunk = (total - (difference + 4 * min_overlap * area).clamp_min(0).sqrt()) / 4
    grown = ((difference + 4 * area / min_overlap).clamp_min(0).sqrt() - total) / 4
    return torch.stack([shifted, shrunk, grown]).amin(0)


def _gaussian(centre: Tensor, sigma: Tensor, cells: int) -> Tensor:
    """(M,) and (M,) in cells to (M, cells), each row summing to 1."""
    position = torch.arange(cells, device=centre.device, dtype=centre.dtype) + 0.5
    return (-((position - centre[:, None]) ** 2) / (2 * sigma[:, None] ** 2)).softmax(1)


def _highest(rows: Tensor, columns: Tensor) -> Tensor:
    """(M, h) and (M, w) to (h, w), the largest product; some objects at a time, as a crowd would fill the memory."""
    density = rows.new_zeros(rows.shape[1], columns.shape[1])
    for some_rows, some_columns in zip(rows.split(64), columns.split(64), strict=True):
        if len(some_rows):
            density = torch.maximum(density, (some_rows[:, :, None] * some_columns[:, None, :]).amax(0))
    return density
