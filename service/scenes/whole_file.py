"""Files that appear whole or not at all."""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import StorageError


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A path to write to. The file takes the place of `path` when all went well; else nothing is left of it.

    The name is always the same, so that what a killed process left behind goes with the next try.

    Raises:
        StorageError: the folder cannot be written, or its disk is full.
    """
    partial = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_with_companions(partial)
        try:
            yield partial
            _to_disk(partial)
            partial.replace(path)
        finally:
            remove_with_companions(partial)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{path.name} cannot be written: {reason}. What was found is kept: go on once that is mended"
        ) from error


def _to_disk(path: Path) -> None:
    """A power cut after the renaming must not leave an empty file under the final name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def remove_with_companions(path: Path) -> None:
    """Remove a file and what GDAL or SQLite lays beside it under longer names."""
    for leftover in path.parent.glob(f"{glob.escape(path.name)}*"):
        leftover.unlink(missing_ok=True)
