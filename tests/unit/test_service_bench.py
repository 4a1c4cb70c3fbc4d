"""Arrivals, percentiles, pictures and arguments of the load generator."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.bench.connection import Answer, Target
from service.bench.load import Call, Load, arrival_times
from service.bench.pictures import Picture, read_pictures
from service.bench.report import RateResult, Spread


def test_uniform_arrivals_keep_their_distance() -> None:
    assert arrival_times(4, 1, "uniform", seed=0) == [0, 0.25, 0.5, 0.75]


def test_poisson_arrivals_come_at_their_rate() -> None:
    assert len(arrival_times(100, 100, "poisson", seed=0)) == pytest.approx(10_000, rel=0.03)


def test_arrivals_are_those_of_their_seed() -> None:
    assert arrival_times(5, 10, "poisson", 1) == arrival_times(5, 10, "poisson", 1)
    assert arrival_times(5, 10, "poisson", 1) != arrival_times(5, 10, "poisson", 2)


def test_a_percentile_is_a_value_that_occurred() -> None:
    assert Spread.of(range(1, 101)) == Spread(p50=50, p95=95, p99=99, max=100)


def test_one_value_is_every_percentile() -> None:
    assert Spread.of([7.0]) == Spread(p50=7, p95=7, p99=7, max=7)


def test_refusals_are_not_in_the_latency() -> None:
    calls = [Call(0.0, 0.0, 2.0, "200"), Call(0.1, 0.0, 0.001, "429"), Call(0.2, 0.0, 9.0, "timeout")]
    result = RateResult.of(10, 1, calls)
    assert result.latency_ms == Spread.of([2000])
    assert result.refusal_ms == Spread.of([1])
    assert result.outcomes == {"200": 1, "429": 1, "timeout": 1}


def test_a_generator_that_is_late_says_so() -> None:
    assert RateResult.of(1, 1, [Call(0.0, 0.01, 1.0, "200")]).kept_schedule
    assert not RateResult.of(1, 1, [Call(0.0, 0.2, 1.0, "200")]).kept_schedule


def test_a_rate_without_calls_is_no_error() -> None:
    result = RateResult.of(0.1, 1, [])
    assert (result.latency_ms, result.throughput, result.kept_schedule) == (None, 0, True)


def test_pictures_come_from_folders_files_and_patterns(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.PNG", "c.txt"):
        (tmp_path / name).write_bytes(name.encode())
    assert {picture.data for picture in read_pictures([str(tmp_path)], 10, 0)} == {b"a.jpg", b"b.PNG"}
    assert read_pictures([str(tmp_path / "*.jpg")], 10, 0) == [Picture(b"a.jpg", "image/jpeg")]


def test_no_more_pictures_are_read_than_asked_for(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}.jpg").write_bytes(b"x")
    assert len(read_pictures([str(tmp_path)], 2, 0)) == 2


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pictures in .*looked for \*\.jpg"):
        read_pictures([str(tmp_path)], 10, 0)


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handle: Handler) -> AsyncIterator[Target]:
    """A server that treats each connection so, until the client leaves; nothing of it is open afterwards."""
    handlers: set[asyncio.Task[None] | None] = set()

    async def treat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.add(asyncio.current_task())
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await handle(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(treat, "127.0.0.1", 0)
    try:
        yield Target(urlsplit(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), {})
    finally:
        server.close()
        await asyncio.gather(*(task for task in handlers if task))


async def ask(answer: bytes) -> Answer:
    """Ask a server that says just this, and closes."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    async with serving(say) as target:
        connection = await target.connect()
        try:
            return await connection.send(target.request("GET", "/"))
        finally:
            connection.close()


def test_an_answer_in_chunks_is_put_together() -> None:
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    assert asyncio.run(ask(chunks)).body == b"abcde"


def test_an_interim_answer_is_passed_over() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 X\r\nContent-Length: 0\r\n\r\n"
    assert asyncio.run(ask(answer)).status == 429


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"SSH-2.0\r\n\r\n"])
def test_half_an_answer_is_a_failed_connection(answer: bytes) -> None:
    with pytest.raises(OSError, match=r"closed the connection|not HTTP"):
        asyncio.run(ask(answer))


def test_latency_counts_from_when_a_call_was_due_not_from_when_it_was_sent() -> None:
    """The generator is kept busy for 0.3 s; the calls that were due meanwhile must not look fast."""
    stalled = False

    def stall_once(seconds: float, sent: int, over: list[Call]) -> None:
        nonlocal stalled
        if sent == 1 and not stalled:
            stalled = True
            time.sleep(0.3)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(1)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async def run() -> list[Call]:
        async with serving(answer) as target:
            load = Load(target, "/detect", [Picture(b"x", "image/png")], timeout=5)
            try:
                return await load.run([0.0, 0.05, 0.1], stall_once)
            finally:
                load.close()

    calls = asyncio.run(run())
    assert [call.outcome for call in calls] == ["200"] * 3
    assert calls[1].seconds >= calls[1].late > 0.2
