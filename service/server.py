"""How the service listens: uvicorn, with connections that nobody can hold for nothing.

uvicorn closes a connection that is idle between two requests. It waits for ever for the rest of a head or of a body
that nobody reads, has no limit on the size of a head, and keeps an answer for ever that its client does not read.
"""

import asyncio
import logging
import signal
import socket
from concurrent.futures import Future
from functools import partial
from ipaddress import ip_address
from types import FrameType
from typing import ClassVar, NamedTuple

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.app import create_app
from service.body_limits import SCENES_PATH
from service.errors import (
    HeadTooLargeError,
    MalformedRequestError,
    ServiceError,
    SlowHeadError,
    TooManyConnectionsError,
)
from service.headers import RAW_SECURITY_HEADERS
from service.imaging import silence_pillow_warnings
from service.loading import LoadedModel
from service.logs import configure_logging
from service.memory import give_back_large_blocks
from service.metrics import Metrics
from service.predictor import Predictor
from service.problems import ProblemResponse, service_error_response
from service.runtime import Runtime
from service.settings import Settings, split_list
from service.workers import Workers

GRACE_SECONDS = 30  # for calls in flight when a stop signal comes
MAX_HEAD_BYTES = 64 * 1024
MAX_PIPELINED = 16  # requests that wait on one connection; a single read can hold thousands
_BODY_MARGIN_SECONDS = 5.0  # the app answers a slow body itself, at its own deadline
logger = logging.getLogger("heatquery")


class ListenError(Exception):
    """There is no listening at the address that was asked for."""


def serve(settings: Settings, loading: "Future[LoadedModel] | None") -> None:
    """Serve until a signal comes; calls that are being worked on are finished first.

    Args:
        loading: the model on its way, for a single process; several load it each for themselves.
    Raises:
        ListenError: see `listen`.
    """
    configure_logging(settings.log_level)
    listener = listen(settings)  # so that port 0 is known before the app says where it is
    if settings.workers == 1:
        serve_on(settings, listener, True, loading)
    else:
        Workers(partial(serve_on, settings), listener, settings.workers).run()


def serve_on(
    settings: Settings, listener: socket.socket, greet: bool, loading: "Future[LoadedModel] | None" = None
) -> None:
    """Serve in this process, on a socket that others may listen on too."""
    configure_logging(settings.log_level)
    silence_pillow_warnings()
    give_back_large_blocks()
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def welcome(predictor: Predictor) -> None:
        if greet:
            print(_welcome(address, predictor), flush=True)

    app = create_app(settings, loading, welcome)
    DrainingServer(uvicorn_config(app, settings), app.state.runtime).run(sockets=[listener])


class DrainingServer(uvicorn.Server):
    """After SIGTERM not ready at once, but still taking calls for a while, as balancers are slow to hear of it.

    A second signal, or Ctrl-C, ends the taking of calls at once. What is being worked on is finished in any case.
    """

    def __init__(self, config: uvicorn.Config, runtime: Runtime) -> None:
        super().__init__(config)
        self._runtime = runtime
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        at_once = sig != signal.SIGTERM or self._runtime.status == "stopping"
        self._runtime.begin_stopping()
        if at_once or self._loop is None:
            super().handle_exit(sig, frame)
        else:
            seconds = self._runtime.settings.drain_seconds
            self._loop.call_soon_threadsafe(self._loop.call_later, seconds, super().handle_exit, sig, frame)


def listen(settings: Settings) -> socket.socket:
    """Open the listening socket; port 0 takes a free one. Accepted connections inherit both options.

    Answers leave at once: without TCP_NODELAY, which asyncio sets only on sockets that it opens itself, the
    body of an answer waits for the client's acknowledgement of its head, 40 ms on Linux.

    The kernel drops a connection whose client takes no byte of what waits for it within TCP_USER_TIMEOUT.

    Raises:
        ListenError: the port is taken or not allowed, or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        listener = socket.create_server((settings.host, settings.port), family=family)
    except OSError as error:
        raise ListenError(f"cannot listen on {settings.host} port {settings.port}: {error.strerror}") from error
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.reader_seconds * 1000))
    if settings.api_keys is None and not ip_address(listener.getsockname()[0]).is_loopback:
        logger.warning("open to everyone who reaches %s; HEATQUERY_API_KEYS asks for a key", settings.host)
    return listener


def uvicorn_config(app: FastAPI, settings: Settings, log_level: str | None = None) -> uvicorn.Config:
    """Everything about uvicorn that the service decides, for one process."""
    limits = ConnectionLimits(settings.header_seconds, settings.body_seconds, settings.connections)

    class LimitedProtocol(GuardedProtocol):
        """uvicorn takes a class."""

    LimitedProtocol.limits = limits
    LimitedProtocol.metrics = app.state.runtime.metrics
    return uvicorn.Config(
        app,
        http=LimitedProtocol,
        loop="uvloop",
        ws="none",
        log_level=log_level,
        log_config=None,  # its records go where ours go
        access_log=False,  # WatchMiddleware writes it
        server_header=False,
        proxy_headers=bool(settings.proxies),  # uvicorn's own default believes whatever comes from the loopback
        forwarded_allow_ips=split_list(settings.proxies),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


class ConnectionLimits(NamedTuple):
    """What one connection may take."""

    head_seconds: float
    body_seconds: float
    connections: int


class GuardedProtocol(HttpToolsProtocol):
    """One connection, with deadlines for the arrival of head and body, and bounds on all that uvicorn keeps of it.

    `_deadline` runs while bytes of a request are owed: from the connection or the first byte on to the end of the
    head, then to the end of the body.
    """

    limits: ClassVar[ConnectionLimits]
    metrics: ClassVar[Metrics]
    _deadline: asyncio.TimerHandle | None = None
    _in_head = False
    _in_scene = False
    _head_bytes = 0
    _refusal: ServiceError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] # as uvicorn's
        super().connection_made(transport)
        if len(self.connections) > self.limits.connections:
            limit = f"{self.limits.connections:,} connections are open (HEATQUERY_CONNECTIONS)"
            self._refuse(TooManyConnectionsError(limit))
        else:
            self._expect(self.limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._expect(self.limits.head_seconds)  # any byte ends uvicorn's own wait between requests
        was_in_head = self._in_head
        super().data_received(data)
        if self._in_scene and self._deadline is not None and not self._in_head:
            self._expect(self.limits.body_seconds + _BODY_MARGIN_SECONDS)  # the app says how much must come in it
        if was_in_head and self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes = True, 0
        if self._deadline is None:
            self._expect(self.limits.head_seconds)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._expect(self.limits.body_seconds + _BODY_MARGIN_SECONDS)
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refusal = _head_too_large()
            raise ValueError("head too large")  # the parser stops, and uvicorn calls send_400_response
        super().on_headers_complete()
        self._in_scene = self.scope["path"] == SCENES_PATH
        if len(self.pipeline) > MAX_PIPELINED:
            self.transport.abort()

    def on_message_complete(self) -> None:
        self._expect(None)
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or MalformedRequestError("the server cannot parse it"))

    def _expect(self, seconds: float | None) -> None:
        """Restart the clock for bytes that are owed; None: none are."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_slow)

    def _too_slow(self) -> None:
        if self._in_head:
            self._refuse(SlowHeadError(f"not complete after {self.limits.head_seconds:g} s (HEATQUERY_HEADER_SECONDS)"))
        else:
            self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        """Answer outside of the app, unless an answer is already on its way, and close."""
        answering = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        if not answering and not self.transport.is_closing():
            response = service_error_response(error)
            self.metrics.rejected(response.code)
            self.transport.write(_on_the_wire(response))
        self.transport.close()


def _head_too_large() -> HeadTooLargeError:
    return HeadTooLargeError(f"request line and headers are over {MAX_HEAD_BYTES:,} bytes")


def _on_the_wire(response: ProblemResponse) -> bytes:
    headers = response.raw_headers + RAW_SECURITY_HEADERS
    lines = [f"HTTP/1.1 {response.status_code} ".encode(), *(b": ".join(header) for header in headers)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + bytes(response.body)


def _welcome(address: str, predictor: Predictor) -> str:
    manifest = predictor.manifest
    return f"""
heatquery is ready: {manifest.name}/{manifest.version} on {predictor.engine.provider}
In a browser: {address}/
From a program, with a picture of your own:
  curl -F file=@picture.jpg {address}/detect
  curl -F file=@picture.jpg '{address}/heatmap?boxes=true' -o heatmap.png
  curl '{address}/heatmap?image_id=<image_id of /detect>&kind=density' -o density.png
Every call, with a form to try it: {address}/docs
"""
