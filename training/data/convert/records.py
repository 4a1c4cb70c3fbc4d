"""What every format is read into before it is written: pictures, each with a way to read its objects."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Size = tuple[int, int]
"""(width, height) in pixels, as stored."""


@dataclass(frozen=True)
class Annotation:
    """One object as its file states it, not yet checked against the picture."""

    where: str
    """File and line, or file and place in it, for messages."""
    name: str | None
    """Class; None for a region in which objects of every class are to be ignored."""
    corners: tuple[float, float, float, float]
    """x1, y1, x2, y2 in stored pixels; x2 and y2 are the first pixels outside."""
    difficult: bool = False
    """Marked difficult, ignored or crowd by the source."""


@dataclass(frozen=True)
class Box:
    """One object that can be written: inside the picture and with an area."""

    corners: tuple[float, float, float, float]
    label: int | None
    """Place in the class list; None stands for every class, and only where `crowd` is set."""
    crowd: bool


@dataclass(frozen=True)
class Picture:
    """One picture, and how its objects are read once its size is known."""

    path: Path
    name: str
    """File name in the new layout."""
    read: Callable[[Size], list[Annotation]]


@dataclass(frozen=True)
class Dataset:
    """Everything that one command converts."""

    classes: tuple[str, ...]
    """Names in label order."""
    splits: Mapping[str, Sequence[Picture]]
    ignored: frozenset[str] = frozenset()
    """Classes whose objects are left out."""
