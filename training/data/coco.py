"""Reads COCO annotation files: which pictures there are, and which boxes of them can be trained on."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Report:
    """What was found and what was left out when a dataset was read."""

    images: int = 0
    """Pictures that can be used, those without boxes included."""
    boxes: int = 0
    """Boxes that are kept."""
    clipped: int = 0
    """Boxes that reached outside their picture and were cut at its border."""
    degenerate: int = 0
    """Boxes dropped because they have no area inside the picture, or are not finite."""
    too_small: int = 0
    """Boxes dropped because a side is below `min_box_px` after resizing."""
    crowd: int = 0
    """Boxes ignored because they mark a crowd, not an object."""
    corrupt: int = 0
    """Pictures skipped because they cannot be read."""


@dataclass(frozen=True)
class Entry:
    """One picture of the annotations, with its boxes as they are written there."""

    image_id: int
    file_name: str
    size: tuple[int, int] | None
    """(width, height) if stated."""
    boxes_xywh: NDArray[np.float64]
    """(M, 4), in pixels of the stored picture."""
    labels: NDArray[np.int64]
    """(M,)."""


def read_coco(path: Path, classes: tuple[str, ...], report: Report) -> list[Entry]:
    """Read every picture of a COCO file in its order; crowd boxes are left out and counted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not JSON, a key is missing, a category or picture is unknown; the message says where.
    """
    data = _load(path)
    label_of = _labels(path, data, classes)
    rows: dict[int, list[tuple[list[float], int]]] = defaultdict(list)
    for place, image in enumerate(data["images"]):
        if (image_id := _get(path, f"images[{place}]", image, "id")) in rows:
            raise ValueError(f"{path}: images[{place}] repeats the id {image_id}")
        rows[image_id] = []
    for place, annotation in enumerate(data["annotations"]):
        where = f"annotations[{place}]"
        image_id, category = (_get(path, where, annotation, key) for key in ("image_id", "category_id"))
        box = _get(path, where, annotation, "bbox")
        if image_id not in rows:
            raise ValueError(f"{path}: {where} belongs to image {image_id!r}, which is not among the images")
        if category not in label_of:
            raise ValueError(f"{path}: {where} has category_id {category!r}, which is not among the categories")
        if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)):
            raise ValueError(f"{path}: {where} has bbox {box!r}, not four numbers [x, y, width, height]")
        if annotation.get("iscrowd", 0):
            report.crowd += 1
        else:
            rows[image_id].append((box, label_of[category]))
    return [_entry(path, place, image, rows) for place, image in enumerate(data["images"])]


def usable_boxes(
    entry: Entry, stored: tuple[int, int], resized: tuple[int, int], min_box_px: float, report: Report
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Clip boxes to the picture, bring them to its resized pixels, drop the too small ones; count all that.

    Args:
        stored: (width, height) of the file, to which the boxes refer.
        resized: (width, height) of the picture that is used.
    Returns:
        Boxes (M, 4), xyxy in resized pixels, and labels (M,).
    """
    corners = np.concatenate([entry.boxes_xywh[:, :2], entry.boxes_xywh[:, :2] + entry.boxes_xywh[:, 2:]], axis=1)
    finite = np.all(np.isfinite(corners), axis=1)
    inside = np.clip(np.where(finite[:, None], corners, 0.0), 0.0, [*stored, *stored])
    proper = finite & np.all(inside[:, 2:] > inside[:, :2], axis=1)
    boxes = inside * (np.array([*resized, *resized]) / [*stored, *stored])
    kept = proper & np.all(boxes[:, 2:] - boxes[:, :2] >= min_box_px, axis=1)
    report.clipped += int(np.sum(kept & np.any(np.abs(inside - corners) > 0.01, axis=1)))
    report.degenerate += int((~proper).sum())
    report.too_small += int((proper & ~kept).sum())
    report.boxes += int(kept.sum())
    return boxes[kept].astype(np.float32), entry.labels[kept]


def _load(path: Path) -> dict[str, Any]:
    """The file's top object, with its three lists."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path}")
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 at byte {error.start}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise ValueError(f"{path}: not a COCO detection file: the list {key!r} is missing at the top level")
    return data


def _labels(path: Path, data: dict[str, Any], classes: tuple[str, ...]) -> dict[int, int]:
    """Label of each category id."""
    label_of = {}
    for place, category in enumerate(data["categories"]):
        where = f"categories[{place}]"
        name = _get(path, where, category, "name")
        if name not in classes:
            raise ValueError(f"{path}: unknown category {name!r} at {where}; the classes are {', '.join(classes)}")
        label_of[_get(path, where, category, "id")] = classes.index(name)
    return label_of


def _entry(path: Path, place: int, image: dict[str, Any], rows: dict[int, list[tuple[list[float], int]]]) -> Entry:
    """One picture with its boxes."""
    found = rows[image["id"]]
    width, height = image.get("width"), image.get("height")
    return Entry(
        image_id=image["id"],
        file_name=str(_get(path, f"images[{place}]", image, "file_name")),
        size=(int(width), int(height)) if width and height else None,
        boxes_xywh=np.array([box for box, _ in found], dtype=np.float64).reshape(-1, 4),
        labels=np.array([label for _, label in found], dtype=np.int64),
    )


def _get(path: Path, where: str, item: Any, key: str) -> Any:
    """`item[key]`, or a ValueError that says where it is missing."""
    if not isinstance(item, dict) or key not in item:
        raise ValueError(f"{path}: {where} has no {key!r}")
    return item[key]
