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
MOST_PAIRS = 2**25
"""Pairs of a cell and an object that are weighed at once; as float32, a quarter of a GB or less each of a few times."""
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
    at_once = max(1, MOST_PAIRS // (scores.shape[1] * targets.labels.shape[1]))  # pictures
    parts = [
        _assign(some_scores, some_boxes, anchors, cell_sizes, image_size, Targets(some_targets, some_labels))
        for some_scores, some_boxes, some_targets, some_labels in zip(
            *(values.split(at_once) for values in (scores, boxes, targets.boxes, targets.labels)), strict=True
        )
    ]
    labels, assigned_boxes, quality = (torch.cat(values) for values in zip(*parts, strict=True))
    return DenseAssignment(labels, assigned_boxes, quality)


def _assign(
    scores: Tensor, boxes: Tensor, anchors: Tensor, cell_sizes: Tensor, image_size: Tensor, targets: Targets
) -> tuple[Tensor, Tensor, Tensor]:
    """The fields of a `DenseAssignment`, of pictures whose pairs of cell and object all fit into memory."""
    tokens = scores.shape[1]
    of_objects = scores.gather(2, targets.labels.clamp_min(0)[:, None].expand(-1, tokens, -1))  # (B, N, G)
    alignment, fit = _alignment(of_objects, boxes, targets.boxes)
    fits = _candidates(anchors, targets.boxes * image_size.repeat(2), cell_sizes, image_size) & targets.valid[:, None]
    alignment = (alignment + 1e-9) * fits
    best, cells = alignment.topk(min(CANDIDATES, tokens), dim=1)  # (B, CANDIDATES, G)
    kept = torch.zeros_like(alignment).scatter_(1, cells, best)
    strength, owner = kept.max(2)  # (B, N)
    positive = strength > 0
    share = strength / kept.amax(1).clamp_min(1e-9).gather(1, owner)
    best_fit = torch.where(kept > 0, fit, 0.0).amax(1).gather(1, owner)
    labels = targets.labels.gather(1, owner).masked_fill(~positive, -1)
    quality = (share * best_fit).clamp(0, 1).masked_fill(~positive, 0)
    return labels, targets.boxes.gather(1, owner[..., None].expand(-1, -1, 4)), quality


def _alignment(class_scores: Tensor, boxes: Tensor, true_boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Score^0.5 * overlap^3 and the overlap, each (B, N, G); GIoU keeps tiny boxes comparable before they meet."""
    iou, giou = overlaps(to_xyxy(boxes)[:, :, None], to_xyxy(true_boxes)[:, None])
    return class_scores**0.5 * ((giou + 1) / 2) ** 3, ((iou + giou + 1) / 3).clamp(0, 1)


def _candidates(anchors: Tensor, true_boxes_px: Tensor, cell_sizes: Tensor, image_size: Tensor) -> Tensor:
    """(B, N, G), true for cells inside an object (or within one cell of its centre) on a level that fits its size."""
    distance = (anchors[:, None, :2] * image_size - true_boxes_px[:, None, :, :2]).abs()  # (B, N, G, 2)
    reach = torch.maximum(0.45 * true_boxes_px[:, None, :, 2:], cell_sizes[:, None, None])
    fits = true_boxes_px[:, None, :, 2:].amax(-1) <= CELLS_PER_BOX * cell_sizes[:, None]
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
