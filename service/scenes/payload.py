"""What is kept of one tile, as bytes: its boxes, and its heat where that was asked for.

zlib around: 4 bytes of format and version; number of boxes, rows and columns of heat (uint32); boxes (n, 4) float32,
scores (n,) float32, labels (n,) int32, cut (n,) bool, density (h, w) float32, mixed heat (h, w) uint16. Numbers are
little-endian.
"""

import struct
import zlib
from dataclasses import dataclass
from math import prod

import numpy as np

from service.analysis import HeatArray, HeatMaps, keep_heat, read_heat
from service.heatmap import CHANNELS, combine_levels
from service.letterbox import FloatArray
from service.merging import TileBoxes

_MAGIC = b"HQT1"
_HEAD = struct.Struct("<4sIII")
_FAST = 1  # zlib's level: half the size of heat at a cost that vanishes beside a run of the model


@dataclass(frozen=True)
class TileHeat:
    """Heat of a whole tile on the cells of the finest level.

    Attributes:
        density: (h, w), objects per cell.
        mixed: (h, w), the hottest of all levels, in steps of 1/65535.
    """

    density: FloatArray
    mixed: HeatArray

    @classmethod
    def of(cls, maps: HeatMaps) -> "TileHeat":
        """The two maps of all that the model gives."""
        levels = [read_heat(level[CHANNELS["mixed"]]) for level in maps.heat]
        return cls(maps.density, keep_heat(combine_levels(levels)))


def pack(boxes: TileBoxes, heat: TileHeat | None = None) -> bytes:
    """The same tile is always the same bytes."""
    rows, columns = (0, 0) if heat is None else heat.density.shape
    parts = [
        _HEAD.pack(_MAGIC, len(boxes.scores), rows, columns),
        np.asarray(boxes.boxes, "<f4").tobytes(),
        np.asarray(boxes.scores, "<f4").tobytes(),
        np.asarray(boxes.labels, "<i4").tobytes(),
        np.asarray(boxes.cut, "?").tobytes(),
    ]
    if heat is not None:
        parts += [np.asarray(heat.density, "<f4").tobytes(), np.asarray(heat.mixed, "<u2").tobytes()]
    return zlib.compress(b"".join(parts), _FAST)


def unpack(payload: bytes) -> tuple[TileBoxes, TileHeat | None]:
    """What was packed."""
    data = zlib.decompress(payload)
    magic, count, rows, columns = _HEAD.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError(f"a tile of the format {magic!r}; this version reads {_MAGIC!r}")
    kinds = (("<f4", (count, 4)), ("<f4", (count,)), ("<i4", (count,)), ("?", (count,)))
    arrays, place = [], _HEAD.size
    for kind, shape in (*kinds, ("<f4", (rows, columns)), ("<u2", (rows, columns))):
        arrays.append(np.frombuffer(data, kind, prod(shape), place).reshape(shape))
        place += arrays[-1].nbytes
    boxes, scores, labels, cut, density, mixed = arrays
    return TileBoxes(boxes, scores, labels.astype(np.int64), cut), TileHeat(density, mixed) if rows else None
