"""What to convert, and into which split: `SPLIT=PATH:DETAIL` on the command line, lists and shares for val."""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.convert.lines import numbered_lines
from training.data.convert.records import Picture

Splits = dict[str, list[Picture]]


@dataclass(frozen=True)
class Source:
    """One thing to convert."""

    split: str | None
    """Name of the split, if stated."""
    path: Path
    detail: str | None = None
    """What stands behind the last colon; each format says what it means."""


def parse_source(text: str) -> Source:
    """Read `[SPLIT=]PATH[:DETAIL]`; a path that exists as it is written is not taken apart.

    Raises:
        FileNotFoundError: there is no such path.
    """
    split, path = None, text
    if not Path(text).exists() and (match := re.fullmatch(r"([A-Za-z0-9_-]+)=(.+)", text)):
        split, path = match.groups()
    detail = None
    if not Path(path).exists() and ":" in path:
        path, detail = path.rsplit(":", 1)
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {path}; a source is written [SPLIT=]PATH")
    return Source(split, Path(path), detail)


def gather(sources: Sequence[Source], read: Callable[[Source], list[Picture]], prefix: bool) -> Splits:
    """Read every source into its split, "train" unless stated.

    Args:
        prefix: put the split and the number of the source in it before each name, as in `val2_0001.jpg`.
    """
    splits: Splits = {}
    number: dict[str, int] = {}
    for source in sources:
        split = source.split or "train"
        number[split] = number.get(split, 0) + 1
        start = f"{split}{number[split]}_" if prefix else ""
        pictures = [replace(picture, name=start + picture.name) for picture in read(source)]
        splits.setdefault(split, []).extend(pictures)
    return splits


def val_by_share(splits: Splits, share: float, seed: int) -> Splits:
    """Move a share of the train pictures to val: the same ones for the same names and seed, in any order.

    Raises:
        ValueError: not a share, or one that leaves train or val without a picture.
    """
    if not 0 < share < 1:
        raise ValueError(f"--val-share is {share}; it must lie between 0 and 1, such as 0.2 for a fifth")
    train = splits.get("train", [])
    count = round(share * len(train))
    if not 0 < count < len(train):
        raise ValueError(f"--val-share {share} takes {count} of {len(train)} train pictures; both splits need some")
    order = sorted(train, key=lambda picture: hashlib.sha256(f"{seed}:{picture.name}".encode()).digest())
    return _move(splits, {picture.name for picture in order[:count]})


def val_by_list(splits: Splits, path: Path) -> Splits:
    """Move the train pictures that a file names, one a line, with or without suffix, to val.

    Raises:
        ValueError: a name is not among the train pictures, or nothing is left for one of the splits.
    """
    train = splits.get("train", [])
    names = {key: picture.name for picture in train for key in (picture.name, Path(picture.name).stem)}
    chosen = set()
    for where, line in numbered_lines(path):
        if line not in names:
            raise ValueError(f"{where}: {line!r} is not among the {len(train)} train pictures; correct or remove it")
        chosen.add(names[line])
    if not 0 < len(chosen) < len(train):
        raise ValueError(f"{path} names {len(chosen)} of {len(train)} train pictures; both splits need some")
    return _move(splits, chosen)


def check_unique(splits: Mapping[str, Sequence[Picture]]) -> None:
    """Raises ValueError if a file is used twice, two files have one name, or a split is empty."""
    split_of: dict[Path, str] = {}
    path_of: dict[str, Path] = {}
    for split, pictures in splits.items():
        if not pictures:
            raise ValueError(f"there is no picture for {split}")
        for picture in pictures:
            if (path := picture.path.resolve()) in split_of:
                raise ValueError(f"{path} is used twice, in {split_of[path]} and in {split}; name each picture once")
            if (other := path_of.get(picture.name)) is not None:
                raise ValueError(
                    f"{picture.path} and {other} have one name; --prefix tells sources apart, otherwise rename one"
                )
            split_of[path], path_of[picture.name] = split, picture.path


def _move(splits: Splits, names: set[str]) -> Splits:
    """The splits with the named train pictures in val."""
    train = splits["train"]
    moved = [picture for picture in train if picture.name in names]
    stay = [picture for picture in train if picture.name not in names]
    return {**splits, "train": stay, "val": [*splits.get("val", []), *moved]}
