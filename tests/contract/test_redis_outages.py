"""A Redis that is away, slow, full or in the wrong hands: the store says so once and goes on."""

import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from redis_server import RedisServer, require_redis_server
from results import make_result
from service.errors import StoreUnavailableError, UnknownImageError
from service.redis_store import RedisStore

PATIENCE = 0.3
BUSY_MACHINE = 10.0  # patience where a test is not about it

Work = Callable[[RedisStore], Awaitable[None]]
PICTURES = [bytes([number]) * 100_000 for number in range(50)]


def with_store(
    url: str,
    work: Work,
    max_bytes: int = 1_000_000,
    patience: float = BUSY_MACHINE,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Run some work on a store in an event loop of its own."""

    async def run() -> None:
        store = RedisStore(url, max_bytes, 60, patience, clock)
        try:
            await work(store)
        finally:
            await store.close()

    asyncio.run(run())


async def holds(store: RedisStore, picture: bytes) -> bool:
    try:
        return (await store.get("model", make_result(picture).image_id)).upload == picture
    except UnknownImageError:
        return False


class Clock:
    """A clock that the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def away() -> str:
    """The address of a server that is not there."""
    return "redis://127.0.0.1:1/0"


def test_an_outage_is_logged_once_and_counted(away: str, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()

    async def work(store: RedisStore) -> None:
        for _ in range(3):
            assert not await store.put("model", make_result(b"picture"))
            clock.now += 10

    with_store(away, work, clock=clock)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_the_end_of_an_outage_is_logged(redis_server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heatquery")
    clock = Clock()

    async def work(store: RedisStore) -> None:
        redis_server.kill()
        await store.put("model", make_result(b"picture"))
        redis_server.start()
        clock.now += 10
        await store.put("model", make_result(b"picture"))
        assert await holds(store, b"picture")

    with_store(redis_server.url, work, clock=clock)
    assert [record.levelno for record in caplog.records] == [logging.ERROR, logging.INFO]


def test_a_server_that_hangs_holds_one_call_up_and_not_the_next(redis_server: RedisServer) -> None:
    async def work(store: RedisStore) -> None:
        redis_server.hang()
        begun = time.monotonic()
        assert not await store.put("model", make_result(b"picture"))
        first = time.monotonic() - begun
        assert not await store.put("model", make_result(b"picture"))
        assert PATIENCE <= first < BUSY_MACHINE
        assert time.monotonic() - begun - first < PATIENCE

    with_store(redis_server.url, work, patience=PATIENCE)


def test_an_answer_that_came_too_late_is_not_taken_for_the_next_one(redis_server: RedisServer) -> None:
    clock = Clock()

    async def work(store: RedisStore) -> None:
        await store.put("model", make_result(b"one"))
        await store.put("model", make_result(b"two"))
        redis_server.hang()
        with pytest.raises(StoreUnavailableError):
            await store.get("model", make_result(b"one").image_id)
        redis_server.go_on()
        clock.now += 10
        assert await holds(store, b"two")

    with_store(redis_server.url, work, patience=PATIENCE, clock=clock)


def test_calls_that_are_cancelled_leave_every_connection_usable(redis_server: RedisServer) -> None:
    async def work(store: RedisStore) -> None:
        await store.put("model", make_result(b"picture"))
        redis_server.hang()
        calls = [asyncio.create_task(store.get("model", make_result(b"picture").image_id)) for _ in range(40)]
        await asyncio.sleep(0.1)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        redis_server.go_on()
        assert all(await asyncio.gather(*(holds(store, b"picture") for _ in range(16))))

    with_store(redis_server.url, work, clock=lambda: 0.0)


def test_a_server_that_pushes_results_out_loses_the_oldest(redis_server: RedisServer) -> None:
    redis_server.client.config_set("maxmemory-policy", "allkeys-lru")
    redis_server.client.config_set("maxmemory", redis_server.client.info()["used_memory"] + 2_000_000)

    async def work(store: RedisStore) -> None:
        assert all([await store.put("model", make_result(picture)) for picture in PICTURES])
        kept = [await holds(store, picture) for picture in PICTURES]
        assert 1 <= sum(kept) < 20
        assert kept[-1]

    with_store(redis_server.url, work)


def test_a_full_server_keeps_what_it_has_and_the_rest_is_counted(
    redis_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.client.config_set("maxmemory-policy", "noeviction")

    async def work(store: RedisStore) -> None:
        await store.put("model", make_result(b"first"))
        redis_server.client.config_set("maxmemory", 1)
        for picture in PICTURES[:3]:
            assert not await store.put("model", make_result(picture))
            assert await holds(store, b"first")

    with_store(redis_server.url, work)
    assert len(caplog.records) == 1


def test_a_result_larger_than_the_budget_is_not_kept(redis_server: RedisServer) -> None:
    async def work(store: RedisStore) -> None:
        assert not await store.put("model", make_result(bytes(50_000)))
        assert not await holds(store, bytes(50_000))

    with_store(redis_server.url, work, max_bytes=50_000)


def test_a_result_as_large_as_the_budget_is_kept(redis_server: RedisServer) -> None:
    async def work(store: RedisStore) -> None:
        assert await store.put("model", make_result(b"picture"))
        assert await holds(store, b"picture")

    with_store(redis_server.url, work, max_bytes=make_result(b"picture").nbytes)


def test_a_result_of_many_pieces_comes_back_whole(redis_server: RedisServer) -> None:
    picture = random.Random(0).randbytes(3_000_000)

    async def work(store: RedisStore) -> None:
        assert await store.put("model", make_result(picture))
        assert await holds(store, picture)

    with_store(redis_server.url, work, max_bytes=10_000_000)


def test_a_huge_foreign_value_is_not_fetched_whole(redis_server: RedisServer) -> None:
    image_id = make_result(b"picture").image_id
    redis_server.client.set(f"heatquery:model:{image_id}", bytes(50_000_000))
    before = redis_server.client.info()["total_net_output_bytes"]

    async def work(store: RedisStore) -> None:
        assert not await holds(store, b"picture")

    with_store(redis_server.url, work, max_bytes=100_000)
    assert redis_server.client.info()["total_net_output_bytes"] - before < 2_000_000


def test_a_picture_under_the_id_of_another_is_refused(redis_server: RedisServer) -> None:
    async def work(store: RedisStore) -> None:
        await store.put("model", make_result(b"picture"))
        (key,) = redis_server.client.keys()
        other = make_result(b"other").image_id
        redis_server.client.rename(key, f"heatquery:model:{other}")
        with pytest.raises(UnknownImageError):
            await store.get("model", other)

    with_store(redis_server.url, work)


def test_a_unix_socket_is_an_address(tmp_path: Path) -> None:
    require_redis_server()
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:  # tmp_path may be too long for a socket
        server = RedisServer(tmp_path, "--unixsocket", f"{folder}/s")

        async def work(store: RedisStore) -> None:
            await store.put("model", make_result(b"picture"))
            assert await holds(store, b"picture")

        with_store(f"unix://{folder}/s?db=1", work)
        server.close()
