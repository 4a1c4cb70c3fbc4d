"""The jobs that are known, in one SQLite file that all processes of a service share."""

import re
import secrets
import sqlite3
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from time import time
from typing import Literal

from service.errors import SceneQueueFullError, SceneStateError, StorageError, UnknownSceneError
from service.scenes.storage import SharedDatabase

State = Literal["queued", "reading", "running", "merging", "done", "failed", "cancelled"]
UNFINISHED: tuple[State, ...] = ("queued", "reading", "running", "merging")
FINAL: tuple[State, ...] = ("done", "failed", "cancelled")
_LOG_PAGES = 8  # that a job failed for want of room must still be noted
_ID = re.compile(r"[0-9a-f]{32}")


def new_id() -> str:
    """A name that nobody can guess."""
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Job:
    """One scene and how far it is.

    Attributes:
        request: a `SceneRequest` as JSON.
        name: what the caller calls the file, for results that name it; never a path of ours.
        caller: who sent it, where callers have keys.
        bytes: of the file.
        created, updated: seconds since 1970; `updated` is when `state` last changed.
        width, height: of the scene in native pixels; 0 before it was read.
        objects: while it runs, before those on seams are put together.
        tiles_per_second: in the present run.
        notes: one a line.
        error: why it failed.
    """

    id: str
    request: str
    name: str
    caller: str
    bytes: int
    created: float = field(default_factory=time)
    updated: float = field(default_factory=time)
    state: State = "queued"
    width: int = 0
    height: int = 0
    tiles: int = 0
    done: int = 0
    skipped: int = 0
    objects: int = 0
    tiles_per_second: float = 0.0
    notes: str = ""
    error: str = ""

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to it by itself."""
        return self.state in FINAL


_COLUMNS = [column.name for column in fields(Job)]
_SCHEMA = f"CREATE TABLE IF NOT EXISTS job ({', '.join(_COLUMNS)}, PRIMARY KEY (id)) WITHOUT ROWID"


@dataclass(frozen=True)
class Quota:
    """How much may be kept.

    Attributes:
        waiting: jobs that are not finished.
        bytes: files of all jobs together.
    """

    waiting: int
    bytes: int


class JobTable(SharedDatabase):
    """One open table; safe to use from several threads.

    Raises:
        StorageError: from every method, where the file cannot be read or written.
    """

    def __init__(self, path: Path, quota: Quota) -> None:
        self._quota = quota
        super().__init__(path, _LOG_PAGES)
        with self._writing() as database:
            database.execute(_SCHEMA)

    def require_room(self, size: int) -> None:
        """Raises SceneQueueFullError or StorageError where a job with a file of this size would not be taken."""
        with self._reading() as database:
            self._require_room(database, size)

    def add(self, job: Job) -> None:
        """Take a new job. Raises as `require_room` does."""
        with self._writing() as database:
            self._require_room(database, job.bytes)
            places = ", ".join("?" * len(_COLUMNS))
            database.execute(f"INSERT INTO job ({', '.join(_COLUMNS)}) VALUES ({places})", astuple(job))

    def _require_room(self, database: sqlite3.Connection, size: int) -> None:
        query = f"SELECT TOTAL(state IN {UNFINISHED}), TOTAL(bytes) FROM job"
        waiting, kept = map(int, database.execute(query).fetchone())
        if waiting >= self._quota.waiting:
            raise SceneQueueFullError(
                f"{waiting} scenes are being worked on or waiting (HEATQUERY_SCENE_QUEUE); try again later"
            )
        if kept + size > self._quota.bytes:
            raise StorageError(
                f"{kept:,} bytes of scenes are kept, and {size:,} more would be over {self._quota.bytes:,} "
                "(HEATQUERY_SCENE_DISK_BYTES); DELETE finished scenes, or wait until they expire"
            )

    def get(self, job_id: str) -> Job:
        """The job of this id. Raises UnknownSceneError."""
        found = self._select("id = ?", job_id) if _ID.fullmatch(job_id) else []
        if not found:
            raise UnknownSceneError(f"no scene {job_id[:80]!r}: never sent, deleted, or expired; send it again")
        return found[0]

    def of_caller(self, caller: str) -> list[Job]:
        """All jobs of a caller, the newest first."""
        return self._select("caller = ? ORDER BY created DESC, id", caller)

    def unfinished(self) -> list[Job]:
        """Jobs to be worked on, the oldest first."""
        return self._select(f"state IN {UNFINISHED} ORDER BY created, id")

    def finished_before(self, moment: float) -> list[Job]:
        """Jobs that have been finished since then."""
        return self._select(f"state IN {FINAL} AND updated < ?", moment)

    def _select(self, where: str, *values: str | float) -> list[Job]:
        with self._reading() as database:
            rows = database.execute(f"SELECT {', '.join(_COLUMNS)} FROM job WHERE {where}", values)
            return [Job(*row) for row in rows]

    def move(self, job_id: str, before: tuple[State, ...], after: State, **changes: str | float) -> bool:
        """Change the state, with other columns, where it is one of `before`; whether it was."""
        return self._update(job_id, before, {**changes, "state": after, "updated": time()})

    def require_move(self, job_id: str, before: tuple[State, ...], after: State, **changes: str | float) -> None:
        """The same for a caller's wish. Raises UnknownSceneError, SceneStateError."""
        if not self.move(job_id, before, after, **changes):
            raise SceneStateError(f"the scene is {self.get(job_id).state}; only {' or '.join(before)} ones can be")

    def progress(self, job_id: str, **changes: float) -> bool:
        """Note how far a running job is; whether it still runs."""
        return self._update(job_id, ("running",), changes)

    def _update(self, job_id: str, before: tuple[State, ...], changes: Mapping[str, str | float]) -> bool:
        assignments = ", ".join(f"{name} = ?" for name in changes)
        allowed = ", ".join("?" * len(before))
        with self._writing() as database:
            query = f"UPDATE job SET {assignments} WHERE id = ? AND state IN ({allowed})"
            return database.execute(query, (*changes.values(), job_id, *before)).rowcount == 1

    def remove(self, job_id: str) -> bool:
        """Forget a finished job; whether there was one."""
        with self._writing() as database:
            return database.execute(f"DELETE FROM job WHERE id = ? AND state IN {FINAL}", (job_id,)).rowcount == 1
