"""One HTTP/1.1 connection, as cheap as a load generator's must be.

httpx takes about 20 times the CPU time of this per call, which the service would miss where both share a machine.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import SplitResult

import httptools

_TIMING = re.compile(rb'"timing_ms"\s*:\s*(\{[^{}]*\})')


class Answer(NamedTuple):
    """What came back; `timing` is the JSON of `timing_ms`, or empty."""

    status: int
    timing: bytes
    body: bytes


class Target:
    """Where to send calls."""

    def __init__(self, url: SplitResult, headers: Mapping[str, str]) -> None:
        self.secure = url.scheme == "https"
        self.host = url.hostname or ""
        self.port = url.port or (443 if self.secure else 80)
        self._base = url.path.rstrip("/")
        self._head = f"Host: {url.netloc.rpartition('@')[2]}\r\nUser-Agent: heatquery-bench\r\n"
        self._head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def request(self, method: str, path: str, body: bytes = b"", content_type: str = "") -> bytes:
        """The bytes of one request."""
        head = f"{method} {self._base}{path} HTTP/1.1\r\n{self._head}"
        if content_type:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        return f"{head}\r\n".encode("latin-1") + body

    async def connect(self) -> "Connection":
        """Open a connection. Raises OSError."""
        context = ssl.create_default_context() if self.secure else None
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(Connection, self.host, self.port, ssl=context)
        return connection


class Connection(asyncio.Protocol):
    """Sends one request at a time; httptools reads the answers."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Answer] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()

    async def send(self, request: bytes) -> Answer:
        """Send a request and wait for the whole answer. Raises OSError if the connection closes before that."""
        if self._transport is None or not self.usable:
            raise ConnectionResetError("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        """Close at once; an answer on its way is lost."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ConnectionError(f"the answer is not HTTP: {error}"))
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(ConnectionResetError("the server closed the connection before its answer"))

    def on_body(self, body: bytes) -> None:
        """One piece of an answer."""
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The end of an answer."""
        status, again = self._parser.get_status_code(), self._parser.should_keep_alive()
        body = b"".join(self._pieces)
        self._pieces.clear()
        if status < 200:  # an interim answer, such as 100 Continue
            return
        timing = _TIMING.search(body)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(Answer(status, timing[1] if timing else b"", body))
        if not again and self._transport is not None:
            self._transport.close()

    def _fail(self, error: OSError) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(error)
