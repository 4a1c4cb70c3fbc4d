"""How many expensive calls one caller may make in a time, in this process or, through Redis, in all replicas."""

import asyncio
import logging
from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from math import floor
from time import monotonic, time
from typing import NamedTuple

from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import StorageError
from redis.asyncio import ConnectionPool
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import RateLimitError
from service.problems import service_error_response
from service.settings import Settings

_MAX_CALLERS = 10_000
_PAUSE_SECONDS = 5.0  # after a failure of Redis
logger = logging.getLogger("heatquery")


class Verdict(NamedTuple):
    """What a caller may do now."""

    allowed: bool
    remaining: int
    reset_seconds: int


class RateLimiter:
    """A sliding window: the last window counts in proportion to how much of it is still within reach."""

    def __init__(self, limit: RateLimitItem, redis_url: str | None = None, redis_seconds: float = 0.25) -> None:
        """Connect to nothing yet.

        Args:
            redis_url: a server that all replicas share; it may hold a password and is never shown.
            redis_seconds: how long a call waits for it.
        """
        self.limit = limit
        self._redis_seconds = redis_seconds
        self._pool = ConnectionPool.from_url(redis_url) if redis_url else None
        self._window = SlidingWindowCounterRateLimiter(
            BoundedMemory() if self._pool is None else _redis_storage(self._pool)
        )
        self._paused_until = 0.0

    @classmethod
    def of(cls, settings: Settings) -> "RateLimiter":
        """What the settings ask for, which name a rate."""
        store = settings.store.get_secret_value()
        return cls(parse(settings.rate_limit), None if store == "memory" else store, settings.store_seconds)

    async def take(self, caller: str) -> Verdict | None:
        """Count one call; None where nobody knows, because Redis is away: then the call goes through."""
        if monotonic() < self._paused_until:
            return None
        try:
            async with asyncio.timeout(self._redis_seconds):
                allowed = await self._window.hit(self.limit, caller)
                reset, remaining = await self._window.get_window_stats(self.limit, caller)
        except (StorageError, TimeoutError) as error:
            if not self._paused_until:  # said once, until Redis answers again
                logger.error(
                    "calls are not limited: Redis does not answer: %s", type(error.__cause__ or error).__name__
                )
            self._paused_until = monotonic() + _PAUSE_SECONDS
            return None
        self._paused_until = 0.0
        return Verdict(allowed, remaining, max(0, int(reset - time())) + 1)  # when it is over, not when it ends

    async def close(self) -> None:
        """Close the connections to Redis."""
        if self._pool is not None:
            await self._pool.aclose()


class _Window(NamedTuple):
    number: int
    previous: int
    current: int


class BoundedMemory(MemoryStorage):
    """Counts of the callers seen last. The library's own memory keeps all, and walks over them at every call."""

    def __init__(self, max_callers: int = _MAX_CALLERS) -> None:
        super().__init__()
        self._max_callers = max_callers
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    async def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        window, left = self._look(key, expiry)
        if floor(window.previous * left / expiry + window.current) + amount > limit:
            return False
        self._windows[key] = window._replace(current=window.current + amount)
        self._windows.move_to_end(key)
        if len(self._windows) > self._max_callers:
            self._windows.popitem(last=False)
        return True

    async def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        window, left = self._look(key, expiry)
        return window.previous, left, window.current, left + expiry

    def _look(self, key: str, expiry: int) -> tuple[_Window, float]:
        """The counts as of now, and the seconds left of the current window."""
        number, elapsed = divmod(time(), expiry)
        window = self._windows.get(key, _Window(0, 0, 0))
        match number - window.number:
            case 0:
                counts = window.previous, window.current
            case 1:
                counts = window.current, 0
            case _:
                counts = 0, 0
        return _Window(int(number), *counts), expiry - elapsed


class RateLimitMiddleware:
    """Answer 429 with Retry-After; counted answers say what is left (draft-ietf-httpapi-ratelimit-headers)."""

    def __init__(self, app: ASGIApp, limiter: RateLimiter) -> None:
        self.app = app
        self.limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        verdict = await self.limiter.take(caller_of(scope)) if is_expensive(scope) else None
        if verdict is None:
            await self.app(scope, receive, send)
            return
        limit = self.limiter.limit
        fields = {
            "RateLimit-Policy": f'"calls";q={limit.amount};w={limit.get_expiry()}',
            "RateLimit": f'"calls";r={verdict.remaining};t={verdict.reset_seconds}',
        }
        app = self.app
        if not verdict.allowed:
            app = service_error_response(RateLimitError(f"more than {limit} (HEATQUERY_RATE_LIMIT)"))
            fields["Retry-After"] = str(verdict.reset_seconds)

        async def send_with_limit(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(fields)
            await send(message)

        await app(scope, receive, send_with_limit)


def is_expensive(scope: Scope) -> bool:
    """Whether a call makes the model or the drawing work."""
    if scope["type"] != "http":
        return False
    path: str = scope["path"]
    draws = path == "/heatmap" or (path.startswith("/scenes/") and path.endswith(("/result", "/preview")))
    return draws or scope["method"] not in ("GET", "HEAD", "OPTIONS")


def caller_of(scope: Scope) -> str:
    """The key that was used; without keys the address, or its /64, which is what one IPv6 user has."""
    if caller := scope.get("state", {}).get("caller"):
        return caller
    host = scope["client"][0] if scope.get("client") else "unknown"
    try:
        address = ip_address(host)
    except ValueError:  # a socket of another kind, or a proxy's word
        return host
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped.compressed if address.ipv4_mapped else f"{int(address) >> 64:x}/64"
    return host


def _redis_storage(pool: ConnectionPool) -> RedisStorage:
    return RedisStorage(
        "async+redis://",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix="heatquery:calls",
        connection_pool=pool,  # pyright: ignore[reportArgumentType] # the library hands it on
    )
