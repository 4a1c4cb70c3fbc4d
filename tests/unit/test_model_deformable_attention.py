"""Deformable attention against a plain loop."""

import math

import torch
from torch import Tensor

from model.deformable_attention import DeformableAttention


def bilinear(values: Tensor, x: float, y: float) -> Tensor:
    """Sample (D, h, w) at a point in cells, whose centres are at 0.5, 1.5, ...; zero outside. Gives (D,)."""
    column, row = x - 0.5, y - 0.5
    left, top = math.floor(column), math.floor(row)
    result = torch.zeros(values.shape[0])
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < values.shape[1] and 0 <= j < values.shape[2]:
            result += (1 - abs(row - i)) * (1 - abs(column - j)) * values[:, i, j]
    return result


def slow_attention(layer: DeformableAttention, queries: Tensor, boxes: Tensor, memory: list[Tensor]) -> Tensor:
    """Deformable DETR, section 4.1, query by query, head by head, level by level, point by point."""
    batch, count, width = queries.shape
    heads, levels, points, share = layer.heads, layer.levels, layer.points, width // layer.heads
    mixed = torch.zeros(batch, count, width)
    for b in range(batch):
        for q in range(count):
            offsets = layer.to_offsets(queries[b, q]).view(heads, levels, points, 2)
            weights = layer.to_weights(queries[b, q]).view(heads, -1).softmax(-1).view(heads, levels, points)
            cx, cy, box_w, box_h = boxes[b, q].tolist()
            for head in range(heads):
                part = slice(head * share, (head + 1) * share)
                for level, values in enumerate(memory):
                    h, w = values.shape[2:]
                    least = 2 * layer.min_offset_cells
                    reach_x, reach_y = max(box_w, least / w), max(box_h, least / h)
                    for point in range(points):
                        dx, dy = (offsets[head, level, point] * 0.5 / points).tolist()
                        sample = bilinear(values[b, part], (cx + dx * reach_x) * w, (cy + dy * reach_y) * h)
                        mixed[b, q, part] += weights[head, level, point] * sample
    return layer.to_output(mixed)


@torch.no_grad()
def test_deformable_attention_is_what_a_plain_loop_gives() -> None:
    torch.manual_seed(0)
    layer = DeformableAttention(8, heads=2, levels=2, points=3, min_offset_cells=1.0, projects_values=False)
    for parameter in layer.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    memory = [torch.randn(2, 8, 6, 10), torch.randn(2, 8, 3, 5)]
    boxes = torch.rand(2, 3, 4) * torch.tensor([1.0, 1.0, 0.6, 0.6])
    boxes[:, 0, 2:] = 0.001  # far below a cell
    queries = torch.randn(2, 3, 8)
    expected = slow_attention(layer, queries, boxes, memory)
    torch.testing.assert_close(layer(queries, boxes, memory), expected, rtol=1e-4, atol=1e-5)


def test_a_box_below_a_cell_still_looks_one_cell_around() -> None:
    layer = DeformableAttention(8, heads=8, levels=1, points=4, min_offset_cells=1.0, projects_values=False)
    memory = torch.randn(1, 8, 9, 9).requires_grad_()
    layer(torch.zeros(1, 1, 8), torch.tensor([[[0.5, 0.5, 1e-4, 1e-4]]]), [memory]).sum().backward()
    assert memory.grad is not None
    seen = memory.grad.abs().sum((0, 1)) > 0
    assert seen[3:6, 3:6].all()
    assert seen.sum() == 9
