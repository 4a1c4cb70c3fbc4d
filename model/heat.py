"""HMPE, the HeatMap Position Embedding (section 1): where a dense head is excited, and what that adds to a level."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import HeatConfig
from model.layers import PRIOR_LOGIT, fill_bias
from model.structures import LevelHeat

SIGMAS = 3.0
"""Deviation from the median, in standard deviations, at which the Huber loss of `deviation_heat` turns linear."""
SMALLEST_SIGMA = 0.01
"""In residuals: cells that agree better than this do not make a small difference hot."""
SIGMA_PER_MAD = 1.4826
"""Standard deviation of a normal distribution in median absolute deviations."""
PARTS = 10_000
"""A share of cells is counted in whole parts of this, so that every runtime rounds it to the same number of cells."""


class HeatEmbedding(nn.Module):
    """A dense 1x1 head on one level, the heat maps read from it, and their embeddings E_class and E_bbox.

    The maps are detached: heat steers, but only the dense head's own loss shapes it.
    """

    def __init__(self, config: HeatConfig, width: int, num_classes: int, embeds: bool = True) -> None:
        """Build; `embeds` false leaves the embeddings out, where nothing would take them."""
        super().__init__()
        self.config = config
        self.classify = nn.Conv2d(width, num_classes, 1)
        self.regress = nn.Conv2d(width, 4, 1)
        self.balance = nn.Parameter(torch.zeros(1))  # lambda of formula 5, before its sigmoid
        self.embed_class = nn.Conv2d(width + 1, width // 2, 1) if embeds else None
        self.embed_box = nn.Conv2d(width + 1, width // 2, 1) if embeds else None
        nn.init.normal_(self.classify.weight, std=0.05)
        fill_bias(self.classify, PRIOR_LOGIT)
        nn.init.normal_(self.regress.weight, std=0.01)
        fill_bias(self.regress, 0.0)

    def forward(self, level: Tensor) -> tuple[LevelHeat, Tensor | None]:
        """Read the heat of a level.

        Args:
            level: (B, D, h, w).
        Returns:
            The heat, and the embedding [E_class || E_bbox] (B, D, h, w), None where it is left out.
        """
        logits, deltas = self.classify(level), self.regress(level)
        seen, seen_logits, seen_deltas = (x.detach().float() for x in (level, logits, deltas))
        by_class, of_class = self._class_heat(seen, seen_logits)
        of_box = self._box_heat(seen, seen_deltas, of_class)
        share = self.balance.sigmoid()
        mixed = share * of_class + (1 - share) * of_box
        heat = LevelHeat(by_class, of_class, of_box, mixed, self._mask(mixed), logits, deltas)
        return heat, self._embedding(level, of_class.to(level.dtype), of_box.to(level.dtype))

    def _class_heat(self, level: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        match self.config.source:
            case "probability":
                by_class = logits.sigmoid()
                return by_class, by_class.sum(1, keepdim=True).clamp_max(1)
            case "cam":
                by_class = normalised(class_activation(level, head_weight(self.classify), logits))
                return by_class, by_class.amax(1, keepdim=True)

    def _box_heat(self, level: Tensor, deltas: Tensor, of_class: Tensor) -> Tensor:
        match self.config.box:
            case "residual":
                return residual_heat(deltas)
            case "deviation":
                return deviation_heat(deltas)
            case "cam":
                return normalised(box_activation(level, head_weight(self.regress), deltas))
            case "off":
                return of_class

    def _mask(self, mixed: Tensor) -> Tensor:
        config = self.config
        threshold = hottest_share(mixed, config.tau) if config.mask == "quantile" else config.tau
        soft = ((mixed - threshold) / config.temperature).sigmoid()
        if config.mask == "soft":
            return soft
        hard = (mixed > threshold).to(mixed.dtype)
        return hard + soft - soft.detach() if self.training else hard

    def _embedding(self, level: Tensor, of_class: Tensor, of_box: Tensor) -> Tensor | None:
        if self.embed_class is None or self.embed_box is None:
            return None
        # One convolution of the level and one of the two maps: a level with a channel more fits no runtime's blocks.
        layers = (self.embed_class, self.embed_box)
        weight = torch.cat([layer.weight[:, :-1] for layer in layers])  # (D, D, 1, 1)
        bias = torch.cat([layer.bias for layer in layers if layer.bias is not None])
        heat_weight = torch.block_diag(*(layer.weight[:, -1, 0] for layer in layers))[..., None, None]  # (D, 2, 1, 1)
        return F.conv2d(level, weight, bias) + F.conv2d(torch.cat([of_class, of_box], 1), heat_weight)


def head_weight(head: nn.Conv2d) -> Tensor:
    """Weight of a 1x1 head as (outputs, D), without gradient."""
    return head.weight.detach().float().flatten(1)


def exceeded_by(values: Tensor, cells: int) -> Tensor:
    """The value that this many cells of a map exceed, fewer if cells are equal; (B, C, h, w) to (B, C, 1, 1)."""
    return values.flatten(2).topk(cells + 1, dim=-1).values[..., -1][..., None, None]


def hottest_share(heat: Tensor, share: float) -> Tensor:
    """Heat that a share of a map's cells, rounded down, exceeds; (B, 1, h, w) to (B, 1, 1, 1)."""
    return exceeded_by(heat, heat.shape[2] * heat.shape[3] * round(share * PARTS) // PARTS)


def median(values: Tensor) -> Tensor:
    """The (lower) median of each map; (B, C, h, w) to (B, C, 1, 1). Exporters know no other way."""
    return exceeded_by(values, values.shape[2] * values.shape[3] // 2)


def residual_heat(deltas: Tensor) -> Tensor:
    """Box heat without ground truth: how far the dense head moves its anchor, as 1 - exp(-mean Huber).

    Args:
        deltas: (B, 4, h, w).
    Returns:
        (B, 1, h, w) in [0, 1).
    """
    loss = F.smooth_l1_loss(deltas, torch.zeros_like(deltas), reduction="none")
    return 1 - (-loss.mean(1, keepdim=True)).exp()


def deviation_heat(deltas: Tensor) -> Tensor:
    """Box heat as what stands out: `residual_heat` of the residuals against those of most cells of the level.

    An object of about the anchor's size hardly moves its anchor, while background predicts some constant box. So each
    residual is taken from its median over the level, in units of `SIGMAS` standard deviations, which the median
    absolute deviation gives: robust as long as objects cover less than half of the level. A picture does not depend on
    its batch, and training and inference are alike.

    Args:
        deltas: (B, 4, h, w).
    Returns:
        (B, 1, h, w) in [0, 1).
    """
    deviation = deltas - median(deltas)
    sigma = SIGMA_PER_MAD * median(deviation.abs())
    return residual_heat(deviation / (SIGMAS * sigma.clamp_min(SMALLEST_SIGMA)))


def class_activation(level: Tensor, weight: Tensor, logits: Tensor) -> Tensor:
    """Formulas 1 to 3 for y = sigmoid(weight . A + bias), without autograd.

    With s1 = y(1-y), s2 = s1(1-2y), s3 = s1(1-6y+6y^2), the n-th derivative of y by channel k is w_k^n s_n. As s1 > 0,
    relu(w_k s1) = relu(w_k) s1, so beta_k = relu(w_k) (w_k^2 S2 + w_k^3 S3) with S_n the image's sum of s_n s1.

    Args:
        level: A, (B, D, h, w).
        weight: (C, D), of the 1x1 head.
        logits: (B, C, h, w), what the head says of A.
    Returns:
        H_class per class, (B, C, h, w), not negative, not normalised.
    """
    y = logits.sigmoid()
    first = y * (1 - y)
    second = first * (1 - 2 * y)
    third = first * (1 - 6 * y + 6 * y * y)
    second_sum = (second * first).sum((2, 3))[..., None]  # (B, C, 1)
    third_sum = (third * first).sum((2, 3))[..., None]
    beta = weight.relu() * (weight**2 * second_sum + weight**3 * third_sum)  # (B, C, D)
    return torch.einsum("bcd,bdhw->bchw", beta, level).relu()


def box_activation(level: Tensor, weight: Tensor, deltas: Tensor) -> Tensor:
    """Formulas 1 to 3 for y = sum of Huber losses (delta 1) of the predicted residuals; Huber's third derivative is 0.

    Args:
        level: A, (B, D, h, w).
        weight: (4, D), of the 1x1 head.
        deltas: (B, 4, h, w), what the head says of A.
    Returns:
        H_bbox, (B, 1, h, w), not negative, not normalised.
    """
    slope, curvature = deltas.clamp(-1, 1), (deltas.abs() < 1).to(deltas.dtype)
    gradient = torch.einsum("bmhw,md->bdhw", slope, weight)
    alpha = torch.einsum("bmhw,md->bdhw", curvature, weight**2)
    beta = (alpha * gradient.relu()).sum((2, 3))  # (B, D)
    return torch.einsum("bd,bdhw->bhw", beta, level).relu()[:, None]


def normalised(heat: Tensor) -> Tensor:
    """Each map divided by its maximum; (B, C, h, w) to [0, 1], all zero where nothing is hot."""
    return heat / heat.amax((2, 3), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)
