"""D3Q's density head: how many objects there are, and where they crowd (D3Q, section III-B)."""

from torch import Tensor, nn

from model.config import DensityConfig
from model.layers import fill_bias

PRIOR_LOGIT = -4.0
"""A sparse start: D3Q begins at the logit of 0.1, which over-counts empty images for long."""


class DensityHead(nn.Module):
    """Two convolutions on the finest memory; the map's sum is the object count."""

    def __init__(self, width: int, config: DensityConfig) -> None:
        super().__init__()
        last = nn.Conv2d(config.hidden, 1, 1)
        fill_bias(last, PRIOR_LOGIT)
        self.layers = nn.Sequential(nn.Conv2d(width, config.hidden, 3, padding=1), nn.ReLU(), last, nn.Sigmoid())

    def forward(self, finest: Tensor) -> Tensor:
        """(B, D, h, w) to (B, 1, h, w), each cell in [0, 1]."""
        return self.layers(finest)
