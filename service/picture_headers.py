"""What the headers of PNG and JPEG say that GDAL does not: the way up, whether all is there, and how it is decoded.

Both are read by their parts' lengths, so a header of any size costs a few bytes of memory.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from PIL import Image

from service.errors import UndecodableImageError

_ORIENTATION_TAG = 0x0112
_MAX_EXIF_BYTES = 1 << 20
_PNG_SIGNATURE_BYTES, _PNG_INTERLACE_AT = 8, 12
_APP1, _START_OF_SCAN, _END = 0xE1, 0xDA, 0xD9
_PROGRESSIVE = {0xC2, 0xC6, 0xCA, 0xCE}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


@dataclass(frozen=True)
class PictureHeader:
    """What matters for reading in parts.

    Attributes:
        orientation: as EXIF numbers it.
        whole: interlaced or progressive, so that no part can be decoded before the whole file was.
    """

    orientation: int = 1
    whole: bool = False


def read_png_header(file: BinaryIO) -> PictureHeader:
    """Walk through the chunks of a PNG, which must reach its end.

    Raises:
        UndecodableImageError: the file is cut off; decoders fill up what is missing and do not always say so.
    """
    orientation, interlaced, complete = 1, False, False
    for kind, size in _chunks(file):
        if kind == b"IHDR":
            interlaced = file.read(size)[_PNG_INTERLACE_AT:] == b"\x01"
        elif kind == b"eXIf" and size <= _MAX_EXIF_BYTES:
            orientation = _orientation_of(file.read(size))
        elif kind == b"IEND":
            complete = True
            break
    if not complete:
        raise UndecodableImageError("the PNG cannot be decoded: it is cut off before its end")
    return PictureHeader(orientation, interlaced)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and length of each chunk, with the file at its first byte."""
    at = _PNG_SIGNATURE_BYTES
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head)
        yield kind, size
        at += size + 12


def read_jpeg_header(file: BinaryIO) -> PictureHeader:
    """Walk through the segments of a JPEG up to its pixels."""
    orientation, progressive = 1, False
    for marker, size in _segments(file):
        if marker == _APP1 and orientation == 1:
            data = file.read(size)
            orientation = _orientation_of(data) if data.startswith(b"Exif\0\0") else 1
        progressive = progressive or marker in _PROGRESSIVE
    return PictureHeader(orientation, progressive)


def _segments(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Marker and length of each segment, with the file at its first byte."""
    at = 2
    while True:
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] in (_START_OF_SCAN, _END):
            return
        if head[1] == 0xFF:  # a filling byte
            at += 1
        elif head[1] in _WITHOUT_LENGTH:
            at += 2
        else:
            size = struct.unpack(">H", head[2:])[0]
            yield head[1], size - 2
            at += 2 + max(2, size)


def _orientation_of(data: bytes) -> int:
    exif = Image.Exif()
    try:
        exif.load(data)
        return int(exif.get(_ORIENTATION_TAG, 1))
    except Exception:  # damaged EXIF beside sound pixels raises a dozen unrelated types: show them as stored
        return 1
