"""Places and deadlines: how many calls are inside, and for how long."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest

from service.errors import DeadlineError, QueueFullError
from service.gate import Gate
from service.work_pool import WorkPool


def in_a_loop(scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await scenario()

    asyncio.run(main())


def test_there_are_as_many_calls_as_places() -> None:
    gate = Gate(capacity=2, deadline_seconds=5)
    with gate.place():
        with gate.place(), pytest.raises(QueueFullError, match=r"2 calls .* \(HEATQUERY_QUEUE\)"), gate.place():
            pass
        with gate.place():
            pass


def test_a_call_that_fails_gives_its_place_back() -> None:
    gate = Gate(capacity=1, deadline_seconds=5)
    with pytest.raises(ZeroDivisionError), gate.place():
        _ = 1 // 0
    gate.require_room()


def test_what_takes_longer_than_the_deadline_is_cancelled() -> None:
    async def scenario() -> None:
        gate, sleeping = Gate(capacity=1, deadline_seconds=0.05), asyncio.Event()
        task = asyncio.ensure_future(sleeping.wait())
        with pytest.raises(DeadlineError, match=r"not done after 0\.05 s"):
            await gate.within_deadline(task)
        assert task.cancelled()

    in_a_loop(scenario)


def test_work_that_has_not_begun_at_its_deadline_never_begins() -> None:
    async def scenario() -> None:
        gate, pool, busy = Gate(capacity=2, deadline_seconds=0.05), WorkPool(threads=1), threading.Event()
        begun: list[int] = []
        first = asyncio.create_task(pool.run(busy.wait))
        await asyncio.sleep(0)
        with pytest.raises(DeadlineError):
            await gate.within_deadline(pool.run(lambda: begun.append(1)))
        busy.set()
        await first
        pool.close()
        assert begun == []

    in_a_loop(scenario)


def test_an_error_of_the_work_reaches_the_caller() -> None:
    async def scenario() -> None:
        pool = WorkPool(threads=1)
        with pytest.raises(ZeroDivisionError):
            await pool.run(lambda: 1 // 0)
        pool.close()

    in_a_loop(scenario)
