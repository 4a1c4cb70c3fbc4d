"""Where a picture lies on the square canvas that the model sees, and the way back; as in the service."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PAD_VALUE = 114
"""Grey of the canvas where there is no picture."""


def fitted_size(stored: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) with the longest side brought to `longest` pixels, at least 1 each."""
    scale = longest / max(stored)
    return max(1, round(stored[0] * scale)), max(1, round(stored[1] * scale))


def letterbox(image: NDArray[np.uint8], size: int) -> tuple[NDArray[np.uint8], tuple[float, float]]:
    """Resize a picture (H, W, 3) to fit a canvas, at whose top-left corner it is put.

    Returns:
        The canvas (size, size, 3), and (scale_x, scale_y): canvas pixels per pixel of the picture.
    """
    height, width = image.shape[:2]
    new_width, new_height = fitted_size((width, height), size)
    canvas = np.full((size, size, 3), PAD_VALUE, dtype=np.uint8)
    picture = Image.fromarray(image).resize((new_width, new_height), Image.Resampling.BILINEAR)
    canvas[:new_height, :new_width] = np.asarray(picture)
    return canvas, (new_width / width, new_height / height)


def boxes_to_picture(
    boxes: NDArray[np.float32], scale: tuple[float, float], picture: tuple[int, int]
) -> NDArray[np.float32]:
    """Bring boxes (M, 4), xyxy, from the canvas to a picture of (width, height) pixels; clip them to it."""
    limit = np.array([*picture, *picture], dtype=np.float32)
    return np.clip(boxes / np.array([*scale, *scale], dtype=np.float32), 0, limit).astype(np.float32)
