"""One-to-one matching of queries to objects (DETR, Carion et al., 2020)."""

from dataclasses import dataclass

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from model.boxes import overlaps, to_xyxy
from training.config import LossConfig
from training.data.samples import Targets
from training.losses import tiny_l1


@dataclass(frozen=True)
class Matches:
    """Three index tensors of equal length: query `query[m]` of image `image[m]` answers for its object `target[m]`."""

    image: Tensor
    query: Tensor
    target: Tensor


class HungarianMatcher:
    """Finds the cheapest assignment, by focal classification cost, refined L1 and GIoU."""

    def __init__(self, weights: LossConfig) -> None:
        self.weights = weights

    @torch.no_grad()
    def __call__(self, logits: Tensor, boxes: Tensor, valid: Tensor, targets: Targets) -> Matches:
        """Match.

        Args:
            logits: (B, Q, C).
            boxes: (B, Q, 4), cxcywh in fractions of the image.
            valid: (B, Q); an invalid query is never matched. The valid ones come first.
            targets: the ground truth; at most as many objects as valid queries get one each.
        """
        costs = self._costs(logits.float(), boxes.float(), targets).nan_to_num(1e4, 1e4, 1e4).cpu().numpy()
        images, queries, objects = [], [], []
        for i, (k, count) in enumerate(zip(valid.sum(1).tolist(), targets.counts.tolist(), strict=True)):
            rows, columns = linear_sum_assignment(costs[i, :k, :count])
            images.append(torch.full((len(rows),), i))
            queries.append(torch.as_tensor(rows))
            objects.append(torch.as_tensor(columns))
        return Matches(*(torch.cat(parts).to(logits.device) for parts in (images, queries, objects)))

    def _costs(self, logits: Tensor, boxes: Tensor, targets: Targets) -> Tensor:
        """(B, Q, G)."""
        scores = logits.sigmoid()
        labels = targets.labels.clamp_min(0)[:, None, :].expand(-1, logits.shape[1], -1)  # (B, Q, G)
        negative = 0.75 * scores**2 * -(1 - scores + 1e-8).log()
        positive = 0.25 * (1 - scores) ** 2 * -(scores + 1e-8).log()
        classification = 2 * (positive - negative).gather(2, labels)
        _, giou = overlaps(to_xyxy(boxes)[:, :, None], to_xyxy(targets.boxes)[:, None])
        distance = tiny_l1(boxes[:, :, None], targets.boxes[:, None])
        return classification + self.weights.tiny_l1 * distance - self.weights.giou * giou
