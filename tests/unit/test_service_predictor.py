"""How many queries a picture gets, and the pool that runs the work."""

import asyncio
import threading

import numpy as np
import pytest

from service.analysis import Analysis, HeatMaps
from service.detections import DetectionOptions
from service.errors import DeadlineError, EngineError, QueueFullError
from service.letterbox import Letterbox
from service.manifest import QuerySpec
from service.predictor import query_counts
from service.work_pool import WorkPool

SPEC = QuerySpec(k_min=100, k_max=600, t=3.0)


@pytest.mark.parametrize(("count", "k"), [(0.0, 100), (-4.0, 100), (40.0, 120), (60.2, 181), (5000.0, 600)])
def test_queries_follow_the_count_between_their_limits(count: float, k: int) -> None:
    assert query_counts(np.array([count], dtype=np.float32), SPEC, available=8400) == [k]


def test_half_a_query_is_rounded_to_even() -> None:
    spec = QuerySpec(k_min=1, k_max=600, t=0.5)
    assert query_counts(np.array([5.0, 7.0], dtype=np.float32), spec, available=8400) == [2, 4]


def test_there_are_no_more_queries_than_tokens() -> None:
    assert query_counts(np.array([0.0, 500.0], dtype=np.float32), SPEC, available=84) == [84, 84]


@pytest.mark.parametrize("count", [np.nan, np.inf])
def test_a_count_that_is_no_number_is_an_error_of_the_engine(count: float) -> None:
    with pytest.raises(EngineError, match=f"a count of {count} objects"):
        query_counts(np.array([5.0, count], dtype=np.float32), SPEC, available=8400)


def test_a_box_in_the_padding_takes_no_place_in_the_list() -> None:
    analysis = Analysis(
        image_id="",
        upload=b"",
        frame=Letterbox.fit(200, 100, 100),  # the lower half of the canvas is padding
        estimated_count=2.0,
        query_count=2,
        boxes=np.array([[10, 60, 30, 80], [10, 10, 30, 30]], dtype=np.float32),
        scores=np.array([[0.9], [0.5]], dtype=np.float32),
        maps=HeatMaps(np.zeros((1, 1), dtype=np.float32), (), ()),
        notes=(),
        timing_ms={},
    )
    found = analysis.detections(DetectionOptions(np.zeros(1, np.float32), None, nms_iou=None, max_detections=1))
    assert found.boxes.tolist() == [[20, 20, 60, 60]]


def test_a_pool_refuses_what_it_cannot_hold_and_recovers() -> None:
    async def scenario() -> None:
        pool, gate = WorkPool(workers=1, waiting=1, deadline_seconds=5), threading.Event()
        calls = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFullError):
            await pool.run(lambda: None)
        gate.set()
        assert await asyncio.gather(*calls) == [True, True]
        assert await pool.run(lambda: 7) == 7
        pool.close()

    asyncio.run(scenario())


def test_late_work_keeps_its_place_until_it_ends() -> None:
    async def scenario() -> None:
        pool, gate = WorkPool(workers=1, waiting=0, deadline_seconds=0.05), threading.Event()
        with pytest.raises(DeadlineError):
            await pool.run(gate.wait)
        with pytest.raises(QueueFullError), pool.upload_place():
            pass
        gate.set()
        while pool.is_full:
            await asyncio.sleep(0.001)
        pool.close()

    asyncio.run(scenario())


def test_work_that_never_began_gives_its_place_back_at_the_deadline() -> None:
    async def scenario() -> None:
        pool, gate = WorkPool(workers=1, waiting=1, deadline_seconds=0.05), threading.Event()
        calls = [asyncio.create_task(pool.run(gate.wait)) for _ in range(2)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [DeadlineError, DeadlineError]
        with pool.upload_place():
            pass
        gate.set()
        pool.close()

    asyncio.run(scenario())


def test_an_error_of_the_work_reaches_the_caller() -> None:
    async def scenario() -> None:
        pool = WorkPool(workers=1, waiting=0, deadline_seconds=5)
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        pool.close()

    asyncio.run(scenario())


def test_there_are_as_many_uploads_as_places() -> None:
    pool = WorkPool(workers=1, waiting=1, deadline_seconds=5)
    with pool.upload_place():
        with (
            pool.upload_place(),
            pytest.raises(QueueFullError, match="2 uploads are on their way"),
            pool.upload_place(),
        ):
            pass
        with pool.upload_place():
            pass
    pool.close()
