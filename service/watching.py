"""Pure ASGI middleware that measures each request once, for the metrics and for the access log."""

import logging
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.metrics import Metrics

PROBES = frozenset({"/livez", "/readyz", "/health", "/metrics", "/v2/health/live", "/v2/health/ready"})
"""Asked every few seconds by machines: in the log from level debug on only, and never traced."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT = 499  # as nginx counts it; no answer was begun
_LONGEST_PATH = 200  # in the log
logger = logging.getLogger("heatquery.access")


class WatchMiddleware:
    """Count, time and log every request under the template of its path, never under the path itself.

    A label that callers choose would grow without bound, so unknown methods are one, and so are all paths that no
    route takes.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(receive, send)
        problem = None
        with self.metrics.in_flight.track_inprogress():
            try:
                await self.app(scope, exchange.receive, exchange.send)
                problem = scope.get("state", {}).get("problem")
            except Exception:  # answered further out, as an internal error
                exchange.status, problem = exchange.status or 500, "internal"
                raise
            finally:
                self._note(scope, exchange, problem)

    def _note(self, scope: Scope, exchange: "_Exchange", problem: str | None) -> None:
        seconds = perf_counter() - exchange.begun
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = exchange.status or _CLIENT_LEFT
        self.metrics.request(route, method, status, seconds, exchange.bytes_in)
        if problem:
            self.metrics.rejected(problem)
        level = logging.DEBUG if route in PROBES and status < 500 else logging.INFO
        if logger.isEnabledFor(level):
            fields = {
                "method": method,
                "route": route,
                "path": scope["path"][:_LONGEST_PATH],
                "status": status,
                "seconds": round(seconds, 6),
                "bytes_in": exchange.bytes_in,
                "bytes_out": exchange.bytes_out,
                "client": (scope.get("client") or ("",))[0],
            }
            logger.log(level, "request", extra=fields | ({"problem": problem} if problem else {}))


class _Exchange:
    """One request and its answer, as they pass by; messages go through unchanged, disconnects too."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self.begun = perf_counter()
        self.status: int | None = None
        self.bytes_in = self.bytes_out = 0
        self._receive = receive
        self._send = send

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.request":
            self.bytes_in += len(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        elif message["type"] == "http.response.body":
            self.bytes_out += len(message.get("body", b""))
        await self._send(message)
