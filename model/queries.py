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
        width, num_classes = config.width, len(config.classes)
        self.anchor_cells = config.anchor_cells
        self.normalise = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        self.classify = classifier(width, num_classes)
        self.regress = MLP(width, width, 4, starts_at_zero=True)
        self.to_content = nn.Linear(width, width)
        self.from_heat = nn.Linear(width, width) if config.query.hidq else None  # W'_Q of HIDQ
        self.content_norm = nn.LayerNorm(width)
        if self.from_heat is not None:
            zero(self.from_heat)

    def forward(self, encoded: Encoded, most: int, counts: Tensor) -> Queries:
        """Select queries.

        Args:
            encoded: what the encoder knows.
            most: Q, queries to return for every image; at most N tokens.
            counts: (B,), how many of them are valid for each image.
        Returns:
            Queries sorted by score. Contents and ranking carry no gradient into the memory; logits and boxes do.
        """
        memory = torch.cat([tokens(level) for level in encoded.memory], 1)  # (B, N, D)
        features = self.normalise(memory)
        logits = self.classify(features)  # (B, N, C)
        best = logits.detach().amax(-1).topk(most, dim=1).indices  # (B, Q)
        chosen = rows(features, best)
        anchor_boxes = anchors(encoded.shapes, self.anchor_cells, like=memory).expand(memory.shape[0], -1, -1)
        boxes = refine(rows(anchor_boxes, best), self.regress(chosen))
        content = self.to_content(chosen.detach())
        if self.from_heat is not None:
            mixed_heat = torch.cat([tokens(level) for level in encoded.heat_embedding], 1)
            content = content + self.from_heat(rows(mixed_heat, best))
        valid = torch.arange(most, device=counts.device)[None] < counts[:, None]
        return Queries(self.content_norm(content), boxes, rows(logits, best), valid)


def rows(table: Tensor, indices: Tensor) -> Tensor:
    """(B, N, D) and (B, Q) to (B, Q, D)."""
    return table.gather(1, indices[..., None].expand(-1, -1, table.shape[-1]))
