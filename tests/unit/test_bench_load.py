"""The load generator of benchmarks/load.py, against a server that answers as it is told."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TypeVar

import pytest

from benchmarks.load import (
    NO_ANSWER,
    Address,
    Answer,
    Connections,
    closed_loop,
    connected,
    get,
    open_loop,
    poisson,
    upload,
)

Result = TypeVar("Result")
Use = Callable[[Address], Awaitable[Result]]
PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbod\r\n1\r\ny\r\n0\r\n\r\n"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Told:
    """Answers each request with the next of some answers, in turns, and remembers what came; `b""` hangs up."""

    def __init__(self, *answers: bytes) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._answers = itertools.cycle(answers)

    def use(self, use: Use[Result]) -> Result:
        """Serve while it is used."""

        async def serve() -> Result:
            async with await asyncio.start_server(self._serve, "127.0.0.1", 0) as server:
                result = await use(Address("127.0.0.1", server.sockets[0].getsockname()[1]))
                await asyncio.sleep(0.05)  # for its side of the connections
            return result

        return asyncio.run(serve())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError, ConnectionError):  # the client hangs up when it is done
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
                self.requests.append(head + await reader.readexactly(sum(lengths)))
                answer = next(self._answers)
                writer.write(answer)
                if answer in (b"", BUSY):
                    break
        writer.close()


def ask(*calls: object) -> Use[list[tuple[int, bytes]]]:
    """Some calls, one after the other."""

    async def use(address: Address) -> list[tuple[int, bytes]]:
        async with connected(address, at_most=1) as connections:
            return [await connections.call(get("", "/")) for _ in calls]

    return use


@pytest.mark.parametrize("answer", [PLAIN, CHUNKED])
def test_an_answer_is_read_to_its_end_and_the_connection_kept(answer: bytes) -> None:
    server = Told(answer)
    assert server.use(ask(1, 2, 3)) == [(200, b"body")] * 3
    assert server.connections == 1


def test_a_connection_that_the_server_closes_is_opened_anew() -> None:
    server = Told(BUSY)
    assert server.use(ask(1, 2)) == [(429, b"")] * 2
    assert server.connections == 2


def test_a_server_that_hangs_up_is_no_answer() -> None:
    ((status, _),) = Told(b"").use(ask(1))
    assert status == NO_ANSWER


def test_no_two_calls_carry_the_same_bytes() -> None:
    call = upload("sparse", b"picture")
    assert call.numbered(1) != call.numbered(2)
    assert len(call.numbered(1)) == len(call.numbered(10**9))


def test_an_upload_says_its_length_and_holds_the_picture() -> None:
    head, _, body = upload("sparse", b"picture").numbered(7).partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"\r\n\r\npicture000000000007\r\n--" in body


def test_callers_in_closed_loop_wait_for_their_answers() -> None:
    server = Told(PLAIN)
    answers = server.use(lambda address: closed_loop(address, itertools.repeat(get("k", "/")), 3, seconds=0.5))
    assert len(answers) == len(server.requests) >= 3
    assert server.connections == 3
    assert {(answer.kind, answer.status) for answer in answers} == {("k", 200)}


def test_in_open_loop_every_arrival_is_sent_and_none_before_it_is_due() -> None:
    arrivals = [(0.0, get("a", "/")), (0.01, get("b", "/")), (0.03, get("c", "/"))]
    answers = Told(PLAIN, BUSY).use(lambda address: open_loop(address, arrivals))
    assert sorted(answer.kind for answer in answers) == ["a", "b", "c"]
    assert all(answer.due <= answer.sent <= answer.done for answer in answers)
    assert sorted(answer.status for answer in answers) == [200, 200, 429]


def test_waiting_for_a_connection_counts() -> None:
    answer = Answer("", 200, due=1.0, sent=1.5, done=2.0)
    assert answer.milliseconds == 1000


def test_a_client_that_leaves_sends_its_call_and_hears_nothing() -> None:
    async def use(address: Address) -> None:
        await Connections(address, 1).abandon(get("", "/"), 0.05)

    server = Told(PLAIN)
    server.use(use)
    assert len(server.requests) == 1


def test_arrivals_come_at_the_rate_and_are_the_same_for_a_seed() -> None:
    times = poisson(rate=50, seconds=100, seed=1)
    assert times == poisson(rate=50, seconds=100, seed=1) != poisson(rate=50, seconds=100, seed=2)
    assert len(times) == pytest.approx(5000, rel=0.05)
    assert is_rising(times)
    assert times[-1] < 100


def is_rising(times: Sequence[float]) -> bool:
    return all(earlier < later for earlier, later in itertools.pairwise(times))
