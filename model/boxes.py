"""Box formats, overlaps, anchors, and how a residual moves a box."""

import torch
from torch import Tensor

MAX_LOG_SCALE = 3.0
"""A residual scales a side by at most exp(3), about 20."""


def to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """(..., 4) centre and size to corners, same units."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)


def refine(reference_boxes: Tensor, deltas: Tensor) -> Tensor:
    """Move boxes relative to their own size: half a side per unit of shift, a factor exp(d) per unit of scale.

    Args:
        reference_boxes: (..., 4), cxcywh in fractions of the image.
        deltas: (..., 4), unbounded; the scale part is clamped to +-MAX_LOG_SCALE.
    Returns:
        (..., 4), cxcywh. Boxes of 5 px learn as fast as boxes of 500: logits of coordinates do not.
    """
    size = reference_boxes[..., 2:]
    centre = reference_boxes[..., :2] + 0.5 * deltas[..., :2] * size
    return torch.cat([centre, size * deltas[..., 2:].clamp(-MAX_LOG_SCALE, MAX_LOG_SCALE).exp()], -1)


def anchors(shapes: list[tuple[int, int]], cells: float, like: Tensor) -> Tensor:
    """One square box per token, centred on its cell, `cells` cells wide.

    Args:
        shapes: (h, w) per level.
        cells: side of the box in cells of its level.
        like: tensor that gives device and dtype.
    Returns:
        (1, N, 4), cxcywh in fractions of the image, levels one after the other, row by row.
    """
    levels = []
    for h, w in shapes:
        y = (torch.arange(h, device=like.device, dtype=like.dtype) + 0.5) / h
        x = (torch.arange(w, device=like.device, dtype=like.dtype) + 0.5) / w
        centre = torch.stack([x[None, :].expand(h, w), y[:, None].expand(h, w)], -1)  # (h, w, 2)
        size = torch.stack([torch.full_like(centre[..., 0], cells / w), torch.full_like(centre[..., 1], cells / h)], -1)
        levels.append(torch.cat([centre, size], -1).reshape(h * w, 4))
    return torch.cat(levels)[None]


def extent(w: int, h: int, like: Tensor) -> Tensor:
    """(2,), width and height as numbers that keep following the picture's size in an exported graph."""
    return torch.stack([torch.scalar_tensor(side, dtype=like.dtype, device=like.device) for side in (w, h)])


def areas(boxes_xyxy: Tensor) -> Tensor:
    """(..., 4) to (...), zero for boxes turned inside out."""
    return _product(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2])


def overlaps(first_xyxy: Tensor, second_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    """IoU and generalised IoU (Rezatofighi et al., 2019) of boxes broadcast against each other.

    Args:
        first_xyxy, second_xyxy: (..., 4); pass (M, 1, 4) and (1, G, 4) for all pairs.
    Returns:
        IoU in [0, 1] and GIoU in [-1, 1], of the broadcast shape without the 4.
    """
    low = torch.maximum(first_xyxy[..., :2], second_xyxy[..., :2])
    high = torch.minimum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    shared = _product(high - low)
    union = areas(first_xyxy) + areas(second_xyxy) - shared + 1e-9
    outer_low = torch.minimum(first_xyxy[..., :2], second_xyxy[..., :2])
    outer_high = torch.maximum(first_xyxy[..., 2:], second_xyxy[..., 2:])
    hull = _product(outer_high - outer_low) + 1e-9
    iou = shared / union
    return iou, iou - (hull - union) / hull


def _product(sides: Tensor) -> Tensor:
    """(..., 2) to (...), width times height, none below zero; the gradient of `prod` would take a dozen kernels."""
    width, height = sides.clamp_min(0).unbind(-1)
    return width * height
