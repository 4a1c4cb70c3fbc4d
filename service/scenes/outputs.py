"""Which files a command reads, and where what it finds in each is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from service.scenes.kinds import RESULT_KINDS, SUFFIXES, ResultKind

INPUT_SUFFIXES = (".tif", ".tiff", ".jpg", ".jpeg", ".png")
_KIND_OF_SUFFIX: dict[str, ResultKind] = {suffix: kind for kind, suffix in SUFFIXES.items()}


class UsageError(Exception):
    """The command line asks for what cannot be done; the message says what to write instead."""


@dataclass(frozen=True)
class Outputs:
    """Where things go: files for one input, folders for several.

    Attributes:
        kind: of the result; None where the ending of `out` says it.
    """

    out: Path
    kind: ResultKind | None
    heat: Path | None
    preview: Path | None


@dataclass(frozen=True)
class Task:
    """One input with what is made of it; the result is written last, so that it stands for all."""

    source: Path
    result: Path
    kind: ResultKind
    heat: Path | None
    preview: Path | None

    @property
    def state(self) -> Path:
        """The tiles that are finished, until the result is."""
        return self.result.with_name(f"{self.result.name}.state")

    @property
    def written(self) -> tuple[Path, ...]:
        """All files that are made."""
        return tuple(path for path in (self.result, self.heat, self.preview, self.state) if path is not None)


def plan_tasks(places: Sequence[str], outputs: Outputs) -> list[Task]:
    """Find the inputs and name their outputs.

    Args:
        places: files, folders (the pictures in them, not those in folders below), or patterns with `*` and `**`.
    Raises:
        UsageError: nothing found, outputs that collide, or a format that is not clear.
    """
    sources = _find(places)
    kind = outputs.kind or _KIND_OF_SUFFIX.get(outputs.out.suffix.lower())
    if kind is None:
        raise UsageError(
            f"--out {outputs.out}: write a file that ends in {', '.join(_KIND_OF_SUFFIX)}, "
            f"or a folder with --format {{{','.join(RESULT_KINDS)}}}"
        )
    named = _KIND_OF_SUFFIX.get(outputs.out.suffix.lower(), kind)
    if named != kind and not outputs.out.is_dir():
        raise UsageError(
            f"--out {outputs.out} ends as {named} does, and --format says {kind}: leave --format out, or name a folder"
        )
    is_file = outputs.out.suffix.lower() == SUFFIXES[kind] and not outputs.out.is_dir()
    if is_file and len(sources) > 1:
        raise UsageError(
            f"--out {outputs.out}: there are {len(sources):,} inputs, so name a folder: "
            f"--out {outputs.out.with_suffix('')} --format {kind}"
        )
    if is_file:
        tasks = [Task(sources[0], outputs.out, kind, outputs.heat, outputs.preview)]
    else:
        tasks = [_in_folders(source, kind, outputs) for source in sources]
    _refuse_collisions(tasks)
    return tasks


def _find(places: Sequence[str]) -> list[Path]:
    found: dict[Path, None] = {}  # in the order given, each once
    for place in places:
        path = Path(place)
        if path.is_dir():
            inside = sorted(each for each in path.iterdir() if each.suffix.lower() in INPUT_SUFFIXES)
        elif path.is_file():
            inside = [path]  # also where its name has a * or a [
        else:
            inside = sorted(each for each in map(Path, glob(place, recursive=True)) if each.is_file())
        if not inside and path.is_dir():
            raise UsageError(f"{place}: no files in it that end in {', '.join(INPUT_SUFFIXES)}")
        if not inside:
            raise UsageError(f"{place}: no such file or folder, and no pattern that fits any")
        found.update(dict.fromkeys(inside))
    return list(found)


def _in_folders(source: Path, kind: ResultKind, outputs: Outputs) -> Task:
    name = source.stem
    return Task(
        source,
        outputs.out / f"{name}{SUFFIXES[kind]}",
        kind,
        None if outputs.heat is None else outputs.heat / f"{name}.tif",
        None if outputs.preview is None else outputs.preview / f"{name}.png",
    )


def _refuse_collisions(tasks: Sequence[Task]) -> None:
    """No output may fall on an input, nor on the output of another input."""
    inputs = {task.source.resolve(): task.source for task in tasks}
    owners: dict[Path, Path] = {}
    for task in tasks:
        for path in task.written:
            place = path.resolve()
            if place in inputs:
                raise UsageError(f"{path} would be written over the input {inputs[place]}: name another place")
            if place in owners:
                raise UsageError(
                    f"{path} would be written for {owners[place]} and for {task.source}: "
                    "name different places, or run them one by one"
                )
            owners[place] = task.source
