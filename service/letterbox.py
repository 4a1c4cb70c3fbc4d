"""Where a picture lies on the square canvas that the model sees, and the way back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Letterbox:
    """A picture of `width` x `height` px, resized to `new_width` x `new_height` in the canvas's first corner.

    Positions count from the top-left *corner* of the first pixel, so the centre of pixel 0 is at 0.5.
    """

    width: int
    height: int
    new_width: int
    new_height: int
    size: int

    @classmethod
    def fit(cls, width: int, height: int, size: int) -> "Letterbox":
        """Scale the longer side to `size`; no side falls below one pixel."""
        scale = size / max(width, height)
        return cls(width, height, max(1, round(width * scale)), max(1, round(height * scale)), size)

    @property
    def scale_x(self) -> float:
        """Canvas pixels per picture pixel along x."""
        return self.new_width / self.width

    @property
    def scale_y(self) -> float:
        """Canvas pixels per picture pixel along y."""
        return self.new_height / self.height

    def draw(self, picture: Image.Image, pad_value: int, multiple_of: int | None = None) -> NDArray[np.uint8]:
        """Lay an RGB picture on the canvas; returns (3, H, W).

        Args:
            multiple_of: leaves away the padding but for what makes each side a multiple of this; None: H and W are
                `size`.
        """
        content = picture.resize((self.new_width, self.new_height), Image.Resampling.BILINEAR)
        height, width = self.size, self.size
        if multiple_of is not None:
            height, width = (-(-side // multiple_of) * multiple_of for side in (self.new_height, self.new_width))
        canvas = np.full((height, width, 3), pad_value, dtype=np.uint8)
        canvas[: self.new_height, : self.new_width] = np.asarray(content)
        return np.ascontiguousarray(canvas.transpose(2, 0, 1))  # (H, W, 3) -> (3, H, W)

    def boxes_to_picture(self, boxes_xyxy: FloatArray) -> FloatArray:
        """Map (M, 4) canvas boxes to picture pixels, clipped to the picture."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], dtype=np.float32)
        limit = np.array([self.width, self.height, self.width, self.height], dtype=np.float32)
        return np.clip(boxes_xyxy / scale, 0, limit).astype(np.float32)
