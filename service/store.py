"""Results kept in memory for a while, so that GET /heatmap can draw what POST /detect saw."""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import monotonic

from service.analysis import Analysis
from service.errors import UnknownImageError


@dataclass(frozen=True)
class _Entry:
    analysis: Analysis
    expires: float


class HeatStore:
    """Least recently used results go first, once the byte budget is spent; all go when their time is over."""

    def __init__(self, max_bytes: int, ttl_seconds: float, clock: Callable[[], float] = monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_seconds = ttl_seconds
        self._clock = clock
        self._lock = Lock()
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._bytes = 0

    def put(self, model: str, analysis: Analysis) -> None:
        """Keep a result under its model and image id; one larger than the whole budget is not kept."""
        key = (model, analysis.image_id)
        with self._lock:
            self._drop(key)
            self._drop_expired()
            if analysis.nbytes > self._max_bytes:
                return
            self._entries[key] = _Entry(analysis, self._clock() + self._ttl_seconds)
            self._bytes += analysis.nbytes
            while self._bytes > self._max_bytes:
                self._drop(next(iter(self._entries)))

    def get(self, model: str, image_id: str) -> Analysis:
        """Look a result up and make it the most recently used.

        Raises:
            UnknownImageError: never seen, expired or pushed out.
        """
        with self._lock:
            self._drop_expired()
            entry = self._entries.get((model, image_id))
            if entry is None:
                raise UnknownImageError(
                    f"no result for this image id: never seen, older than {self._ttl_seconds:g} s, or "
                    "pushed out; send the image again to POST /detect or POST /heatmap"
                )
            self._entries.move_to_end((model, image_id))
            return entry.analysis

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
