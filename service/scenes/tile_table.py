"""The tiles of one scene and what was found in each, in one SQLite file: what is finished survives a kill.

Several threads or processes may work on one table. A tile is lent for a while; a lender that lives says so from time to
time, and what a dead one held goes to others. The first result of a tile stays, so that none counts twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time

from service.errors import SceneStateError
from service.scenes.storage import SharedDatabase

# A tile has a row from the moment it is first lent, so that a table of a million tiles is made in no time.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS scene (
    fingerprint TEXT NOT NULL,
    tiles INTEGER NOT NULL,
    untouched INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0,
    objects INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS tile (number INTEGER PRIMARY KEY, owner TEXT, lent_until REAL, payload BLOB);
CREATE INDEX IF NOT EXISTS lent ON tile (lent_until) WHERE payload IS NULL;
"""
_LOG_PAGES = 256
_BATCH = 256  # payloads read at once


class OtherSceneError(SceneStateError):
    """The table holds tiles of another scene, model or way of cutting."""


@dataclass(frozen=True)
class Counts:
    """How far a scene is.

    Attributes:
        tiles: of the scene.
        done: finished ones, the skipped included.
        skipped: without a valid pixel, so that the model never saw them.
        objects: found so far, before those on seams are put together.
    """

    tiles: int
    done: int
    skipped: int
    objects: int

    @property
    def complete(self) -> bool:
        """Whether every tile is finished."""
        return self.done == self.tiles


class TileTable(SharedDatabase):
    """One open table; safe to use from several threads.

    Raises:
        StorageError: from every method, where the file cannot be read or written, for example on a full disk.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _LOG_PAGES)

    def create(self, fingerprint: str, tiles: int) -> None:
        """Begin a scene, or go on with the same one.

        Args:
            fingerprint: of all that a tile's result follows from.
        Raises:
            OtherSceneError: the table is of something else.
        """
        with self._writing() as database:
            for statement in _SCHEMA.split(";"):
                database.execute(statement)
            row = database.execute("SELECT fingerprint, tiles FROM scene").fetchone()
            if row is None:
                database.execute("INSERT INTO scene (fingerprint, tiles) VALUES (?, ?)", (fingerprint, tiles))
            elif row != (fingerprint, tiles):
                raise OtherSceneError(
                    f"begun with {row[1]:,} tiles of the fingerprint {row[0][:12]}, not with {tiles:,} of "
                    f"{fingerprint[:12]}: the file, the model or the options differ"
                )

    def lease(self, owner: str, most: int, seconds: float) -> list[int]:
        """Lend up to `most` tiles, in their order; those of an owner who fell silent come first."""
        now = time()
        with self._writing() as database:
            numbers = [
                number
                for (number,) in database.execute(
                    "SELECT number FROM tile WHERE payload IS NULL AND lent_until < ? ORDER BY number LIMIT ?",
                    (now, most),
                )
            ]
            tiles, untouched = database.execute("SELECT tiles, untouched FROM scene").fetchone()
            beyond = min(tiles, untouched + most - len(numbers))
            numbers += range(untouched, beyond)
            database.execute("UPDATE scene SET untouched = ?", (beyond,))
            database.executemany(
                "INSERT INTO tile (number, owner, lent_until) VALUES (?, ?, ?) "
                "ON CONFLICT (number) DO UPDATE SET owner = excluded.owner, lent_until = excluded.lent_until",
                [(number, owner, now + seconds) for number in numbers],
            )
        return numbers

    def heartbeat(self, owner: str, seconds: float) -> None:
        """Keep what the owner holds for another while."""
        with self._writing() as database:
            database.execute(
                "UPDATE tile SET lent_until = ? WHERE owner = ? AND payload IS NULL", (time() + seconds, owner)
            )

    def release(self, owner: str | None = None) -> None:
        """Give back what the owner holds; without one, all that is held: only where nobody else can be at work."""
        with self._writing() as database:
            database.execute(
                "UPDATE tile SET lent_until = 0 WHERE payload IS NULL AND (? IS NULL OR owner = ?)", (owner, owner)
            )

    def held_by_others(self, owner: str) -> bool:
        """Whether tiles are still out with somebody else, and may come back."""
        with self._reading() as database:
            held = "SELECT 1 FROM tile INDEXED BY lent WHERE payload IS NULL AND lent_until >= 0 AND owner <> ?"
            return database.execute(held, (owner,)).fetchone() is not None

    def finish(self, number: int, payload: bytes, skipped: bool = False, objects: int = 0) -> bool:
        """Keep what was found in a tile; false where somebody else was faster, whose result then stands.

        A tile need not be lent: an engine that shares out the work by itself only keeps its results here.
        """
        with self._writing() as database:
            changed = database.execute(
                "INSERT INTO tile (number, payload) VALUES (?, ?) "
                "ON CONFLICT (number) DO UPDATE SET payload = excluded.payload, owner = NULL WHERE payload IS NULL",
                (number, payload),
            )
            if changed.rowcount == 1:
                totals = "UPDATE scene SET done = done + 1, skipped = skipped + ?, objects = objects + ?"
                database.execute(totals, (skipped, objects))
            return changed.rowcount == 1

    def counts(self) -> Counts:
        """How far the scene is."""
        with self._reading() as database:
            return Counts(*database.execute("SELECT tiles, done, skipped, objects FROM scene").fetchone())

    def unfinished(self) -> list[int]:
        """Numbers of all tiles without a result, lent or not."""
        with self._reading() as database:
            (tiles,) = database.execute("SELECT tiles FROM scene").fetchone()
            done = {number for (number,) in database.execute("SELECT number FROM tile WHERE payload IS NOT NULL")}
        return [number for number in range(tiles) if number not in done]

    def payloads(self) -> Iterator[tuple[int, bytes]]:
        """Every finished tile in order; little is in memory at any time."""
        last = -1
        while rows := self._rows_after(last):
            yield from rows
            last = rows[-1][0]

    def _rows_after(self, last: int) -> Sequence[tuple[int, bytes]]:
        with self._reading() as database:
            query = "SELECT number, payload FROM tile WHERE number > ? AND payload IS NOT NULL ORDER BY number LIMIT ?"
            return database.execute(query, (last, _BATCH)).fetchall()
