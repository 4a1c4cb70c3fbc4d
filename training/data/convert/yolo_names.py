"""What a YOLO folder says about itself: class names, and which folders are train, val and test."""

from pathlib import Path
from typing import Any

import yaml

from training.data.convert.lines import numbered_lines, read_text
from training.data.convert.sources import Source

SPLITS = ("train", "val", "test")


def expand(source: Source) -> list[Source]:
    """The picture folders of a source.

    A `data.yaml` that names splits gives them. A folder is taken as one split, with its pictures in
    `images/<detail>`, or in `images` if there is no detail.

    Raises:
        FileNotFoundError: a folder that should hold pictures is missing.
        ValueError: the YAML file is malformed, or a split is stated twice.
    """
    if source.path.is_file():
        if source.split is not None or source.detail is not None:
            raise ValueError(f"{source.path} names its own splits; give it without SPLIT= and :SUBFOLDER")
        return _from_yaml(source.path)
    folder = source.path / "images" / (source.detail or "")
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}; a YOLO folder has images/ and labels/, or a data.yaml")
    return [Source(source.split, folder)]


def class_names(sources: list[Source]) -> tuple[str, ...]:
    """Names in the order of their numbers, from `data.yaml` or `classes.txt`.

    Raises:
        FileNotFoundError: a folder has none of these files.
        ValueError: the names are malformed, or the sources have different ones.
    """
    found = [_names(source.path) for source in sources]
    for source, names in zip(sources, found, strict=True):
        if names != found[0]:
            raise ValueError(f"{source.path} and {sources[0].path} have different classes; convert them apart")
    return found[0]


def _names(path: Path) -> tuple[str, ...]:
    """Class names of one source."""
    if path.is_file():
        return _names_from_yaml(path)
    if (path / "data.yaml").is_file():
        return _names_from_yaml(path / "data.yaml")
    for listed in (path / "classes.txt", path / "labels" / "classes.txt"):
        if listed.is_file():
            return _checked(listed, [line for _, line in numbered_lines(listed)])
    raise FileNotFoundError(f"there is neither data.yaml nor classes.txt in {path}; write the class names, one a line")


def _names_from_yaml(path: Path) -> tuple[str, ...]:
    """`names` of a YAML file: a list, or numbers with names."""
    data = _load(path)
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise ValueError(f"{path}: names are numbered {list(names)}, not 0 to {len(names) - 1}; correct it")
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list):
        raise ValueError(f"{path}: names is {names!r}, not a list of class names; add it")
    if data.get("nc", len(names)) != len(names):
        raise ValueError(f"{path}: nc is {data['nc']!r}, but there are {len(names)} names; correct one of them")
    return _checked(path, names)


def _checked(path: Path, names: list[Any]) -> tuple[str, ...]:
    """Names as texts, each once; YAML reads 7 as a number and yes as a truth value."""
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int):
            raise ValueError(f"{path}: class name {name!r} is not a text; put it in quotes")
    texts = tuple(str(name) for name in names)
    if not texts or len(set(texts)) != len(texts):
        raise ValueError(f"{path}: the class names {list(texts)} are none, or one is there twice; correct it")
    return texts


def _from_yaml(path: Path) -> list[Source]:
    """Sources of the splits that a YAML file names."""
    data = _load(path)
    root = path.parent / str(data.get("path") or "")
    sources = []
    for split in SPLITS:
        entries = data.get(split) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            sources.append(Source(split, _resolve(path, root, str(entry))))
    if not sources:
        raise ValueError(f"{path} names neither train, val nor test; give its folder as SPLIT=FOLDER instead")
    return sources


def _resolve(path: Path, root: Path, entry: str) -> Path:
    """A folder or list of pictures. Some exporters write `../train` for a folder beside the file."""
    for candidate in (root / entry, path.parent / entry, path.parent / entry.removeprefix("../")):
        if candidate.exists():
            return candidate.resolve()
    raise FileNotFoundError(f"{path}: there is no {entry!r} in {root}; correct the entry or `path`")


def _load(path: Path) -> dict[str, Any]:
    """The top mapping of a YAML file."""
    try:
        data = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise ValueError(f"{path}:{line}: not YAML: {getattr(error, 'problem', None) or error}; correct it") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path}: not a mapping with `names`; correct it")
    return data
