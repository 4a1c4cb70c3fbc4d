"""The directories of a TIFF: what each claims about its picture, read before any library acts on the claims.

A directory may ask for one giant tile, or for millions of tiles of nothing; masks and overviews have directories of
their own. Only the few numbers that decide about memory are read here; whether the file is sound is GDAL's to say.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from service.errors import UndecodableImageError

_MAX_DIRECTORIES = 1000
_NEW_SUBFILE_TYPE, _WIDTH, _LENGTH, _BITS, _COMPRESSION, _ORIENTATION, _SAMPLES = 254, 256, 257, 258, 259, 274, 277
_ROWS_PER_STRIP, _PLANAR, _TILE_WIDTH, _TILE_LENGTH = 278, 284, 322, 323
_INTEGER_TYPES = {1: "B", 3: "H", 4: "I", 16: "Q"}
_REDUCED, _MASK = 1, 4
_UNCOMPRESSED, _SEPARATE_PLANES = 1, 2


@dataclass(frozen=True)
class TiffDirectory:
    """What one directory claims.

    Attributes:
        block_width, block_height: of a tile, or of a strip.
        bytes_per_pixel: that a block takes in memory.
        lazy_strips: strips without compression, of which GDAL can read single rows.
        orientation: as EXIF numbers it.
        is_page: a picture of its own, neither an overview nor a mask.
    """

    width: int
    height: int
    block_width: int
    block_height: int
    bytes_per_pixel: int
    lazy_strips: bool
    orientation: int
    is_page: bool

    @property
    def blocks(self) -> int:
        """How many blocks cover the picture, in one plane."""
        return -(-self.width // max(1, self.block_width)) * -(-self.height // max(1, self.block_height))


class _Layout(NamedTuple):
    """How numbers are written: classic TIFF has 32-bit offsets, BigTIFF 64-bit ones."""

    order: str
    offset: str
    entries: str
    entry_bytes: int

    def read(self, file: BinaryIO, code: str) -> int:
        """Read one number at the file's position."""
        data = file.read(struct.calcsize(self.order + code))
        return struct.unpack(self.order + code, data)[0]


def read_directories(file: BinaryIO) -> list[TiffDirectory]:
    """Read what all directories of a TIFF or BigTIFF claim; those behind a damaged one are left out.

    Raises:
        UndecodableImageError: the first one cannot be read, or there are far too many.
    """
    directories: list[TiffDirectory] = []
    try:
        for tags in _walk(file):
            directories.append(_directory_of(tags))
            if len(directories) > _MAX_DIRECTORIES:
                raise UndecodableImageError(
                    f"the TIFF holds more than {_MAX_DIRECTORIES:,} pictures, overviews and masks. Save one of them"
                )
    except (struct.error, OSError, OverflowError):  # cut off, or pointing outside the file
        pass
    if not directories:
        raise UndecodableImageError("the TIFF cannot be decoded: its first directory is damaged")
    return directories


def _walk(file: BinaryIO) -> Iterator[dict[int, int]]:
    """The first number of each integer tag, directory by directory."""
    file.seek(0)
    head = file.read(4)
    order = "<" if head[:2] == b"II" else ">"
    is_big = 43 in head[2:]
    layout = _Layout(order, "Q", "Q", 20) if is_big else _Layout(order, "I", "H", 12)
    file.seek(8 if is_big else 4)
    start, seen = layout.read(file, layout.offset), set[int]()
    while start and start not in seen:
        seen.add(start)
        file.seek(start)
        count = layout.read(file, layout.entries)
        entries = file.read(count * layout.entry_bytes) if count < 1 << 16 else b""
        if len(entries) < count * layout.entry_bytes:
            raise OSError("cut off")
        following = file.read(struct.calcsize(layout.offset))
        yield dict(_integers(file, layout, entries))
        start = struct.unpack(order + layout.offset, following)[0]


def _integers(file: BinaryIO, layout: _Layout, entries: bytes) -> Iterator[tuple[int, int]]:
    entry = f"{layout.order}HH{layout.offset}{struct.calcsize(layout.offset)}s"  # tag, type, count, value or its place
    for tag, kind, count, value in struct.iter_unpack(entry, entries):
        code = _INTEGER_TYPES.get(kind)
        if code is None or not count:
            continue
        size = struct.calcsize(code)
        if count * size > len(value):  # the numbers lie elsewhere
            file.seek(struct.unpack(layout.order + layout.offset, value)[0])
            value = file.read(size)
        yield tag, struct.unpack(layout.order + code, value[:size])[0]


def _directory_of(tags: dict[int, int]) -> TiffDirectory:
    width, height = tags.get(_WIDTH, 0), tags.get(_LENGTH, 0)
    tiled = _TILE_WIDTH in tags
    block_width = tags[_TILE_WIDTH] if tiled else width
    block_height = tags.get(_TILE_LENGTH, height) if tiled else min(height, tags.get(_ROWS_PER_STRIP, height))
    samples = 1 if tags.get(_PLANAR) == _SEPARATE_PLANES else tags.get(_SAMPLES, 1)
    return TiffDirectory(
        width=width,
        height=height,
        block_width=block_width,
        block_height=block_height,
        bytes_per_pixel=samples * max(1, tags.get(_BITS, 1) // 8),
        lazy_strips=not tiled and tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED,
        orientation=tags.get(_ORIENTATION, 1),
        is_page=not tags.get(_NEW_SUBFILE_TYPE, 0) & (_REDUCED | _MASK),
    )
