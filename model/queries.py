"""Which proposals become queries: as many as the density asks for (D3Q), made from hot cells (HIDQ of HMPE)."""

import torch
from torch import Tensor, nn

from model.boxes import anchors, refine
from model.config import DetectorConfig, QueryConfig
from model.layers import MLP, classifier, tokens, zero
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
        memory = torch.cat([tokens(level) for level in encoded.memory], 1)  # (B, N, D)
        features = self.normalise(memory)
        logits = self.classify(features)  # (B, N, C)
        best = self._ranking(logits.detach(), encoded).topk(most, dim=1).indices  # (B, Q)
        chosen = rows(features, best)
        anchor_boxes = anchors(encoded.shapes, self.anchor_cells, like=memory).expand(memory.shape[0], -1, -1)
        boxes = refine(rows(anchor_boxes, best), self.regress(chosen))
        valid = torch.arange(most, device=counts.device)[None] < counts[:, None]
        return Queries(self._contents(chosen.detach(), best, encoded), boxes, rows(logits, best), valid)

    def probabilities(self, level: Tensor) -> Tensor:
        """The proposals' probability of each class at every cell of a level; (B, D, h, w) to (B, C, h, w)."""
        logits = self.classify(self.normalise(tokens(level)))  # (B, h * w, C)
        return logits.sigmoid().transpose(1, 2).unflatten(2, level.shape[2:])

    def _ranking(self, logits: Tensor, encoded: Encoded) -> Tensor:
        """What the best proposals are best in, (B, N): the class score, lost on cold cells if the config says so."""
        best = logits.amax(-1)
        if not self.suppress_cold:
            return best
        mask = torch.cat([tokens(level.mask) for level in encoded.heat], 1)  # (B, N, 1)
        return best.sigmoid() * mask.detach()[..., 0]

    def _contents(self, chosen: Tensor, best: Tensor, encoded: Encoded) -> Tensor:
        """(B, Q, D): the proposals' own features, the mixed heat at their cells, both, or the first rows of a table."""
        if self.table is not None:
            return self.table.weight[: best.shape[1]].expand(best.shape[0], -1, -1)
        parts = []
        if self.to_content is not None:
            parts.append(self.to_content(chosen))
        if self.from_heat is not None:
            mixed_heat = torch.cat([tokens(level) for level in encoded.heat_embedding], 1)
            parts.append(self.from_heat(rows(mixed_heat, best)))
        content = sum(parts[1:], parts[0])
        return content if self.content_norm is None else self.content_norm(content)


def rows(table: Tensor, indices: Tensor) -> Tensor:
    """(B, N, D) and (B, Q) to (B, Q, D)."""
    return table.gather(1, indices[..., None].expand(-1, -1, table.shape[-1]))
