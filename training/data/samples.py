"""One picture with its boxes, and a batch of them.

B batch, G boxes of the fullest picture, M boxes of one picture, H W picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Sample:
    """A picture and the objects in it."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    boxes: NDArray[np.float32]
    """(M, 4), xyxy in pixels of this picture."""
    labels: NDArray[np.int64]
    """(M,), index into the classes."""
    image_id: int


@dataclass
class Targets:
    """The boxes of a batch, padded to the fullest picture; G is at least 1."""

    boxes: Tensor
    """(B, G, 4), float32, cxcywh in fractions of the picture; 0.5 where padded, so that logs stay finite."""
    labels: Tensor
    """(B, G), int64, -1 where padded."""

    @property
    def valid(self) -> Tensor:
        """(B, G), True where there is a box."""
        return self.labels >= 0

    @property
    def counts(self) -> Tensor:
        """(B,), int64, boxes per picture."""
        return self.valid.sum(dim=1)

    def to(self, device: torch.device | str) -> "Targets":
        """The same targets on another device."""
        return Targets(self.boxes.to(device, non_blocking=True), self.labels.to(device, non_blocking=True))


def collate(samples: Sequence[Sample]) -> tuple[Tensor, Targets]:
    """Stack pictures into uint8 (B, 3, H, W) and pad their boxes. Raises ValueError for unequal sizes."""
    height, width = samples[0].image.shape[:2]
    most = max(1, *(len(sample.labels) for sample in samples))
    boxes = torch.full((len(samples), most, 4), 0.5)
    labels = torch.full((len(samples), most), -1, dtype=torch.int64)
    side = np.array([width, height], dtype=np.float32)
    for row, sample in enumerate(samples):
        count = len(sample.labels)
        low, high = sample.boxes[:, :2], sample.boxes[:, 2:]
        cxcywh = np.concatenate([(low + high) / 2 / side, (high - low) / side], axis=1)  # (M, 4)
        boxes[row, :count] = torch.from_numpy(cxcywh)
        labels[row, :count] = torch.from_numpy(sample.labels)
    images = np.stack([sample.image for sample in samples])  # (B, H, W, 3)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), Targets(boxes, labels)
