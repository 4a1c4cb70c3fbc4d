"""Which proposals become queries: as many as the density asks for (D3Q), made from hot cells (HIDQ of HMPE)."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.boxes import anchors, refine
from model.config import DetectorConfig, QueryConfig
from model.layers import MLP, classifier, zero
from model.structures import Encoded, Queries


def query_counts(count: Tensor, config: QueryConfig, at_least: Tensor | None = None) -> Tensor:
    """K of each image: clamp(round(t * count), k_min, k_max) (D3Q, section III-C). No gradient flows through K.

    Args:
        count: (B,), estimated objects.
        config: k_min, k_max, t.
        at_least: (B,), a floor before clamping, such as 1.5 times the true count in training.
    Returns:
        (B,), int64.
    """
    wanted = config.t * count.detach().float()
    if at_least is not None:
        wanted = torch.maximum(wanted, at_least.to(wanted))
    return wanted.round().clamp(config.k_min, config.k_max).long()


class QuerySelection(nn.Module):
    """Scores every memory token, keeps the best K, and refines their anchors to reference boxes."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        width = config.width
        self.anchor_cells = config.anchor_cells
        self.suppress_cold = config.query.suppress_cold
        self.normalise = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.classify = classifier(width, len(config.classes))
        self.regress = MLP(width, width, 4, starts_at_zero=True)
        self.to_content = self.from_heat = self.content_norm = self.table = None
        match config.query.content:
            case "memory":
                self.to_content, self.content_norm = nn.Linear(width, width), nn.LayerNorm(width)
            case "memory+heat":
                self.to_content = nn.Linear(width, width)
                self.from_heat = nn.Linear(width, width)  # W'_Q of HIDQ
                self.content_norm = nn.LayerNorm(width)
                zero(self.from_heat)
            case "heat":
                self.from_heat = nn.Linear(width, width, bias=False)
            case "learned":
                self.table = nn.Embedding(config.query.k_max, width)

    def forward(self, encoded: Encoded, most: int, counts: Tensor) -> Queries:
        """Select queries.

        Args:
            encoded: what the encoder knows.
            most: Q, queries to return for every image; at most N tokens.
            counts: (B,), how many of them are valid for each image.
        Returns:
            Queries, best first. Contents and ranking carry no gradient into the memory; logits and boxes do.
        """
        best = self._ranking(encoded).topk(most, dim=1).indices  # (B, Q)
        chosen = self.normalise(cells(encoded.memory, best))
        anchor_boxes = anchors(encoded.shapes, self.anchor_cells, like=chosen).expand(chosen.shape[0], -1, -1)
        boxes = refine(anchor_boxes.gather(1, best[..., None].expand(-1, -1, 4)), self.regress(chosen))
        valid = torch.arange(most, device=counts.device)[None] < counts[:, None]
        return Queries(self._contents(chosen.detach(), best, encoded), boxes, self.classify(chosen), valid)

    @torch.no_grad()
    def dense_logits(self, level: Tensor) -> Tensor:
        """What `classify` says of every cell of a level, (B, D, h, w) to (B, C, h, w), without gradient.

        The layer norm between two linear layers folds into them: the mean it subtracts into the first, its scale and
        bias into the second. What is left of it is a division of C numbers by one. All stays in convolutions.
        """
        linear, norm = cast(tuple[nn.Linear, nn.LayerNorm], tuple(self.normalise))
        weight, bias = linear.weight - linear.weight.mean(0), linear.bias - linear.bias.mean()
        centred = F.conv2d(level, weight[..., None, None], bias)
        variance = F.conv2d(centred * centred, torch.full_like(weight[:1, :, None, None], 1 / weight.shape[0]))
        logits = F.conv2d(centred, (self.classify.weight * norm.weight)[..., None, None])
        shift = F.linear(norm.bias, self.classify.weight, self.classify.bias)  # (C,)
        return logits * (variance + norm.eps).rsqrt() + shift[:, None, None]

    def _ranking(self, encoded: Encoded) -> Tensor:
        """What the best proposals are best in, (B, N): the class score, lost on cold cells if the config says so."""
        best = torch.cat([self.dense_logits(level).amax(1).flatten(1) for level in encoded.memory], 1)
        if not self.suppress_cold:
            return best
        return best.sigmoid() * torch.cat([level.mask.detach().flatten(1) for level in encoded.heat], 1)

    def _contents(self, chosen: Tensor, best: Tensor, encoded: Encoded) -> Tensor:
        """(B, Q, D): the proposals' own features, the mixed heat at their cells, both, or the first rows of a table."""
        if self.table is not None:
            return self.table.weight[: best.shape[1]].expand(best.shape[0], -1, -1)
        parts = []
        if self.to_content is not None:
            parts.append(self.to_content(chosen))
        if self.from_heat is not None:
            mixed = cells([level.mixed for level in encoded.heat], best)  # (B, Q, 1)
            parts.append(self.from_heat(cells(encoded.heat_embedding, best) * mixed))
        content = sum(parts[1:], parts[0])
        return content if self.content_norm is None else self.content_norm(content)


def cells(levels: list[Tensor], indices: Tensor) -> Tensor:
    """The cells with these places among all of all levels; (B, D, h, w) per level and (B, Q) to (B, Q, D)."""
    flat = torch.cat([level.flatten(2) for level in levels], 2)  # (B, D, N)
    return flat.gather(2, indices[:, None].expand(-1, flat.shape[1], -1)).transpose(1, 2)
