"""TIFF directories that lie or are cut."""

import struct

LONG, ASCII = 4, 2
WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC, STRIP_OFFSET, SAMPLES, ROWS, STRIP_BYTES = (
    256, 257, 258, 259, 262, 273, 277, 278, 279,
)  # fmt: skip
SOUND = {
    WIDTH: 8,
    LENGTH: 8,
    BITS: 8,
    COMPRESSION: 1,
    PHOTOMETRIC: 1,
    STRIP_OFFSET: 8,
    SAMPLES: 1,
    ROWS: 8,
    STRIP_BYTES: 64,
}


def tiff(changes: dict[int, int] | None = None, kind: int = LONG, count: int = 1, following: int = 0) -> bytes:
    """8 x 8 grey pixels, then a directory with some values, types or counts changed, and where the next one lies."""
    tags = SOUND | (changes or {})
    entries = [
        struct.pack("<HHII", tag, *((kind, count) if changes and tag in changes else (LONG, 1)), value)
        for tag, value in sorted(tags.items())
    ]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", following)
    return b"II*\0" + struct.pack("<I", 8 + 64) + bytes(64) + directory


LIES = {
    "no directory": b"II*\0" + struct.pack("<I", 0),
    "a directory beyond the end": b"II*\0" + struct.pack("<I", 2**31),
    "a directory in the middle of the header": b"II*\0" + struct.pack("<I", 2),
    "a directory of 65,535 entries with nothing behind": b"II*\0" + struct.pack("<IH", 8, 65535),
    "an empty directory": b"II*\0" + struct.pack("<IHI", 8, 0, 0),
    "a directory cut before the place of the pixels": tiff()[:-56],
    "pixels beyond the end": tiff({STRIP_OFFSET: 2**31}),
    "too few pixels": tiff({LENGTH: 9000, ROWS: 9000}),
    "four gigabytes in a strip": tiff({STRIP_BYTES: 2**32 - 1, COMPRESSION: 5}),
    "a width that is text": tiff({WIDTH: 0x38383838}, kind=ASCII, count=4),
    "a width without a value": tiff({WIDTH: 8}, count=0),
    "a width of four billion values": tiff({WIDTH: 8}, count=2**32 - 1),
    "an unknown type of field": tiff({LENGTH: 8}, kind=99),
    "no bits": tiff({BITS: 0}),
    "sixty-five bits": tiff({BITS: 65}),
    "four billion samples": tiff({SAMPLES: 2**32 - 1}),
    "an unknown compression": tiff({COMPRESSION: 54321}),
    "rows of none": tiff({ROWS: 0, COMPRESSION: 5}),
}
