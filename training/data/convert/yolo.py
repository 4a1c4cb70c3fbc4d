"""YOLO text (as Ultralytics' tools use it): `class cx cy w h` in fractions of the picture, or polygons."""

from functools import partial
from pathlib import Path

from training.data.convert.lines import WAY_OUT, numbered_lines, numbers, whole_number
from training.data.convert.pictures import SUFFIXES, flat_name
from training.data.convert.records import Annotation, Picture, Size
from training.data.convert.report import Report
from training.data.convert.sources import Source

FAR = 1.0
"""Fractions more than this outside the picture are taken for pixels, which is an error."""


def read(source: Source, names: tuple[str, ...], report: Report) -> list[Picture]:
    """Pictures of one folder, or of a text file that lists them, each with its label file.

    The label of `a/images/b/c.jpg` is `a/labels/b/c.txt`; where no folder is called images, it lies beside the
    picture. A missing or empty label file means that there is nothing in the picture.

    Raises:
        FileNotFoundError: a picture is missing, or there is no label file at all.
    """
    root = source.path if source.path.is_dir() else None
    paths = _below(source.path, SUFFIXES) if root else _listed(source.path)
    labels = [_label_path(path) for path in paths]
    present = [label.is_file() for label in labels]
    if paths and not any(present):
        raise FileNotFoundError(f"{paths[0]} has no {labels[0]}, and no other picture of {source.path} has a label")
    if root:
        _check_no_orphans(root, set(labels))
    report.remarks["pictures have no label file and are taken as pictures without objects"] += present.count(False)
    pictures = []
    for path, label, has_label in zip(paths, labels, present, strict=True):
        name = flat_name(str(path), path.relative_to(root).as_posix()) if root else path.name
        pictures.append(Picture(path, name, partial(_annotations, label if has_label else None, names)))
    return pictures


def _annotations(path: Path | None, names: tuple[str, ...], size: Size) -> list[Annotation]:
    """Objects of one label file, in pixels of a picture of `size`."""
    found = []
    for where, line in numbered_lines(path) if path else ():
        number, *fields = line.split()
        name = names[whole_number(where, "the class", number, 0, len(names) - 1)]
        values = numbers(where, "a coordinate", fields)
        if len(values) == 4:
            centre_x, centre_y, width, height = values
            xs, ys = [centre_x - width / 2, centre_x + width / 2], [centre_y - height / 2, centre_y + height / 2]
        elif len(values) >= 6 and len(values) % 2 == 0:
            xs, ys = values[0::2], values[1::2]
            xs, ys = [min(xs), max(xs)], [min(ys), max(ys)]
        else:
            raise ValueError(f"{where}: {len(fields) + 1} fields, not `class cx cy w h` or a polygon; {WAY_OUT}")
        if not all(-FAR <= value <= 1 + FAR for value in (*xs, *ys)):
            raise ValueError(f"{where}: {line[:80]!r} is not in fractions of the picture; divide by its sides")
        found.append(Annotation(where, name, (xs[0] * size[0], ys[0] * size[1], xs[1] * size[0], ys[1] * size[1])))
    return found


def _below(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files at any depth, hidden ones passed over."""
    return sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def _listed(path: Path) -> list[Path]:
    """Pictures that a text file names, one a line, relative to the file or to the folder that holds it."""
    found = []
    for where, line in numbered_lines(path):
        picture = path.parent / line
        if not picture.is_file():
            raise FileNotFoundError(f"{where}: there is no picture {picture}; correct or remove the line")
        found.append(picture)
    return found


def _label_path(picture: Path) -> Path:
    """Where the label of a picture lies."""
    parts = list(picture.parts)
    if "images" in parts[:-1]:
        place = len(parts) - 2 - parts[-2::-1].index("images")
        parts[place] = "labels"
    return Path(*parts).with_suffix(".txt")


def _check_no_orphans(root: Path, labels: set[Path]) -> None:
    """Raises FileNotFoundError for a label file without a picture."""
    folder = _label_path(root / "any").parent
    if folder == root or not folder.is_dir():  # beside pictures lie other texts too
        return
    for path in _below(folder, frozenset({".txt"})):
        if path not in labels and path.name != "classes.txt":
            raise FileNotFoundError(f"{path} has no picture below {root}; restore the picture or remove the file")
