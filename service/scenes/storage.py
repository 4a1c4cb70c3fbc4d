"""SQLite and files as scenes use them: what several processes share, and what a full disk or a kill may not break."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import StorageError

_BUSY_SECONDS = 30.0  # a writer waits this long for another one
_BROKEN = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)


def _connect(path: Path, log_pages: int) -> sqlite3.Connection:
    """Open a database, to be used from one thread at a time; transactions are begun by hand.

    A killed process loses nothing that it committed; with `synchronous=NORMAL` a power cut may take the last
    transactions, whole ones, and never breaks the file.

    Args:
        log_pages: length of the write-ahead log (pages of 4 KB) from which it is written over from its beginning. Small
            changes of a database with a short log take no new room, so that they succeed on a full disk.
    Raises:
        StorageError.
    """
    with storage_errors():
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {log_pages:d}")
    return connection


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All or nothing, and nobody else writes meanwhile.

    Raises:
        StorageError.
    """
    with storage_errors():
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")


@contextmanager
def storage_errors() -> Iterator[None]:
    """Tell a full, read-only or broken disk apart from faults of ours; paths stay out of the message.

    Raises:
        StorageError.
    """
    try:
        yield
    except OSError as error:
        raise StorageError(f"the scenes folder cannot be written: {error.strerror or error}") from error
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in _BROKEN:
            raise
        raise StorageError(f"the scenes folder cannot be written: {error}") from error


class SharedDatabase:
    """One open database; safe to use from several threads, beside other processes.

    Raises:
        StorageError: from every method, where the file cannot be read or written.
    """

    def __init__(self, path: Path, log_pages: int) -> None:
        self._lock = threading.Lock()
        self._connection = _connect(path, log_pages)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._lock, storage_errors():
            yield self._connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _transaction(self._connection) as database:
            yield database


def remove_tree(folder: Path) -> None:
    """Remove a folder of plain files, as far as it is there: somebody else may be at it, too."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()
