"""Results in a Redis server, so that any replica can draw what another one saw."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.exceptions import RedisError, ResponseError

from service.analysis import Analysis
from service.errors import StoreUnavailableError
from service.packing import MAX_HEAD_BYTES, CorruptResultError, pack_result, unpack_result
from service.store import require_image_id, unknown_image

_BYTES_PER_SECOND = 100e6  # what the bytes themselves may take, at least: a network of 1 Gbit/s
PAUSE_SECONDS = 1.0  # after a failure nobody waits for a server that is likely still away
_PIECE_BYTES = 2**20
_CONNECTIONS = 16  # also bounds how many results are in memory on their way from the server
_IDLE_SECONDS = 30  # a connection unused for longer is tried before it is used
logger = logging.getLogger("heatquery")


class RedisStore:
    """Keeps each result as one value that Redis itself drops when its time is over.

    A server that is away or slow costs a call at most `patience_seconds`, and only one call in `PAUSE_SECONDS`.
    """

    def __init__(
        self,
        url: str,
        max_bytes: int,
        ttl_seconds: float,
        patience_seconds: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: redis://, rediss:// or unix://; it may hold a password and is never shown.
            max_bytes: of one result; a larger one is not kept.
            patience_seconds: for any answer; what has to travel gets time of its own.
        """
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=patience_seconds,
            socket_connect_timeout=patience_seconds,
            socket_timeout=None,  # `_talking` bounds a whole command
            health_check_interval=_IDLE_SECONDS,
            retry=Retry(NoBackoff(), 1),  # the server may have closed a connection that lay in the pool
        )
        self._redis = Redis.from_pool(pool)
        self._max_bytes = max_bytes
        self._ttl_ms = max(1, round(ttl_seconds * 1000))
        self._patience_seconds = patience_seconds
        self._clock = clock
        self._retry_at = 0.0
        self._failing: set[str] = set()

    async def put(self, model: str, analysis: Analysis) -> bool:
        """Keep a result; see `Store`."""
        if analysis.nbytes > self._max_bytes:
            return False
        try:
            self._require_no_pause()  # before the work of packing
            value = await asyncio.to_thread(pack_result, analysis)  # copies the upload
            async with self._talking("kept", len(value)):
                await self._redis.set(_key(model, analysis.image_id), value, px=self._ttl_ms)
        except StoreUnavailableError:
            return False
        return True

    async def get(self, model: str, image_id: str) -> Analysis:
        """Look a result up; see `Store`. What others have written under its key is no result."""
        require_image_id(image_id)
        key = _key(model, image_id)
        async with self._talking("read", self._max_bytes):
            pieces = await self._read(key)
        if not any(pieces):
            raise unknown_image(self._ttl_ms / 1000)
        try:
            analysis = await asyncio.to_thread(lambda: unpack_result(b"".join(pieces)))
            if analysis.image_id != image_id:
                raise CorruptResultError(f"holds the picture {analysis.image_id}")
        except CorruptResultError as error:
            logger.warning("Redis holds no result of ours under %s: %s", key, error)
            raise unknown_image(self._ttl_ms / 1000) from error
        return analysis

    async def check(self) -> None:
        """Ask the server for a sign of life; without one the service runs and keeps no results."""
        with suppress(StoreUnavailableError):
            async with self._talking("checked"):
                await self._redis.execute_command("PING")

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _read(self, key: str) -> list[bytes]:
        """The value in pieces, no more of it than a result of ours can have; empty where there is none.

        One large answer would hold the event loop up, and nobody knows how large a foreign value is.
        """
        pieces: list[bytes] = []
        for start in range(0, self._max_bytes + MAX_HEAD_BYTES, _PIECE_BYTES):
            try:
                piece: Any = await self._redis.execute_command(
                    "GETRANGE", key, start, start + _PIECE_BYTES - 1, **{NEVER_DECODE: True}
                )
            except ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                piece = b"a list, a hash or the like"
            pieces.append(piece)
            if len(piece) < _PIECE_BYTES:
                break
        return pieces

    def _require_no_pause(self) -> None:
        if self._clock() < self._retry_at:
            raise StoreUnavailableError("Redis did not answer a moment ago; try again in a second")

    @asynccontextmanager
    async def _talking(self, purpose: str, nbytes: int = 0) -> AsyncIterator[None]:
        """Bound the time of a command, and tell the first failure and the first success after it.

        Args:
            purpose: what results could not be; failures are told once for each purpose.
            nbytes: that may have to travel.
        Raises:
            StoreUnavailableError: away, too slow, or unwilling.
        """
        self._require_no_pause()
        try:
            async with asyncio.timeout(self._patience_seconds + nbytes / _BYTES_PER_SECOND):
                yield
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or "no answer in time"
            if not isinstance(error, ResponseError):  # which is an answer
                self._retry_at = self._clock() + PAUSE_SECONDS
            if purpose not in self._failing:
                self._failing.add(purpose)
                logger.error("results cannot be %s in Redis: %s", purpose, reason)
            raise StoreUnavailableError(f"results cannot be {purpose} in Redis now; try again soon") from error
        if purpose in self._failing:
            self._failing.remove(purpose)
            logger.info("results can be %s in Redis again", purpose)


def _key(model: str, image_id: str) -> str:
    return f"heatquery:{model}:{image_id}"
