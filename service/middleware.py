"""Pure ASGI middleware: a request id on everything, an answer to every fault, a guard in front of request bodies."""

import asyncio
import re
from collections.abc import Callable
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

from service.body_limits import BodyLimits
from service.errors import ServiceError, SlowBodyError, UnsupportedTypeError
from service.problems import failure_response, service_error_response

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_DRAIN_SECONDS = 1.0


class RequestIdMiddleware:
    """Take X-Request-ID from the caller where it is harmless, else make one; send it back."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        # not unbound: each request is a task with a context of its own
        bind_contextvars(request_id=request_id)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        await self.app(scope, receive, send_with_id)


class FaultBarrierMiddleware:
    """Answer what nobody foresaw, so that such an answer passes through the outer middleware like any other.

    The framework's own last resort lies outside of all middleware and hands the error on to the server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:  # the last resort
            response = failure_response(scope, error)  # logs it, too
            if begun:
                raise  # the server cuts the connection: half an answer must not look whole
            await response(scope, receive, send)


class BodyGuardMiddleware:
    """Refuse a body by its headers, and one that arrives too slowly; uvicorn itself waits for ever.

    FastAPI's `max_body_size` counts the bytes that really come, but answers a declared length in plain text,
    so that case is answered here.
    """

    def __init__(self, app: ASGIApp, limits_of: Callable[[str], BodyLimits]) -> None:
        """Wrap the app.

        Args:
            limits_of: what holds for a path.
        """
        self.app = app
        self.limits_of = limits_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limits = self.limits_of(scope["path"])
        body = _Body(receive, limits, wanted="expect" not in headers)
        error = _refusal(headers, limits)
        app = self.app if error is None else service_error_response(error)

        async def send_after_body(message: Message) -> None:
            if message["type"] == "http.response.start":
                await body.drain()
            await send(message)

        await app(scope, body.receive, send_after_body)


def _refusal(headers: Headers, limits: BodyLimits) -> ServiceError | None:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        return UnsupportedTypeError(f"Content-Encoding {coding[:80]!r} is not taken; send the image as it is")
    length = headers.get("content-length", "")
    if length.isascii() and length.isdigit() and (len(length) > 18 or int(length) > limits.max_bytes):
        return limits.too_large()
    return None


class _Body:
    """One request body on its way in."""

    def __init__(self, receive: Receive, limits: BodyLimits, wanted: bool) -> None:
        """Start the clock.

        Args:
            wanted: false where the client waits for a "100 Continue", which the first `receive` would send.
        """
        self._receive = receive
        self._limits = limits
        self._begin_piece()
        self._wanted = wanted
        self._complete = False

    def _begin_piece(self) -> None:
        self._deadline = asyncio.get_running_loop().time() + self._limits.seconds
        self._missing = self._limits.piece_bytes

    async def receive(self) -> Message:
        """The next message; what comes after the body is the wait for a disconnect, which has no deadline.

        Raises:
            SlowBodyError: the deadline passed before the end of the body.
        """
        if self._complete:
            return await self._receive()
        self._wanted = True
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            self._complete = True
            raise self._too_slow() from error
        self._complete = not message.get("more_body", False)
        if self._missing is not None:
            self._missing -= len(message.get("body", b""))
            if self._missing <= 0:
                self._begin_piece()
        return message

    def _too_slow(self) -> SlowBodyError:
        seconds, piece = self._limits.seconds, self._limits.piece_bytes
        what = "not complete" if piece is None else f"less than {piece:,} bytes came"
        return SlowBodyError(f"{what} after {seconds:g} s (HEATQUERY_BODY_SECONDS)")

    async def drain(self) -> None:
        """Throw away what is still coming, for a moment, before an early answer.

        A server that closes with bytes unread resets the connection, and the client loses the answer.
        """
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                while self._wanted and not self._complete:
                    self._complete = not (await self._receive()).get("more_body", False)
        except TimeoutError:
            self._complete = True
