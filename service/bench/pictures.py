"""Which pictures are sent."""

import random
from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import NamedTuple

MEDIA_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}


class Picture(NamedTuple):
    """A file's bytes and their type."""

    data: bytes
    media_type: str


def read_pictures(places: Sequence[str], most: int, seed: int) -> list[Picture]:
    """Read pictures into memory, in an order of their own, so that reading files is no part of the load.

    Args:
        places: folders, files, or patterns with `*`.
        most: at most so many, chosen by the seed.
    Raises:
        ValueError: a place that is not there, or no picture in any.
    """
    found: set[Path] = set()
    for place in places:
        paths = [Path(name) for name in glob(place, recursive=True)]
        if not paths:
            raise ValueError(f"{place}: no such file or folder")
        for path in paths:
            found.update(path.iterdir() if path.is_dir() else [path])
    files = sorted(path for path in found if path.suffix.lower() in MEDIA_TYPES and path.is_file())
    if not files:
        raise ValueError(f"no pictures in {', '.join(places)}; looked for *{', *'.join(MEDIA_TYPES)}")
    chosen = random.Random(seed).sample(files, min(most, len(files)))
    return [Picture(path.read_bytes(), MEDIA_TYPES[path.suffix.lower()]) for path in chosen]
