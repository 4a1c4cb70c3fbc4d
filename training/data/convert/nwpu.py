"""NWPU VHR-10 as it was published (Cheng et al., 2014): pictures and `(x1,y1),(x2,y2),class` lines."""

import re
from functools import partial
from pathlib import Path

from training.data.convert.lines import WAY_OUT, numbered_lines, numbers, whole_number
from training.data.convert.pictures import SUFFIXES, files_by_stem, pairs
from training.data.convert.records import Annotation, Picture, Size
from training.data.convert.report import Report
from training.data.convert.sources import Source

CLASSES = (
    "airplane",
    "ship",
    "storage tank",
    "baseball diamond",
    "tennis court",
    "basketball court",
    "ground track field",
    "harbor",
    "bridge",
    "vehicle",
)
"""In the order of the published numbers, 1 to 10."""

LINE = re.compile(r"\(([^,()]*),([^,()]*)\)\s*,\s*\(([^,()]*),([^,()]*)\)\s*,([^,()]*)")


def read(source: Source, negatives: bool, report: Report) -> list[Picture]:
    """Pictures of a folder that holds `positive image set` and `ground truth`.

    Args:
        negatives: take `negative image set` too, as pictures without objects. The two sets use the same
            numbers, so these get names such as `negative_001.jpg`.
    """
    root = source.path
    found = pairs(root / "positive image set", root / "ground truth")
    pictures = [Picture(picture, picture.name, partial(_annotations, truth)) for picture, truth in found]
    folder = root / "negative image set"
    if negatives:
        empty = files_by_stem(folder, SUFFIXES).values()
        pictures.extend(Picture(path, f"negative_{path.name}", lambda size: []) for path in empty)
    elif folder.is_dir():
        report.remarks["pictures of the negative set left out; --negatives takes them as pictures without objects"] += (
            len(files_by_stem(folder, SUFFIXES))
        )
    return pictures


def _annotations(path: Path, size: Size) -> list[Annotation]:
    """Objects of one ground truth file."""
    found = []
    for where, line in numbered_lines(path):
        if not (match := LINE.fullmatch(line)):
            raise ValueError(f"{where}: {line[:80]!r} is not `(x1,y1),(x2,y2),class`; {WAY_OUT}")
        *corners, number = match.groups()
        x1, y1, x2, y2 = numbers(where, "a corner", corners)
        name = CLASSES[whole_number(where, "the class", number, 1, len(CLASSES)) - 1]
        found.append(Annotation(where, name, (x1, y1, x2, y2)))
    return found
