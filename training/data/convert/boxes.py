"""From stated annotations to boxes that can be written: class, corners, clipping, difficult ones."""

from typing import Literal

from training.data.convert.records import Annotation, Box, Dataset, Size
from training.data.convert.report import Report

Difficult = Literal["crowd", "drop", "keep"]
"""What becomes of boxes marked difficult, ignored or crowd."""

DECIMALS = 3
"""Boxes are written in thousandths of a pixel."""


def usable_boxes(
    annotations: list[Annotation], size: Size, dataset: Dataset, difficult: Difficult, report: Report
) -> list[Box]:
    """Boxes inside a picture of `size`, in order; what is clipped or left out is counted.

    Raises:
        ValueError: an unknown class, or corners in the wrong order.
    """
    boxes = []
    for annotation in annotations:
        if annotation.name in dataset.ignored:
            report.remarks[f"boxes of class {annotation.name} left out (--ignore)"] += 1
            continue
        label = None if annotation.name is None else _label(annotation, dataset)
        # a region without a class cannot be kept as an object
        crowd = annotation.name is None or (annotation.difficult and difficult != "keep")
        if crowd and difficult == "drop":
            report.remarks["difficult, ignored or crowd boxes left out (--difficult drop)"] += 1
        elif (corners := _clip(annotation, size, report)) is not None:
            boxes.append(Box(corners, label, crowd))
    return boxes


def _label(annotation: Annotation, dataset: Dataset) -> int:
    """Place of the class in the list."""
    if annotation.name not in dataset.classes:
        raise ValueError(
            f"{annotation.where}: unknown class {annotation.name!r}; the classes are {', '.join(dataset.classes)}. "
            "Correct the name, or leave the class out with --ignore"
        )
    return dataset.classes.index(annotation.name)


def _clip(annotation: Annotation, size: Size, report: Report) -> tuple[float, float, float, float] | None:
    """Corners inside the picture, or None if no area is left."""
    x1, y1, x2, y2 = annotation.corners
    if x2 < x1 or y2 < y1:
        raise ValueError(
            f"{annotation.where}: box from ({x1:g}, {y1:g}) to ({x2:g}, {y2:g}) ends before it begins; "
            "exchange its corners or remove it"
        )
    x1, x2 = (round(min(max(x, 0.0), size[0]), DECIMALS) for x in (x1, x2))
    y1, y2 = (round(min(max(y, 0.0), size[1]), DECIMALS) for y in (y1, y2))
    if x1 >= x2 or y1 >= y2:
        report.remarks["boxes left out: no area inside their picture"] += 1
        return None
    moved = max(abs(new - old) for new, old in zip((x1, y1, x2, y2), annotation.corners, strict=True))
    report.remarks["boxes clipped at the border of their picture"] += moved > 0.01
    return x1, y1, x2, y2
