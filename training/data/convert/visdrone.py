"""VisDrone-DET (Zhu et al., 2021): `x,y,w,h,score,category,truncation,occlusion` lines."""

from functools import partial
from pathlib import Path

from training.data.convert.lines import check_field_count, numbered_lines, numbers, whole_number
from training.data.convert.pictures import pairs
from training.data.convert.records import Annotation, Picture, Size
from training.data.convert.sources import Source

CLASSES = (
    "pedestrian",
    "people",
    "bicycle",
    "car",
    "van",
    "truck",
    "tricycle",
    "awning-tricycle",
    "bus",
    "motor",
)
"""In the order of the published numbers, 1 to 10."""

OTHERS = 11
"""Objects that belong to none of the classes. Number 0 marks regions in which nothing was annotated."""

FORM = "x,y,w,h,score,category,truncation,occlusion"


def read(source: Source) -> list[Picture]:
    """Pictures of a folder that holds `images` and `annotations`."""
    found = pairs(source.path / "images", source.path / "annotations")
    return [Picture(picture, picture.name, partial(_annotations, text)) for picture, text in found]


def _annotations(path: Path, size: Size) -> list[Annotation]:
    """Objects of one annotation file; score 0 means that the benchmark ignores the box."""
    found = []
    for where, line in numbered_lines(path):
        fields = line.removesuffix(",").split(",")  # some published files end their lines with a comma
        check_field_count(where, fields, 8, FORM)
        x, y, width, height, score = numbers(where, "a field", fields[:5])
        category = whole_number(where, "the category", fields[5], 0, OTHERS)
        name = None if category in (0, OTHERS) else CLASSES[category - 1]
        found.append(Annotation(where, name, (x, y, x + width, y + height), difficult=score == 0))
    return found
