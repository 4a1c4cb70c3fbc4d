"""DOTA 1.0, 1.5 and 2.0 (Ding et al., 2021): `x1 y1 ... x4 y4 class difficult` lines, made horizontal."""

from functools import partial
from pathlib import Path

from training.data.convert.lines import check_field_count, numbered_lines, numbers, whole_number
from training.data.convert.pictures import pairs
from training.data.convert.records import Annotation, Picture, Size
from training.data.convert.sources import Source

CLASSES_1_0 = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
)
CLASSES_1_5 = (*CLASSES_1_0, "container-crane")
CLASSES_2_0 = (*CLASSES_1_5, "airport", "helipad")
CLASSES = {"1.0": CLASSES_1_0, "1.5": CLASSES_1_5, "2.0": CLASSES_2_0}
"""By version."""

HEADER = ("imagesource:", "gsd:")
FORM = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"


def read(source: Source) -> list[Picture]:
    """Pictures of a folder that holds `images`, and `labelTxt` or the folder that `source.detail` names."""
    found = pairs(source.path / "images", source.path / (source.detail or "labelTxt"))
    return [Picture(picture, picture.name, partial(_annotations, text)) for picture, text in found]


def _annotations(path: Path, size: Size) -> list[Annotation]:
    """Objects of one label file: the upright box around each oriented one."""
    found = []
    for where, line in numbered_lines(path):
        if not found and line.lower().startswith(HEADER):
            continue
        fields = line.split()
        check_field_count(where, fields, 10, FORM)
        points = numbers(where, "a corner", fields[:8])
        xs, ys = points[0::2], points[1::2]
        # 1.0 knows 0 and 1; 1.5 and 2.0 use 2 for objects that a tool has cut
        difficult = whole_number(where, "difficult", fields[9], 0, 2) > 0
        found.append(Annotation(where, fields[8], (min(xs), min(ys), max(xs), max(ys)), difficult))
    return found
