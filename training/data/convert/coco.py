"""COCO JSON, which AI-TOD and AI-TOD-v2 use as well: several files merged, ids made new, other fields dropped."""

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from training.data.convert.lines import read_text
from training.data.convert.pictures import check_size, flat_name
from training.data.convert.records import Annotation, Picture, Size
from training.data.convert.sources import Source

Json = dict[str, Any]

LIMIT = 1e9
"""No pixel lies further out."""


def category_names(sources: list[Source], ignored: frozenset[str]) -> tuple[str, ...]:
    """Class names in the order of the files' lists, ignored ones left out.

    Raises:
        ValueError: the files have not the same names.
    """
    found = []
    for source in sources:
        names = _names(source.path, _load(source.path)).values()
        found.append(tuple(name for name in names if name not in ignored))
        if different := set(found[-1]) ^ set(found[0]):
            raise ValueError(
                f"{source.path} and {sources[0].path} differ in the categories {', '.join(sorted(different))}; "
                "state all names with --classes, or leave some out with --ignore"
            )
    return found[0]


def read(source: Source) -> list[Picture]:
    """Pictures of one JSON file.

    Its pictures lie in the folder that `source.detail` names; otherwise in `images` beside the file, beside
    the file, or in `images` one folder up.

    Raises:
        FileNotFoundError: a picture is missing.
        ValueError: not JSON, or not COCO; the message says where.
    """
    path, data = source.path, _load(source.path)
    names = _names(path, data)
    rows: dict[int | str, list[Annotation]] = defaultdict(list)
    images = _by_id(path, "images", data)
    for place, item in enumerate(data["annotations"]):
        image_id, annotation = _annotation(f"{path}: annotations[{place}]", item, names)
        if image_id not in images:
            raise ValueError(f"{annotation.where} belongs to image {image_id!r}, which is not among the images")
        rows[image_id].append(annotation)
    if source.detail is not None:
        folders = [Path(source.detail)]
    else:
        folders = [path.parent / "images", path.parent, path.parent.parent / "images"]
    pictures = []
    for place, (image_id, image) in enumerate(images.items()):
        where = f"{path}: images[{place}]"
        file_name = str(_get(where, image, "file_name"))
        name = flat_name(where, file_name.removeprefix("images/"))
        read_boxes = partial(_checked, where, image, rows[image_id])
        pictures.append(Picture(_locate(where, file_name, folders), name, read_boxes))
    return pictures


def _checked(where: str, image: Json, annotations: list[Annotation], size: Size) -> list[Annotation]:
    """The annotations of a picture, if its file has the sides that the JSON states, if any."""
    stated = [image.get("width") or 0, image.get("height") or 0]
    if not all(_is_number(side) for side in stated):
        raise ValueError(f"{where}: width and height are {stated}, not two numbers; correct them")
    if any(stated):
        check_size(where, (int(stated[0]), int(stated[1])), size)
    return annotations


def _annotation(where: str, item: Any, names: dict[int | str, str]) -> tuple[int | str, Annotation]:
    """Image id and annotation of one entry."""
    image_id, category = (_get(where, item, key) for key in ("image_id", "category_id"))
    if not isinstance(category, int | str) or category not in names:
        raise ValueError(f"{where}: category_id {category!r} is not among the categories; correct or remove it")
    box = _get(where, item, "bbox")
    if not (isinstance(box, list) and len(box) == 4 and all(_is_number(value) for value in box)):
        raise ValueError(f"{where}: bbox is {box!r}, not four finite numbers [x, y, width, height]; correct it")
    if not isinstance(image_id, int | str):
        raise ValueError(f"{where}: image_id is {image_id!r}, not a number or a text; correct it")
    x, y, width, height = box
    return image_id, Annotation(where, names[category], (x, y, x + width, y + height), bool(item.get("iscrowd", 0)))


def _load(path: Path) -> Json:
    """The file's top object, with its three lists."""
    try:
        data = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON at column {error.colno}: {error.msg}; restore it") from error
    except (RecursionError, ValueError) as error:  # nested too deeply, or a number of thousands of digits
        raise ValueError(f"{path}: not COCO: {error}; restore the file") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise ValueError(f"{path}: not a COCO detection file: the list {key!r} is missing at the top level")
    return data


def _names(path: Path, data: Json) -> dict[int | str, str]:
    """Class name of each category id."""
    names: dict[int | str, str] = {}
    for place, (category_id, category) in enumerate(_by_id(path, "categories", data).items()):
        name = _get(f"{path}: categories[{place}]", category, "name")
        if not isinstance(name, str) or name in names.values():
            raise ValueError(f"{path}: categories[{place}] has the name {name!r}; each needs a text of its own")
        names[category_id] = name
    return names


def _by_id(path: Path, key: str, data: Json) -> dict[int | str, Json]:
    """Entries of a list by their id, in its order."""
    found: dict[int | str, Json] = {}
    for place, item in enumerate(data[key]):
        where = f"{path}: {key}[{place}]"
        entry_id = _get(where, item, "id")
        if not isinstance(entry_id, int | str):
            raise ValueError(f"{where} has the id {entry_id!r}, not a number or a text; correct it")
        if entry_id in found:
            raise ValueError(f"{where} repeats the id {entry_id!r}; ids must differ within a file")
        found[entry_id] = item
    return found


def _locate(where: str, file_name: str, folders: list[Path]) -> Path:
    """Path of a picture; `file_name` may or may not start with `images/`."""
    for folder in folders:
        for name in (file_name, file_name.removeprefix("images/")):
            if (path := folder / name).is_file():
                return path
    raise FileNotFoundError(
        f"{where}: there is no picture {file_name!r} in {' or '.join(map(str, folders))}; "
        "name the folder of the pictures behind a colon: [SPLIT=]FILE.json:FOLDER"
    )


def _get(where: str, item: Any, key: str) -> Any:
    """`item[key]`, or a ValueError that says where it is missing."""
    if not isinstance(item, dict) or key not in item:
        raise ValueError(f"{where} has no {key!r}; add it")
    return item[key]


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a number that can be a pixel; JSON may hold NaN, and whole numbers of any length."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LIMIT
