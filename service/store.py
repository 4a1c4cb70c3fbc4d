"""Where results are kept for a while, so that GET /heatmap can draw what POST /detect saw."""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Protocol

from service.analysis import Analysis
from service.errors import UnknownImageError
from service.settings import Settings

_IMAGE_ID = re.compile(r"[0-9a-f]{32}")


class Store(Protocol):
    """Keeps results under the sha256 of their model and the image id, which comes from the picture's bytes."""

    async def put(self, model: str, analysis: Analysis) -> bool:
        """Keep a result. Never fails: what cannot be kept is not there later, and the answer is false."""
        ...

    async def get(self, model: str, image_id: str) -> Analysis:
        """Look a result up.

        Raises:
            UnknownImageError: never seen, expired, pushed out, or not an image id at all.
            StoreUnavailableError: the store cannot be asked now.
        """
        ...

    async def check(self) -> None:
        """Say in the log if the store cannot be used."""
        ...

    async def close(self) -> None:
        """Let connections go."""
        ...


def open_store(settings: Settings) -> Store:
    """The store that the settings name; nothing is connected yet."""
    url = settings.store.get_secret_value()
    if url == "memory":
        return MemoryStore(settings.heat_store_bytes, settings.heat_ttl_seconds)
    from service.redis_store import RedisStore  # its client is a third of all imports: not for those who have no Redis

    return RedisStore(url, settings.heat_store_bytes, settings.heat_ttl_seconds, settings.store_seconds)


def require_image_id(text: str) -> None:
    """Refuse what cannot be an image id before it becomes part of a key.

    Raises:
        UnknownImageError.
    """
    if not _IMAGE_ID.fullmatch(text):
        raise UnknownImageError(
            f"an image id is 32 hex digits, as POST /detect and POST /heatmap give it, not {text[:80]!r}"
        )


def unknown_image(ttl_seconds: float) -> UnknownImageError:
    """One wording for every store."""
    return UnknownImageError(
        f"no result for this image id: never seen, older than {ttl_seconds:g} s, or "
        "pushed out; send the image again to POST /detect or POST /heatmap"
    )


@dataclass(frozen=True)
class _Entry:
    analysis: Analysis
    expires: float


class MemoryStore:
    """Least recently used results go first, once the byte budget is spent; all go when their time is over.

    For one process: another process does not see them.
    """

    def __init__(self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._lock = Lock()  # nothing below waits, so event loops in several threads may share one store
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    async def put(self, model: str, analysis: Analysis) -> bool:
        """Keep a result; one larger than the whole budget is not kept."""
        key = (model, analysis.image_id)
        with self._lock:
            self._drop(key)
            self._drop_expired()
            if analysis.nbytes > self._max_bytes:
                return False
            self._entries[key] = _Entry(analysis, self._clock() + self._ttl_seconds)
            self._bytes += analysis.nbytes
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))
            return True

    async def get(self, model: str, image_id: str) -> Analysis:
        """Look a result up and make it the most recently used; see `Store`."""
        require_image_id(image_id)
        with self._lock:
            self._drop_expired()
            entry = self._entries.get((model, image_id))
            if entry is None:
                raise unknown_image(self._ttl_seconds)
            self._entries.move_to_end((model, image_id))
            return entry.analysis

    async def check(self) -> None:
        """Memory can always be used."""

    async def close(self) -> None:
        """Nothing to let go."""

    @property
    def nbytes(self) -> int:
        """Memory held by the kept results, in bytes."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def _drop_expired(self) -> None:
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if entry.expires <= now]:
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= entry.analysis.nbytes
