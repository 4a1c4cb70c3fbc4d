"""The folder that scenes are kept in: a table of jobs, and a folder of its own for each.

Every process of a service works on the same folder. Names in it are ours alone; what callers call a file is never one.
Nothing is made before the first scene comes. All methods block.
"""

import os
import re
import shutil
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from time import time

from service.errors import StorageError, UnknownSceneError
from service.scenes.jobs import UNFINISHED, Job, JobTable, Quota, new_id
from service.scenes.storage import remove_tree, storage_errors

_RETRIED = ("failed", "cancelled")
_STALE_SECONDS = 3600.0  # an upload that no byte came for in this time belongs to a process that died
_PART = ".part"
_RESERVE = "reserve"
_RESERVE_BYTES = 128 * 1024  # some pages of the table of jobs
_OURS = re.compile(r"[0-9a-f]{32}(\.part)?")  # the folder may hold what somebody else put there


@dataclass(frozen=True)
class JobFolder:
    """The files of one job."""

    path: Path

    @property
    def scene(self) -> Path:
        """The upload."""
        return self.path / "scene"

    @property
    def tiles(self) -> Path:
        """The tile table."""
        return self.path / "tiles.sqlite"

    @property
    def heat(self) -> Path:
        """Density and heat, where they were asked for."""
        return self.path / "heat.tif"

    @property
    def overview(self) -> Path:
        """The whole scene as a small picture, once it was asked for."""
        return self.path / "overview.jpg"

    def drop_results(self) -> None:
        """Remove all but the upload, so that the work begins anew."""
        for name in os.listdir(self.path):
            if name != self.scene.name:
                (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[bool]:
        """Whether this caller alone may prepare, complete or write now. A process that dies lets go by itself."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                flock(descriptor, LOCK_EX if wait else LOCK_EX | LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    @contextmanager
    def at_work(self, release: Callable[[], None]) -> Iterator[None]:
        """Be known to work on the tiles of the job.

        Args:
            release: called where nobody else is known to, so that what is lent was lent to a process that died.
        """
        with (self.path / "at-work").open("w") as file:
            with suppress(BlockingIOError):
                flock(file, LOCK_EX | LOCK_NB)
                release()
            flock(file, LOCK_SH)
            yield


class SceneStore:
    """Takes, lists, cancels and deletes jobs.

    Raises:
        StorageError: from every method, where the folder cannot be used.
    """

    def __init__(self, folder: Path, quota: Quota, keep_seconds: float) -> None:
        self._folder, self._quota, self._keep_seconds = folder, quota, keep_seconds
        self._lock = threading.Lock()
        self._table: JobTable | None = None

    @property
    def exists(self) -> bool:
        """Whether any scene was ever taken here."""
        return self._table is not None or self._folder.is_dir()

    @property
    def jobs(self) -> JobTable:
        """The table of jobs, made with its folder where there is none."""
        with self._lock:
            if self._table is None:
                with storage_errors():
                    _make_private(self._folder)
                self._table = JobTable(self._folder / "jobs.sqlite", self._quota)
            return self._table

    def folder_of(self, job: Job) -> JobFolder:
        """Where the files of a job lie."""
        return JobFolder(self._folder / job.id)

    def get(self, job_id: str) -> Job:
        """The job of this id. Raises UnknownSceneError."""
        if not self.exists:
            raise UnknownSceneError(f"no scene {job_id[:80]!r}: none has ever been sent here")
        return self.jobs.get(job_id)

    def begin_upload(self, size: int) -> Path:
        """A folder for an upload of this size, to be given to `take` or `drop`.

        Raises:
            SceneQueueFullError, StorageError: there is no room for it.
        """
        self.jobs.require_room(size)
        with storage_errors():
            free = shutil.disk_usage(self._folder).free
            if size > free:
                raise StorageError(f"the scene is of {size:,} bytes, and the disk has {free:,} left; try again later")
            folder = self._folder / f"{new_id()}{_PART}"
            folder.mkdir(mode=0o700)
        return folder

    def take(self, upload: Path, request: str, name: str, caller: str) -> Job:
        """Make a job of a complete upload. Raises as `begin_upload` does; the upload is then still there."""
        with storage_errors():
            size = JobFolder(upload).scene.stat().st_size
            job = Job(new_id(), request, name, caller, size)
            folder = self.folder_of(job).path
            upload.rename(folder)
            try:
                self.jobs.add(job)
            except BaseException:
                folder.rename(upload)
                raise
        return job

    def drop(self, upload: Path) -> None:
        """Remove an upload that came to nothing."""
        with storage_errors():
            remove_tree(upload)

    def cancel_or_delete(self, job_id: str) -> None:
        """End a job that is at work or waits; remove one that has ended. Raises UnknownSceneError."""
        job = self.get(job_id)
        if not self.jobs.move(job_id, UNFINISHED, "cancelled"):
            self._remove(job)

    def cancel(self, job_id: str) -> Job:
        """End a job that is at work or waits; what is finished of it is kept.

        Raises:
            UnknownSceneError, SceneStateError.
        """
        self.get(job_id)
        self.jobs.require_move(job_id, UNFINISHED, "cancelled")
        return self.jobs.get(job_id)

    def retry(self, job_id: str) -> Job:
        """Let a failed or cancelled job go on from its last finished tile.

        Raises:
            UnknownSceneError, SceneStateError.
        """
        self.get(job_id)
        self.jobs.require_move(job_id, _RETRIED, "queued", error="")
        return self.jobs.get(job_id)

    def keep_reserve(self) -> None:
        """Hold some room for `use_reserve`, where there is any."""
        path = self._folder / _RESERVE
        if not path.exists():
            try:
                path.write_bytes(bytes(_RESERVE_BYTES))
            except OSError:
                path.unlink(missing_ok=True)

    def use_reserve(self) -> None:
        """Make room on a full disk, so that it can be noted that the disk is full."""
        with storage_errors():
            (self._folder / _RESERVE).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove jobs that have been finished for long, and what killed processes left behind."""
        for job in self.jobs.finished_before(time() - self._keep_seconds):
            self._remove(job)
        with storage_errors():
            for entry in os.scandir(self._folder):
                if _OURS.fullmatch(entry.name) and self._is_left_behind(entry):
                    remove_tree(Path(entry.path))

    def _is_left_behind(self, entry: "os.DirEntry[str]") -> bool:
        try:
            times = (part.stat().st_mtime for part in (Path(entry.path), Path(entry.path) / "scene") if part.exists())
            if max(times, default=0) > time() - _STALE_SECONDS:
                return False
            self.jobs.get(entry.name)
        except (UnknownSceneError, FileNotFoundError):
            return True
        return False

    def _remove(self, job: Job) -> None:
        """Files first: a row without files can still be deleted, files without a row only wait for the sweep."""
        with storage_errors():
            remove_tree(self.folder_of(job).path)
        self.jobs.remove(job.id)

    def close(self) -> None:
        """Close the table."""
        with self._lock:
            if self._table is not None:
                self._table.close()


def _make_private(folder: Path) -> None:
    """Make the folder, for this user only; where everyone may make one, as in /tmp, it must be this user's."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_ours and folder.parent.stat().st_mode & stat.S_IWOTH:
        raise StorageError("the scenes folder (HEATQUERY_SCENES) is a link or another user's; name a folder of its own")
