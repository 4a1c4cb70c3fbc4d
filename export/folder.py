"""A model folder that is whole or not there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from model.config import Config


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give a folder to fill; it becomes `out` when the block ends well and vanishes when it does not.

    Args:
        out: FOLDER/NAME/VERSION; it is filled beside NAME, where nobody looks for versions.
    Raises:
        FileExistsError: there is something at `out`.
    """
    made = [folder for folder in (out.parent, *out.parent.parents) if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.parent.name}-{out.name}-", dir=out.parent.parent))
    try:
        yield partial
        refuse_existing(out)
        partial.chmod(0o755)
        partial.rename(out)
    except BaseException:
        shutil.rmtree(partial)
        for folder in made:
            with contextlib.suppress(OSError):  # somebody else put something there
                folder.rmdir()
        raise


def refuse_existing(out: Path) -> None:
    """Raise FileExistsError if there is something at `out`: a published version never changes."""
    if out.exists():
        raise FileExistsError(f"{out} exists, and a version never changes; choose another version")


AnyConfig = TypeVar("AnyConfig", bound=Config)


def read_json(path: Path, schema: type[AnyConfig]) -> AnyConfig:
    """Read a part of a model folder. Raises FileNotFoundError, or ValueError if it is not what it should be."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "content"
        raise ValueError(f"{path}: {where}: {first['msg']}; export the model again") from error


def replace_json(path: Path, content: Config) -> None:
    """Write a file of the folder for people and machines, whole or not at all."""
    write_whole(path, (content.model_dump_json(indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, 0o644)  # a temporary file is private at first
            file.write(content)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
