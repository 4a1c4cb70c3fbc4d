"""One-to-one matching of queries to objects (DETR, Carion et al., 2020)."""

from dataclasses import dataclass
from typing import Literal

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.boxes import overlaps, to_xyxy
from model.decoder import class_scores
from training.config import MatcherConfig
from training.data.samples import Targets
from training.losses import l1, tiny_l1


@dataclass(frozen=True)
class Matches:
    """Three index tensors of equal length: query `query[m]` of image `image[m]` answers for its object `target[m]`."""

    image: Tensor
    query: Tensor
    target: Tensor


class HungarianMatcher:
    """Finds the cheapest assignment, by the class, the box sides and GIoU."""

    def __init__(self, weights: MatcherConfig) -> None:
        self.weights = weights

    @torch.no_grad()
    def __call__(
        self,
        logits: Tensor,
        boxes: Tensor,
        valid: Tensor,
        targets: Targets,
        classification: Literal["sigmoid", "softmax"] = "sigmoid",
    ) -> Matches:
        """Match.

        Args:
            logits: (B, Q, C), or (B, Q, C + 1) for `softmax`.
            boxes: (B, Q, 4), cxcywh in fractions of the image.
            valid: (B, Q); an invalid query is never matched. The valid ones come first.
            targets: the ground truth; at most as many objects as valid queries get one each.
            classification: how the logits are read, as in `DecoderConfig`.
        """
        costs = self._costs(logits.float(), boxes.float(), targets, classification)
        costs = costs.nan_to_num(1e4, 1e4, 1e4).cpu().numpy()
        images, queries, objects = [], [], []
        for i, (k, count) in enumerate(zip(valid.sum(1).tolist(), targets.counts.tolist(), strict=True)):
            rows, columns = linear_sum_assignment(costs[i, :k, :count])
            images.append(torch.full((len(rows),), i))
            queries.append(torch.as_tensor(rows))
            objects.append(torch.as_tensor(columns))
        return Matches(*(torch.cat(parts).to(logits.device) for parts in (images, queries, objects)))

    def _costs(
        self, logits: Tensor, boxes: Tensor, targets: Targets, classification: Literal["sigmoid", "softmax"]
    ) -> Tensor:
        """(B, Q, G)."""
        scores = class_scores(logits, classification)
        match classification:
            case "sigmoid":
                cost = focal_cost(scores)
            case "softmax":
                cost = -scores
        labels = targets.labels.clamp_min(0)[:, None, :].expand(-1, logits.shape[1], -1)  # (B, Q, G)
        _, giou = overlaps(to_xyxy(boxes)[:, :, None], to_xyxy(targets.boxes)[:, None])
        total = self.weights.classification * cost.gather(2, labels) - self.weights.giou * giou
        for weight, distance in ((self.weights.tiny_l1, tiny_l1), (self.weights.l1, l1)):
            if weight > 0:  # each of these is as large as all pairs of a crowd
                total = total + weight * distance(boxes[:, :, None], targets.boxes[:, None])
        return total


def focal_cost(scores: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """What a query costs as a positive of a class, less what it costs as a negative (Deformable DETR); same shape."""
    positive = alpha * (1 - scores) ** gamma * -(scores + 1e-8).log()
    negative = (1 - alpha) * scores**gamma * -(1 - scores + 1e-8).log()
    return positive - negative
