"""Results for GET /heatmap in memory: bounded in bytes and in time."""

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from service.analysis import Analysis, HeatMaps
from service.errors import UnknownImageError
from service.letterbox import Letterbox
from service.settings import Settings
from service.store import MemoryStore, open_store, require_image_id


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def name(number: int) -> str:
    """An image id."""
    return f"{number:032x}"


def analysis(number: int, size: int = 1000) -> Analysis:
    """A result of `size` bytes."""
    empty = np.zeros((0, 4), dtype=np.float32)
    return Analysis(
        image_id=name(number),
        upload=bytes(size),
        frame=Letterbox.fit(1, 1, 32),
        estimated_count=0.0,
        query_count=0,
        boxes=empty,
        scores=empty,
        maps=HeatMaps(np.zeros((0, 0), dtype=np.float32), (), ()),
        notes=(),
        timing_ms={},
    )


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def put(store: MemoryStore, number: int, size: int = 1000) -> None:
    run(store.put("model", analysis(number, size)))


def holds(store: MemoryStore, number: int) -> bool:
    try:
        run(store.get("model", name(number)))
    except UnknownImageError:
        return False
    return True


def test_what_was_put_is_got() -> None:
    store = MemoryStore(10_000, 60)
    kept = analysis(1)
    run(store.put("model", kept))
    assert run(store.get("model", name(1))) is kept


def test_another_model_does_not_see_it() -> None:
    store = MemoryStore(10_000, 60)
    put(store, 1)
    with pytest.raises(UnknownImageError):
        run(store.get("other", name(1)))


def test_the_least_recently_used_goes_first() -> None:
    store = MemoryStore(2500, 60)
    put(store, 1)
    put(store, 2)
    assert holds(store, 1)
    put(store, 3)
    assert [holds(store, number) for number in (1, 2, 3)] == [True, False, True]


def test_putting_again_makes_it_the_most_recent() -> None:
    store = MemoryStore(2500, 60)
    for number in (1, 2, 1, 3):
        put(store, number)
    assert [holds(store, number) for number in (1, 2, 3)] == [True, False, True]


def test_a_thousand_results_keep_to_the_byte_budget() -> None:
    store = MemoryStore(2500, 60)
    for number in range(1000):
        put(store, number)
        assert store.nbytes <= 2500
    assert len(store) == 2


def test_the_budget_holds_under_threads_with_loops_of_their_own() -> None:
    store = MemoryStore(10_000, 60)

    async def work(first: int) -> None:
        for number in range(first, first + 200):
            await store.put("model", analysis(number % 50))
            with pytest.raises(UnknownImageError):
                await store.get("model", name(999))

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda first: asyncio.run(work(first)), range(0, 400, 100)))
    assert (len(store), store.nbytes) == (10, 10_000)


def test_a_result_larger_than_the_budget_is_not_kept() -> None:
    store = MemoryStore(2500, 60)
    assert run(store.put("model", analysis(1)))
    assert not run(store.put("model", analysis(2, size=3000)))
    assert [holds(store, number) for number in (1, 2)] == [True, False]


def test_the_same_picture_is_kept_once() -> None:
    store = MemoryStore(10_000, 60)
    for _ in range(3):
        put(store, 1)
    assert (len(store), store.nbytes) == (1, 1000)


def test_a_result_expires() -> None:
    clock = Clock()
    store = MemoryStore(10_000, 60, clock)
    put(store, 1)
    clock.now = 59.9
    assert holds(store, 1)
    clock.now = 60.0
    assert not holds(store, 1)
    assert store.nbytes == 0


@pytest.mark.parametrize(
    "text", ["", "a", "../../etc/passwd", "A" * 32, "0" * 33, "0" * 31 + "\n", "0" * 32 + "\n", "*" * 32]
)
def test_what_is_no_image_id_is_unknown(text: str) -> None:
    with pytest.raises(UnknownImageError, match="32 hex digits"):
        require_image_id(text)


def test_memory_is_the_store_by_default() -> None:
    assert isinstance(open_store(Settings()), MemoryStore)
