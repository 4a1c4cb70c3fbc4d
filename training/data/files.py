"""Files of pictures: where they are, how they are read and how they fail. Free of torch, which is slow to load."""

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.canvas import fitted_size

UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)
"""What Pillow raises for a picture that is cut short or damaged."""


def read_picture(path: Path, size: int | None) -> NDArray[np.uint8]:
    """Decode as RGB (H, W, 3), with the longest side resized to `size` pixels unless that is None."""
    with Image.open(path) as picture:
        if size is None:
            return np.array(picture.convert("RGB"))
        target = fitted_size(picture.size, size)
        picture.draft("RGB", target)  # a JPEG decodes at 1/2, 1/4 or 1/8 where that still covers the target
        return np.array(picture.convert("RGB").resize(target, Image.Resampling.BILINEAR))


def locate(images: Path, file_name: str) -> Path:
    """The picture's path; `file_name` may or may not start with `images/`. Raises FileNotFoundError."""
    for name in (file_name, file_name.removeprefix("images/")):
        if (path := images / name).is_file():
            return path
    raise FileNotFoundError(f"there is no picture {images / file_name}, which the annotations name")
