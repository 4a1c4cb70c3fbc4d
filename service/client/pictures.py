"""What a caller may hand over as a picture, and how it becomes the bytes of an image file."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.client.problems import HeatqueryError

Picture = str | os.PathLike[str] | bytes | BinaryIO | Image.Image | NDArray[np.uint8]
"""A path, the bytes of an image file, a file opened in binary mode, a Pillow image, or an array.

An array is uint8: (H, W, 3) in the order red, green, blue (OpenCV's is the reverse), or grey (H, W).
A Pillow image and an array are sent as they lie in memory: boxes come back in their own rows and columns.
"""
_PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")


class PictureError(HeatqueryError):
    """The picture handed over is of no kind that can be sent."""


def read_picture(picture: Picture) -> bytes:
    """The bytes of an image file. They are read once, so that a repeated call sends the same.

    Raises:
        PictureError: of no kind that `Picture` names.
        OSError: the file cannot be read.
    """
    match picture:
        case bytes():
            return picture
        case str() | os.PathLike():
            return Path(picture).read_bytes()
        case Image.Image():
            return _encode(picture if picture.mode in _PNG_MODES else picture.convert("RGB"))
        case np.ndarray():
            return _encode(Image.fromarray(_checked(picture)))
    data = picture.read()
    if not isinstance(data, bytes):
        raise PictureError(f"the file gives {type(data).__name__}, not bytes; open it in binary mode ('rb')")
    return data


def _checked(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise PictureError(
            f"the array is {array.dtype} {array.shape}; send uint8, (height, width, 3) in RGB or (height, width) grey"
        )
    return array


def _encode(image: Image.Image) -> bytes:
    """A PNG without metadata: an EXIF orientation would turn the picture away from what the caller holds."""
    buffer = BytesIO()
    image.save(buffer, "PNG", compress_level=1, exif=b"")
    return buffer.getvalue()
