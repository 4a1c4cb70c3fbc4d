"""Multi-scale deformable attention (Deformable DETR, section 4.1) in plain PyTorch that exports."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.boxes import extent


class DeformableAttention(nn.Module):
    """Each query reads a few bilinear samples around its reference box from every level of the memory.

    Offsets scale with the box, but never below a stated number of cells, so that tiny boxes see around them. With
    boxes of no extent and `min_offset_cells` equal to `points`, an offset is a plain number of cells of its level.
    """

    def __init__(
        self, width: int, heads: int, levels: int, points: int, min_offset_cells: float, projects_values: bool
    ) -> None:
        """Build.

        Args:
            projects_values: project the memory before it is sampled. A memory that ends in a 1x1 convolution, which
                serves all layers as value projection, is sampled as it is.
        """
        super().__init__()
        self.heads, self.levels, self.points = heads, levels, points
        self.min_offset_cells = min_offset_cells
        self.to_values = nn.Conv2d(width, width, 1) if projects_values else nn.Identity()
        self.to_offsets = nn.Linear(width, heads * levels * points * 2)
        self.to_weights = nn.Linear(width, heads * levels * points)
        self.to_output = nn.Linear(width, width)
        nn.init.zeros_(self.to_offsets.weight)
        nn.init.zeros_(self.to_weights.weight)
        nn.init.zeros_(self.to_weights.bias)
        with torch.no_grad():
            self.to_offsets.bias.copy_(self._star().flatten())

    def _star(self) -> Tensor:
        """(heads, levels, points, 2): each head looks along its own direction, each point one step further."""
        angle = torch.arange(self.heads) * (2 * math.pi / self.heads)
        direction = torch.stack([angle.cos(), angle.sin()], -1)
        direction = direction / direction.abs().amax(-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        return (direction[:, None, None] * steps[:, None]).expand(-1, self.levels, -1, -1)

    def forward(self, queries: Tensor, reference_boxes: Tensor, memory: list[Tensor]) -> Tensor:
        """Attend.

        Args:
            queries: (B, Q, D), with their position.
            reference_boxes: (B, Q, 4), cxcywh in fractions of the image.
            memory: per level (B, D, h, w).
        Returns:
            (B, Q, D).
        """
        batch, count, _ = queries.shape
        grids = self._grids(queries, reference_boxes, [level.shape[-2:] for level in memory])
        shares = self.to_weights(queries).unflatten(-1, (self.heads, -1)).softmax(-1)  # (B, Q, heads, levels * points)
        shares = shares.permute(0, 2, 3, 1).flatten(0, 1).unflatten(1, (self.levels, 1, self.points))
        mixed = []
        for values, grid, share in zip(memory, grids, shares.unbind(1), strict=True):
            values = self.to_values(values).unflatten(1, (self.heads, -1)).flatten(0, 1)  # (B * heads, D / heads, h, w)
            sampled = F.grid_sample(values, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
            mixed.append((sampled * share).sum(2))  # (B * heads, D / heads, Q)
        return self.to_output(sum(mixed[1:], mixed[0]).reshape(batch, -1, count).transpose(1, 2))  # (B, Q, D)

    def _grids(self, queries: Tensor, boxes: Tensor, sizes: list[torch.Size]) -> tuple[Tensor, ...]:
        """Where to sample, per level (B * heads, points, Q, 2), x and y in -1 to 1.

        Computed for all levels at once with the queries innermost, so that every factor spreads over long rows: rows of
        two numbers keep a runtime busy with everything but arithmetic. `to_offsets` gives (heads, levels, points, 2).
        """
        split = (self.heads, self.levels, self.points, 2)
        weight = self.to_offsets.weight.unflatten(0, split).permute(3, 1, 0, 2, 4).flatten(0, 3)
        bias = self.to_offsets.bias.unflatten(0, split).permute(3, 1, 0, 2).flatten()
        offsets = F.linear(queries, weight, bias).transpose(1, 2).unflatten(1, (2, self.levels, -1))
        centre, size = boxes.transpose(1, 2)[:, :, None].chunk(2, 1)  # (B, 2, 1, Q) each
        least = 2 * self.min_offset_cells / torch.stack([extent(w, h, like=boxes) for h, w in sizes], 1)  # (2, levels)
        reach = torch.maximum(size, least[..., None]) / self.points  # (B, 2, levels, Q)
        grid = (2 * centre - 1)[:, :, :, None] + offsets * reach[:, :, :, None]  # (B, 2, levels, heads * points, Q)
        grid = grid.unflatten(3, (self.heads, self.points)).permute(2, 0, 3, 4, 5, 1)
        return grid.flatten(1, 2).unbind()
