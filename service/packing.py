"""One result as bytes, for a store outside this process; reading runs nothing and allocates no more than came.

4 bytes    the format and its version
4 bytes    length of the header, little-endian
header     JSON, padded with spaces so that every array lies on a multiple of 4
arrays     density, boxes, scores (float32), class heat and heat of each level (uint16), little-endian
the rest   the upload as it came
"""

import hashlib
import struct
from collections.abc import Iterator
from math import prod
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from service.analysis import Analysis, HeatMaps
from service.letterbox import Letterbox

_MAGIC = b"HQR1"
_PREFIX = struct.Struct("<4sI")
_MAX_HEADER_BYTES = 64 * 1024
MAX_HEAD_BYTES = _PREFIX.size + _MAX_HEADER_BYTES
"""How much longer than `Analysis.nbytes` a packed result can be."""
_HEAT_CHANNELS = 4
_MAX_SIDE = 2**31
Dimension = Annotated[int, Field(ge=0, lt=_MAX_SIDE)]


class CorruptResultError(ValueError):
    """The bytes are not a result that `pack_result` wrote."""


class _Header(BaseModel):
    """All of a result that is not an array, and what the arrays' shapes follow from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    image_id: str
    frame: Letterbox
    estimated_count: FiniteFloat
    query_count: Dimension
    notes: tuple[str, ...]
    timing_ms: dict[str, float]
    density: tuple[Dimension, Dimension]
    queries: Dimension
    classes: Dimension
    levels: Annotated[tuple[tuple[Dimension, Dimension], ...], Field(max_length=8)]

    def arrays(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Type and shape of each array, in order."""
        yield "<f4", self.density
        yield "<f4", (self.queries, 4)
        yield "<f4", (self.queries, self.classes)
        yield from (("<u2", (self.classes, *level)) for level in self.levels)
        yield from (("<u2", (_HEAT_CHANNELS, *level)) for level in self.levels)


def pack_result(result: Analysis) -> bytes:
    """Write a result; `unpack_result` reads it."""
    header = _Header(
        image_id=result.image_id,
        frame=result.frame,
        estimated_count=result.estimated_count,
        query_count=result.query_count,
        notes=result.notes,
        timing_ms=result.timing_ms,
        density=_pair(result.maps.density.shape),
        queries=result.scores.shape[0],
        classes=result.scores.shape[1],
        levels=tuple(_pair(level.shape[1:]) for level in result.maps.heat),
    )
    maps = result.maps
    arrays = (maps.density, result.boxes, result.scores, *maps.class_heat, *maps.heat)
    text = header.model_dump_json().encode()
    text += b" " * (-len(text) % 4)
    parts = [
        np.ascontiguousarray(array, dtype=kind).data for array, (kind, _) in zip(arrays, header.arrays(), strict=True)
    ]
    return b"".join((_PREFIX.pack(_MAGIC, len(text)), text, *parts, result.upload))


def unpack_result(data: bytes) -> Analysis:
    """Read a result; its arrays are views of `data`.

    Raises:
        CorruptResultError: anything but what `pack_result` writes, whole and for the picture that the id names.
    """
    header, start = _read_header(data)
    shapes = list(header.arrays())
    sizes = [prod(shape) * np.dtype(kind).itemsize for kind, shape in shapes]
    if start + sum(sizes) > len(data):
        raise CorruptResultError(f"{len(data)} bytes, but the arrays end at {start + sum(sizes)}")
    arrays = []
    for (kind, shape), size in zip(shapes, sizes, strict=True):
        arrays.append(np.frombuffer(data, kind, count=prod(shape), offset=start).reshape(shape))
        start += size
    if not all(np.isfinite(array).all() for array in arrays):
        raise CorruptResultError("a value of the arrays is not a number")
    upload = data[start:]
    if hashlib.sha256(upload).hexdigest()[:32] != header.image_id:
        raise CorruptResultError("the picture is not the one that the image id names")
    levels = len(header.levels)
    return Analysis(
        image_id=header.image_id,
        upload=upload,
        frame=header.frame,
        estimated_count=header.estimated_count,
        query_count=header.query_count,
        boxes=arrays[1],
        scores=arrays[2],
        maps=HeatMaps(arrays[0], tuple(arrays[3 : 3 + levels]), tuple(arrays[3 + levels :])),
        notes=header.notes,
        timing_ms=header.timing_ms,
    )


def _read_header(data: bytes) -> tuple[_Header, int]:
    """The header and where it ends."""
    if len(data) < _PREFIX.size:
        raise CorruptResultError(f"{len(data)} bytes are too few")
    magic, length = _PREFIX.unpack_from(data)
    if magic != _MAGIC:
        raise CorruptResultError(f"begins with {magic!r}, not {_MAGIC!r}: of another version, or not ours")
    end = _PREFIX.size + length
    if length > _MAX_HEADER_BYTES or end > len(data):
        raise CorruptResultError(f"a header of {length} bytes")
    try:
        header = _Header.model_validate_json(data[_PREFIX.size : end])
    except ValidationError as error:
        raise CorruptResultError(f"the header is not valid: {error.error_count()} errors") from error
    frame = header.frame
    if not all(1 <= side < _MAX_SIDE for side in (frame.width, frame.height, frame.new_width, frame.new_height)):
        raise CorruptResultError("a picture with no pixels, or with more than there can be")
    return header, end


def _pair(shape: tuple[int, ...]) -> tuple[int, int]:
    rows, columns = shape
    return rows, columns
