"""PASCAL VOC (Everingham et al., 2010): one XML file a picture, image sets as lists of names."""

import re
from functools import partial
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from training.data.convert.lines import number, numbered_lines, read_text
from training.data.convert.pictures import SUFFIXES, check_size, files_by_stem
from training.data.convert.records import Annotation, Picture, Size
from training.data.convert.sources import Source

CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


def read(source: Source) -> list[Picture]:
    """Pictures of a folder that holds `JPEGImages` and `Annotations`.

    Those named in `ImageSets/Main/<source.detail>.txt`, or every annotated one if there is no detail.

    Raises:
        FileNotFoundError: a folder, set, picture or annotation is missing.
        ValueError: a line of the set is not one name, or names a picture again.
    """
    root = source.path
    pictures = files_by_stem(root / "JPEGImages", SUFFIXES)
    annotated = files_by_stem(root / "Annotations", frozenset({".xml"}))
    if source.detail is None:
        wanted = {stem: str(path) for stem, path in annotated.items()}
    else:
        wanted = _image_set(root / "ImageSets" / "Main" / f"{source.detail}.txt")
    found = []
    for stem, where in wanted.items():
        if stem not in pictures:
            raise FileNotFoundError(f"{where}: there is no picture {stem} in {root / 'JPEGImages'}; restore it")
        if stem not in annotated:
            raise FileNotFoundError(f"{where}: there is no {root / 'Annotations' / stem}.xml; restore it")
        found.append(Picture(pictures[stem], pictures[stem].name, partial(_annotations, annotated[stem])))
    return found


def _image_set(path: Path) -> dict[str, str]:
    """Names in an image set and the line of each."""
    wanted: dict[str, str] = {}
    for where, line in numbered_lines(path):
        if len(line.split()) != 1:
            raise ValueError(f"{where}: {line!r} is not one name; take a set such as trainval, not one of a class")
        if line in wanted:
            raise ValueError(f"{where}: {line!r} is named before, at {wanted[line]}; remove one of them")
        wanted[line] = where
    return wanted


def _annotations(path: Path, size: Size) -> list[Annotation]:
    """Objects of one XML file. VOC counts pixels from 1 and includes the last one."""
    root = _parse(path)
    stated = [_text(str(path), root, f"size/{side}", "0") for side in ("width", "height")]
    if any(number(str(path), "a side", side) for side in stated):  # some tools write 0 x 0
        check_size(str(path), (round(float(stated[0])), round(float(stated[1]))), size)
    found = []
    for place, item in enumerate(root.findall("object"), start=1):
        name = _text(f"{path}: object {place}", item, "name")
        where = f"{path}: object {place} ({name})"
        x1, y1, x2, y2 = (
            number(where, key, _text(where, item, f"bndbox/{key}")) for key in ("xmin", "ymin", "xmax", "ymax")
        )
        if x2 < x1 or y2 < y1:  # before 1 is taken off, which would make the smallest of these look proper
            raise ValueError(f"{where}: xmax or ymax is below xmin or ymin; exchange them or remove the object")
        difficult = number(where, "difficult", _text(where, item, "difficult", "0")) != 0
        found.append(Annotation(where, name, (x1 - 1, y1 - 1, x2, y2), difficult))
    return found


def _parse(path: Path) -> Element:
    """The root of an XML file, which may not declare entities: they can be made to grow without end."""
    declared = re.search(rb"""^<\?xml[^>]*encoding=["']([A-Za-z0-9._-]+)["']""", path.read_bytes()[:200])
    encoding = declared.group(1).decode() if declared else "utf-8"
    try:
        text = read_text(path, encoding)
    except LookupError as error:
        raise ValueError(f"{path}:1: unknown encoding {encoding!r}; save the file as UTF-8") from error
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ValueError(f"{path}: has a document type, which VOC files never have; remove it")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        line, column = error.position
        raise ValueError(f"{path}:{line}: not XML at column {column}: {error}; restore the file") from error


def _text(where: str, item: Element, key: str, default: str | None = None) -> str:
    """Text of an element below `item`, or the default."""
    text = (item.findtext(key) or "").strip() or default
    if text is None:
        raise ValueError(f"{where}: there is no {key!r}; add it or remove the object")
    return text
