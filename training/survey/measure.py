"""Looks at every picture of a COCO file: sizes, boxes, what is broken, what is there twice.

N pictures, M boxes of one picture.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from training.data.canvas import fitted_size
from training.data.coco import Entry, Report, read_coco, usable_boxes
from training.data.files import UNREADABLE, locate

HASH_SIDE = 16
"""A picture is compared by HASH_SIDE x HASH_SIDE bits: which of its cells are brighter than their median."""
NEAR_BITS = 16
"""Two pictures that differ in fewer of the 256 bits are nearly the same (of NWPU VHR-10, true pairs differ in up to 11,
others in 17 or more)."""
FLAT = 3.0
"""Pictures whose cells differ less (standard deviation, on the scale 0 to 255) have no look to compare."""


@dataclass(frozen=True)
class Facts:
    """One picture that can be read."""

    path: Path
    size: tuple[int, int]
    """(width, height) of the file."""
    boxes: NDArray[np.float32]
    """(M, 4), xyxy in pixels of the file, clipped to it."""
    labels: NDArray[np.int64]
    """(M,)."""
    digest: bytes
    """Of the file."""
    looks: NDArray[np.uint64]
    """(8, 4), the 256 bits of the average hash in each of the eight ways the picture can lie; (0, 4) if it is flat."""

    def sides(self, longest: int | None = None) -> NDArray[np.float64]:
        """(M, 2), widths and heights in pixels once the longest side of the picture is `longest`."""
        width, height = fitted_size(self.size, longest) if longest else self.size
        scale = np.array([width / self.size[0], height / self.size[1]])
        return (self.boxes[:, 2:] - self.boxes[:, :2]).astype(np.float64) * scale


@dataclass
class Survey:
    """All pictures of one annotation file."""

    name: str
    classes: tuple[str, ...]
    pictures: list[Facts] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Pictures that are missing, corrupt, or not of the size that is written."""
    report: Report = field(default_factory=Report)

    def sides(self, longest: int | None = None) -> NDArray[np.float64]:
        """(boxes, 2), see `Facts.sides`."""
        return np.concatenate([np.zeros((0, 2)), *(facts.sides(longest) for facts in self.pictures)])

    @property
    def labels(self) -> NDArray[np.int64]:
        """(boxes,)."""
        return np.concatenate([np.zeros(0, np.int64), *(facts.labels for facts in self.pictures)])

    @property
    def box_counts(self) -> NDArray[np.int64]:
        """(N,), boxes per picture."""
        return np.array([len(facts.labels) for facts in self.pictures], dtype=np.int64)


def survey(name: str, images: Path, annotations: Path, classes: tuple[str, ...]) -> Survey:
    """Read every picture of an annotation file to its end.

    Raises:
        FileNotFoundError: there is no annotation file.
        ValueError: it is malformed, or no picture of it can be read.
    """
    seen = Survey(name, classes)
    for entry in tqdm(read_coco(annotations, classes, seen.report), desc=name, unit="picture"):
        try:
            seen.pictures.append(_read(entry, images, seen))
        except FileNotFoundError as error:
            seen.problems.append(str(error))
        except (Image.DecompressionBombError, *UNREADABLE) as error:
            seen.problems.append(f"{entry.file_name} cannot be read: {error}")
    if not seen.pictures:
        raise ValueError(f"no picture of {annotations} can be read: {'; '.join(seen.problems[:3]) or 'it names none'}")
    seen.report.images, seen.report.corrupt = len(seen.pictures), len(seen.problems)
    return seen


def _read(entry: Entry, images: Path, seen: Survey) -> Facts:
    """Decode one picture and take its facts."""
    path = locate(images, entry.file_name)
    data = path.read_bytes()
    with Image.open(BytesIO(data)) as picture:
        size = picture.size
        picture.draft("L", (8 * HASH_SIDE, 8 * HASH_SIDE))  # a JPEG is still read to its end, but in fewer pixels
        cells = np.asarray(picture.convert("L").resize((HASH_SIDE, HASH_SIDE), Image.Resampling.BOX))
    if entry.size not in (None, size):
        seen.problems.append(f"{entry.file_name} is {size[0]} x {size[1]} px; the annotations say {entry.size}")
    boxes, labels = usable_boxes(entry, size, size, 0.0, seen.report)
    return Facts(path, size, boxes, labels, hashlib.sha256(data).digest(), looks_of(cells))


def looks_of(cells: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The average hash of (HASH_SIDE, HASH_SIDE) grey values, see `Facts.looks`."""
    if cells.std() <= FLAT:
        return np.zeros((0, 4), dtype=np.uint64)
    bright = cells > np.median(cells)
    turned = [np.rot90(bright, quarter) for quarter in range(4)]
    lying = np.array([view for bits in turned for view in (bits, bits[:, ::-1])])  # (8, HASH_SIDE, HASH_SIDE)
    return np.packbits(lying.reshape(8, -1), axis=1).view(np.uint64)


@dataclass(frozen=True)
class Twins:
    """Two pictures that are the same, or nearly."""

    first: Facts
    second: Facts
    bits: int
    """In how many of the 256 bits they differ; -1 where the files are the same byte for byte."""


def find_twins(first: Sequence[Facts], second: Sequence[Facts]) -> list[Twins]:
    """Pairs of one picture of each list that look the same, also mirrored or turned; the most alike come first.

    Given the same list twice, each pair within it comes once.
    """
    within = first is second
    pairs = {(row, column): bits for row, column, bits in _near(first, second) if not (within and row >= column)}
    by_digest: dict[bytes, list[int]] = {}
    for row, facts in enumerate(first):
        by_digest.setdefault(facts.digest, []).append(row)
    for column, facts in enumerate(second):
        for row in by_digest.get(facts.digest, []):
            if not (within and row >= column):
                pairs[row, column] = -1
    ordered = sorted(pairs.items(), key=lambda item: (item[1], item[0]))
    return [Twins(first[row], second[column], bits) for (row, column), bits in ordered]


def _near(first: Sequence[Facts], second: Sequence[Facts]) -> Iterator[tuple[int, int, int]]:
    """(place in the first, place in the second, bits that differ) of every pair that is near in some orientation."""
    columns = [column for column, facts in enumerate(second) if len(facts.looks)]
    others = np.array([second[column].looks[0] for column in columns], dtype=np.uint64).reshape(-1, 4)
    for row, facts in enumerate(first):
        if not len(facts.looks):
            continue
        differing = np.bitwise_count(facts.looks[:, None] ^ others).sum(axis=2, dtype=np.int64).min(axis=0)
        for place in np.flatnonzero(differing < NEAR_BITS).tolist():
            yield row, columns[place], int(differing[place])
