"""A store whose use is counted."""

from service.analysis import Analysis
from service.errors import UnknownImageError
from service.metrics import Metrics
from service.store import MemoryStore, Store


class MeasuredStore:
    """Any store; how much it holds is known of one in memory alone, since Redis has an exporter of its own."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    async def put(self, model: str, analysis: Analysis) -> bool:
        """See `Store`."""
        kept = await self._store.put(model, analysis)
        if not kept:
            self._metrics.store_lost()
        self._measure()
        return kept

    async def get(self, model: str, image_id: str) -> Analysis:
        """See `Store`."""
        try:
            analysis = await self._store.get(model, image_id)
        except UnknownImageError:
            self._metrics.store_lookup(found=False)
            raise
        finally:
            self._measure()
        self._metrics.store_lookup(found=True)
        return analysis

    async def check(self) -> None:
        """See `Store`."""
        await self._store.check()

    async def close(self) -> None:
        """See `Store`."""
        await self._store.close()

    def _measure(self) -> None:
        if isinstance(self._store, MemoryStore):
            self._metrics.store_holds(self._store.nbytes, len(self._store))
