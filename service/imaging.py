"""Image intake: from untrusted bytes to an 8-bit RGB picture as a person sees it.

The real type comes from the first bytes, never from a name or header. Size limits are checked on the
image's own header, before any pixel is decoded. Nothing is written to disk and nothing is fetched.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, UnidentifiedImageError

from service.errors import OutOfMemoryError, PictureTooLargeError, UndecodableImageError, UnsupportedTypeError

SUPPORTED = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "GIF")
_ORIENTATION_TAG = 0x0112
_TILE_WIDTH_TAG, _TILE_LENGTH_TAG = 322, 323
_BLOCK_PIXELS = 1 << 18
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Picture:
    """A decoded picture: mode RGB, orientation applied, with remarks for the caller."""

    image: Image.Image
    notes: tuple[str, ...]


def sniff(data: bytes) -> str:
    """Name the Pillow format of the bytes.

    Raises:
        UndecodableImageError: no bytes at all.
        UnsupportedTypeError: not one of the types taken, whatever the request called it.
    """
    if not data:
        raise UndecodableImageError("the image is empty (0 bytes)")
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return "TIFF"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    raise UnsupportedTypeError(f"the content is not one of {', '.join(SUPPORTED)}; it begins with {data[:8]!r}")


def decode_picture(data: bytes, max_pixels: int, background: int = 0) -> Picture:
    """Decode untrusted bytes.

    Args:
        max_pixels: gate on width * height, applied to the header.
        background: grey level that shows through transparent pixels and stands for NaN: both mean "no data".
    Raises:
        UndecodableImageError, UnsupportedTypeError, PictureTooLargeError, OutOfMemoryError.
    """
    kind = sniff(data)
    try:
        image = Image.open(BytesIO(data), formats=[kind])
        _check_size(image, max_pixels)
        notes = [_frames_note(image, kind)]
        image.load()
        upright = _apply_orientation(image)
        picture, depth_note = _to_rgb(upright, background)
    except (PictureTooLargeError, UndecodableImageError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureTooLargeError(
            f"the image claims to have more than {max_pixels:,} px, the limit (HEATQUERY_MAX_PIXELS). "
            "Send large scenes to POST /scenes"
        ) from error
    except MemoryError as error:
        raise OutOfMemoryError("not enough memory to decode the picture") from error
    except UnidentifiedImageError as error:  # its own text holds an address in memory
        raise UndecodableImageError(f"{kind} cannot be decoded: its header is damaged or of an unknown kind") from error
    except Exception as error:  # Pillow's readers raise a dozen unrelated types on damaged input
        raise UndecodableImageError(f"{kind} cannot be decoded: {str(error)[:200] or type(error).__name__}") from error
    return Picture(picture, tuple(note for note in (*notes, depth_note) if note))


def silence_pillow_warnings() -> None:
    """Keep Pillow's remarks and errors about damaged or large uploads out of the log, for a whole process.

    What matters of them is said in the answer: our own, stricter gate refuses what is too large.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)


def _check_size(image: ImageFile.ImageFile, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise UndecodableImageError(f"the image claims to be {width} x {height} px")
    if width * height > max_pixels:
        raise PictureTooLargeError(
            f"the image is {width:,} x {height:,} px = {width * height:,} px; the limit is {max_pixels:,} px "
            "(HEATQUERY_MAX_PIXELS). Send large scenes to POST /scenes"
        )
    tags = getattr(image, "tag_v2", {})
    tile = int(tags.get(_TILE_WIDTH_TAG, 0)) * int(tags.get(_TILE_LENGTH_TAG, 0))
    if tile > max_pixels:  # a small TIFF may still ask for one giant tile, which is decoded whole
        raise PictureTooLargeError(
            f"one TIFF tile has {tile:,} px; the limit is {max_pixels:,} px (HEATQUERY_MAX_PIXELS)"
        )


def _frames_note(image: ImageFile.ImageFile, kind: str) -> str:
    if getattr(image, "is_animated", False):
        return f"this {kind} holds several pictures; the first one was used"
    return ""


def _apply_orientation(image: Image.Image) -> Image.Image:
    """Turn the picture as its EXIF says. Pillow has already turned a TIFF while loading it."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF beside sound pixels: show them as stored
        return image
    method = _TRANSPOSE.get(orientation)
    return image if method is None else image.transpose(method)


def _to_rgb(image: Image.Image, background: int) -> tuple[Image.Image, str]:
    """Bring any Pillow mode to 8-bit RGB; returns it with a note where values were rescaled."""
    mode = image.mode
    if mode.startswith("I") or mode == "F":
        return _deep_grey_to_rgb(image, background)
    if mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        backdrop = Image.new("RGB", rgba.size, (background, background, background))
        backdrop.paste(rgba, mask=rgba.getchannel("A"))
        note = "transparent parts are treated as no data" if rgba.getchannel("A").getextrema() != (255, 255) else ""
        return backdrop, note
    return (image if mode == "RGB" else image.convert("RGB")), ""


def _deep_grey_to_rgb(image: Image.Image, background: int) -> tuple[Image.Image, str]:
    """Map integers or floats to 0..255, keeping their proportions; block by block, as such pictures are large."""
    to_8_bit, note = _float_scale(image, background) if image.mode == "F" else _integer_scale(image)
    rgb = Image.new("RGB", image.size)
    for left, top, values in _blocks(image):
        rgb.paste(Image.fromarray(to_8_bit(values)), (left, top))
    return rgb, note


def _blocks(image: Image.Image) -> Iterator[tuple[int, int, NDArray[np.generic]]]:
    """Left, top and (h, w) values of parts of the picture, none larger than _BLOCK_PIXELS."""
    width = min(image.width, _BLOCK_PIXELS)
    height = _BLOCK_PIXELS // width
    for top in range(0, image.height, height):
        for left in range(0, image.width, width):
            right, bottom = min(left + width, image.width), min(top + height, image.height)
            yield left, top, np.asarray(image.crop((left, top, right, bottom)))


To8Bit = Callable[[NDArray[np.generic]], NDArray[np.uint8]]


def _integer_scale(image: Image.Image) -> tuple[To8Bit, str]:
    """Integers lose the low bits of the smallest depth that holds the brightest value.

    So 11- and 12-bit data stored in 16 bits do not come out black.
    """
    brightest = max(int(values.max()) for _, _, values in _blocks(image))
    bits = max(8, max(0, brightest).bit_length())
    note = f"{bits}-bit grey values were reduced to 8 bits" if bits > 8 else ""
    return lambda values: (np.maximum(values, 0) >> (bits - 8)).astype(np.uint8), note


def _float_scale(image: Image.Image, background: int) -> tuple[To8Bit, str]:
    """Floats are taken as 0..1 or 0..255 where they fit, else stretched from their own minimum to their maximum.

    NaN and infinities are no data.

    Raises:
        UndecodableImageError: there is nothing else.
    """
    low, high = np.inf, -np.inf
    for _, _, values in _blocks(image):
        known = values[np.isfinite(values)]
        if known.size:
            low, high = min(low, float(known.min())), max(high, float(known.max()))
    if low > high:
        raise UndecodableImageError("no pixel of the float image is a finite number")
    if low >= 0 and high <= 255:
        low, high = 0.0, 1.0 if high <= 1 else 255.0
    factor = 255.0 / (high - low) if high > low else 0.0

    def to_8_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
        known = np.isfinite(values)
        scaled = (np.where(known, values, low).astype(np.float64) - low) * factor
        return np.where(known, np.rint(scaled), background).astype(np.uint8)

    return to_8_bit, f"float values from {low:g} to {high:g} were mapped to 8 bits"
