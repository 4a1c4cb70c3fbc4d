"""A load generator that costs little: prebuilt HTTP requests over kept connections, in closed or open loop.

It shares the machine with the server that it loads, so it does no more for a call than write bytes and read them.
"""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from time import perf_counter

ANSWER_SECONDS = 60.0
NO_ANSWER = 0
"""Stands for the status of a call that the server broke off, or did not answer in time."""
_BOUNDARY = "heatquery-load"
_SERIAL_DIGITS = 12


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}"


@dataclass(frozen=True)
class Call:
    """A request but for its serial number, which goes behind the picture, where readers of pictures do not look.

    So no two calls carry the same bytes, and no server can answer from memory.
    """

    kind: str
    before: bytes
    after: bytes
    picture: bytes = b""

    def of_kind(self, kind: str) -> "Call":
        """The same under another name."""
        return replace(self, kind=kind)

    def numbered(self, serial: int) -> bytes:
        """The bytes to send."""
        return b"%s%0*d%s" % (self.before, _SERIAL_DIGITS, serial, self.after)


@dataclass(frozen=True)
class Answer:
    """What became of a call; times are in seconds from the begin of the load.

    Attributes:
        due: when the call should be sent; in closed loop, when it was.
        sent: when it was.
        done: when the last byte of the answer was there.
    """

    kind: str
    status: int
    due: float
    sent: float
    done: float

    @property
    def milliseconds(self) -> float:
        """How long the caller waits, counted from when the call was due."""
        return (self.done - self.due) * 1e3


def upload(kind: str, picture: bytes, path: str = "/detect") -> Call:
    """POST a picture as the part `file` of a form."""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="picture"\r\n'
    head += "Content-Type: application/octet-stream\r\n\r\n"
    tail = f"\r\n--{_BOUNDARY}--\r\n".encode()
    body = head.encode() + picture
    length = len(body) + _SERIAL_DIGITS + len(tail)
    start = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\nContent-Length: {length}\r\n"
    start += f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\n\r\n"
    return Call(kind, start.encode() + body, tail, picture)


def get(kind: str, path: str) -> Call:
    """GET a path; the serial number is a header."""
    return Call(kind, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Serial: ".encode(), b"\r\n\r\n")


def poisson(rate: float, seconds: float, seed: int) -> list[float]:
    """Times of arrivals that know nothing of each other, `rate` of them a second on average."""
    chance = random.Random(seed)
    times = itertools.accumulate(chance.expovariate(rate) for _ in itertools.count())
    return list(itertools.takewhile(lambda time: time < seconds, times))


class Connections:
    """Kept connections to one server, opened when needed, at most so many."""

    def __init__(self, address: Address, at_most: int) -> None:
        self._address = address
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(at_most)
        self._serials = itertools.count()

    async def call(self, call: Call) -> tuple[int, bytes]:
        """Status and body; `NO_ANSWER` where none came."""
        async with self._room:
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    return await self._exchange(call.numbered(next(self._serials)))
            except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                return NO_ANSWER, str(error).encode()

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        while self._idle and self._idle[-1][0].at_eof():  # the server closed it meanwhile
            await _hang_up(self._idle.pop()[1])
        reader, writer = self._idle.pop() if self._idle else await self._open()
        keep = False
        try:
            writer.write(request)
            status, keep, body = await read_answer(reader)
        finally:
            if keep:
                self._idle.append((reader, writer))
            else:
                await _hang_up(writer)
        return status, body

    async def abandon(self, call: Call, seconds: float) -> None:
        """Send a call on a connection of its own and leave without waiting for the answer."""
        _, writer = await self._open()
        writer.write(call.numbered(next(self._serials)))
        await asyncio.sleep(seconds)
        writer.transport.abort()
        await _hang_up(writer)

    async def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            await _hang_up(self._idle.pop()[1])

    def _open(self) -> "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]":
        opening = asyncio.open_connection(self._address.host, self._address.port, limit=1 << 20)
        return asyncio.ensure_future(opening)


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):  # the other side was first
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Status, whether the connection stays, and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    start, _, headers = head.partition("\r\n")
    fields = dict(line.split(": ", 1) for line in headers.split("\r\n") if ": " in line)
    if fields.get("transfer-encoding") == "chunked":
        body = b"".join([chunk async for chunk in _chunks(reader)])
    else:
        body = await reader.readexactly(int(fields.get("content-length", "0")))
    return int(start.split()[1]), fields.get("connection") != "close", body


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readuntil(b"\r\n"), 16):
        yield (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")


@asynccontextmanager
async def connected(address: Address, at_most: int) -> AsyncIterator[Connections]:
    """Connections that are closed in the end."""
    connections = Connections(address, at_most)
    try:
        yield connections
    finally:
        await connections.close()


async def closed_loop(address: Address, calls: Iterator[Call], concurrency: int, seconds: float) -> list[Answer]:
    """So many callers, each with its next call as soon as its last one is answered; returns when all are."""
    answers: list[Answer] = []
    begun = perf_counter()

    async def caller(connections: Connections) -> None:
        while (sent := perf_counter() - begun) < seconds:
            call = next(calls)
            status, _ = await connections.call(call)
            answers.append(Answer(call.kind, status, sent, sent, perf_counter() - begun))

    async with connected(address, concurrency) as connections, asyncio.TaskGroup() as callers:
        for _ in range(concurrency):
            callers.create_task(caller(connections))
    return answers


async def open_loop(address: Address, arrivals: Sequence[tuple[float, Call]], at_most: int = 256) -> list[Answer]:
    """Send each call when it is due, whatever has become of those before; returns when all are answered.

    Args:
        arrivals: seconds from the begin, in order, each with its call.
        at_most: connections; a call that finds none waits, and the wait counts.
    """
    answers: list[Answer] = []
    begun = perf_counter()

    async def send(connections: Connections, due: float, call: Call) -> None:
        sent = perf_counter() - begun
        status, _ = await connections.call(call)
        answers.append(Answer(call.kind, status, due, sent, perf_counter() - begun))

    async with connected(address, at_most) as connections, asyncio.TaskGroup() as calls:
        for due, call in arrivals:
            await asyncio.sleep(max(0.0, due - (perf_counter() - begun)))
            calls.create_task(send(connections, due, call))
    return answers
