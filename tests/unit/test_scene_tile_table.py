"""The tile table: leases, what comes back from the dead, results that count once."""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.errors import StorageError
from service.scenes.tile_table import Counts, OtherSceneError, TileTable


@pytest.fixture
def open_table(tmp_path: Path) -> Iterator[Callable[..., TileTable]]:
    opened: list[TileTable] = []

    def open_one(tiles: int = 10, fingerprint: str = "a" * 64) -> TileTable:
        opened.append(TileTable(tmp_path / "tiles.sqlite"))
        opened[-1].create(fingerprint, tiles)
        return opened[-1]

    yield open_one
    for table in opened:
        table.close()


def test_tiles_are_lent_in_order_and_once(open_table: Callable[..., TileTable]) -> None:
    table = open_table(5)
    assert [table.lease("a", 2, 60), table.lease("b", 2, 60), table.lease("a", 2, 60)] == [[0, 1], [2, 3], [4]]
    assert table.lease("b", 2, 60) == []


def test_a_lease_that_ran_out_goes_to_another(open_table: Callable[..., TileTable]) -> None:
    table = open_table(3)
    table.lease("dead", 2, -1)
    assert table.lease("b", 3, 60) == [0, 1, 2]


def test_a_heartbeat_keeps_a_lease(open_table: Callable[..., TileTable]) -> None:
    table = open_table(2)
    table.lease("a", 2, -1)
    table.heartbeat("a", 60)
    assert table.lease("b", 2, 60) == []


def test_a_heartbeat_keeps_nothing_of_others(open_table: Callable[..., TileTable]) -> None:
    table = open_table(1)
    table.lease("a", 1, -1)
    table.heartbeat("b", 60)
    assert table.lease("b", 1, 60) == [0]


def test_released_tiles_are_lent_at_once(open_table: Callable[..., TileTable]) -> None:
    table = open_table(2)
    table.lease("a", 2, 60)
    table.release("a")
    assert table.lease("b", 2, 60) == [0, 1]


def test_without_an_owner_all_that_is_held_is_released(open_table: Callable[..., TileTable]) -> None:
    table = open_table(2)
    table.lease("a", 1, 60)
    table.lease("b", 1, 60)
    table.release()
    assert table.lease("c", 2, 60) == [0, 1]


def test_it_knows_whether_others_hold_tiles(open_table: Callable[..., TileTable]) -> None:
    table = open_table(2)
    table.lease("a", 1, 60)
    assert (table.held_by_others("a"), table.held_by_others("b")) == (False, True)
    table.finish(0, b"found")
    assert not table.held_by_others("b")


def test_the_first_result_of_a_tile_stays(open_table: Callable[..., TileTable]) -> None:
    table = open_table(2)
    assert table.finish(1, b"first", objects=3)
    assert not table.finish(1, b"second", objects=5)
    assert list(table.payloads()) == [(1, b"first")]
    assert table.counts() == Counts(tiles=2, done=1, skipped=0, objects=3)


def test_a_tile_without_any_box_is_finished(open_table: Callable[..., TileTable]) -> None:
    table = open_table(1)
    table.finish(0, b"", skipped=True)
    assert table.counts() == Counts(tiles=1, done=1, skipped=1, objects=0)
    assert table.counts().complete


def test_payloads_come_in_order_however_many(open_table: Callable[..., TileTable]) -> None:
    table = open_table(700)
    for number in reversed(range(700)):
        table.finish(number, str(number).encode())
    assert list(table.payloads()) == [(number, str(number).encode()) for number in range(700)]


def test_unfinished_tiles_are_listed_lent_or_not(open_table: Callable[..., TileTable]) -> None:
    table = open_table(4)
    table.lease("a", 2, 60)
    table.finish(0, b"")
    assert table.unfinished() == [1, 2, 3]


def test_another_table_on_the_same_file_goes_on_with_it(open_table: Callable[..., TileTable]) -> None:
    open_table(3).finish(0, b"kept")
    again = open_table(3)
    assert list(again.payloads()) == [(0, b"kept")]


def test_another_fingerprint_is_refused(open_table: Callable[..., TileTable]) -> None:
    open_table(3)
    with pytest.raises(OtherSceneError, match="the file, the model or the options differ"):
        open_table(3, "b" * 64)


def test_a_table_of_a_million_tiles_is_made_in_no_time(open_table: Callable[..., TileTable]) -> None:
    begun = time.perf_counter()
    table = open_table(1_000_000)
    assert table.lease("a", 2, 60) == [0, 1]
    assert time.perf_counter() - begun < 1


def test_many_threads_on_several_connections_never_get_the_same_tile(open_table: Callable[..., TileTable]) -> None:
    taken: list[int] = []

    def take(table: TileTable, owner: str) -> None:
        while numbers := table.lease(owner, 3, 60):
            taken.extend(numbers)
            for number in numbers:
                table.finish(number, b"x")

    tables = [open_table(200) for _ in range(2)]
    threads = [threading.Thread(target=take, args=(tables[index % 2], str(index))) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(200))


def test_a_full_disk_is_told_apart(open_table: Callable[..., TileTable], tmp_path: Path) -> None:
    table = open_table(10)
    # SQLite's own way to pretend: no page more than there are
    table._connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="full"):
        table.finish(0, bytes(1_000_000))
    table._connection.execute("PRAGMA max_page_count = 1000000")
    assert table.finish(0, b"goes on")


def test_a_folder_that_is_not_there_is_told_apart(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="unable to open"):
        TileTable(tmp_path / "absent" / "tiles.sqlite")


def test_a_fault_of_ours_is_not_called_a_full_disk(open_table: Callable[..., TileTable]) -> None:
    table = open_table(1)
    table._connection.execute("DROP TABLE scene")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        table.counts()
