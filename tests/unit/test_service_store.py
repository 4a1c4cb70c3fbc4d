"""Results for GET /heatmap: bounded in bytes and in time."""

import numpy as np
import pytest

from service.analysis import Analysis, HeatMaps
from service.errors import UnknownImageError
from service.letterbox import Letterbox
from service.store import HeatStore


class Clock:
    """A clock that the test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def analysis(image_id: str, size: int = 1000) -> Analysis:
    """A result of `size` bytes."""
    empty = np.zeros((0, 4), dtype=np.float32)
    return Analysis(
        image_id=image_id,
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


def holds(store: HeatStore, image_id: str) -> bool:
    try:
        store.get("model", image_id)
    except UnknownImageError:
        return False
    return True


def test_what_was_put_is_got() -> None:
    store = HeatStore(10_000, 60)
    kept = analysis("a")
    store.put("model", kept)
    assert store.get("model", "a") is kept


def test_another_model_does_not_see_it() -> None:
    store = HeatStore(10_000, 60)
    store.put("model", analysis("a"))
    with pytest.raises(UnknownImageError):
        store.get("other", "a")


def test_the_least_recently_used_goes_first() -> None:
    store = HeatStore(2500, 60)
    store.put("model", analysis("a"))
    store.put("model", analysis("b"))
    store.get("model", "a")
    store.put("model", analysis("c"))
    assert [holds(store, image_id) for image_id in "abc"] == [True, False, True]


def test_the_byte_budget_is_kept() -> None:
    store = HeatStore(2500, 60)
    for number in range(50):
        store.put("model", analysis(str(number)))
        assert store.nbytes <= 2500
    assert len(store) == 2


def test_a_result_larger_than_the_budget_is_not_kept() -> None:
    store = HeatStore(2500, 60)
    store.put("model", analysis("a"))
    store.put("model", analysis("b", size=3000))
    assert [holds(store, image_id) for image_id in "ab"] == [True, False]


def test_the_same_picture_is_kept_once() -> None:
    store = HeatStore(10_000, 60)
    for _ in range(3):
        store.put("model", analysis("a"))
    assert (len(store), store.nbytes) == (1, 1000)


def test_a_result_expires() -> None:
    clock = Clock()
    store = HeatStore(10_000, 60, clock)
    store.put("model", analysis("a"))
    clock.now = 59.9
    assert holds(store, "a")
    clock.now = 60.0
    assert not holds(store, "a")
    assert store.nbytes == 0
