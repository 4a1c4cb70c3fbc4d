"""The scheduler: batches, groups of like K, order, failures of one, callers that leave."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from service.analysis import ModelResult
from service.engines.base import Decoded, DecoderInputs, Encoded
from service.errors import EngineError, OutOfMemoryError
from service.manifest import QuerySpec
from service.metrics import Metrics
from service.scheduler import Priority, Scheduler

SPEC = QuerySpec(k_min=1, k_max=100, t=1.0)
POISON = 255


class ToyEngine:
    """The value of a canvas's first pixel is its count, its only box and its score; a gate holds every run."""

    provider = "toy"
    cuts_canvas = True

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.encoded: list[list[int]] = []
        self.decoded: list[list[int]] = []
        self.memory_for = 1000

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        assert self.gate.wait(10)
        counts = images[:, 0, 0, 0].astype(np.float32)
        self.encoded.append([int(count) for count in counts])
        if len(images) > self.memory_for:
            raise OutOfMemoryError("too many")
        if POISON in counts:
            raise EngineError("poison")
        size, column = len(images), counts[:, None, None]
        heat = np.broadcast_to(column[..., None], (size, 4, 1, images.shape[3] // 2)).astype(np.float32)
        queries = np.broadcast_to(column, (size, 100, 1)).astype(np.float32)
        boxes = np.zeros((size, 100, 4), np.float32)
        return Encoded((heat[:, :1],), queries, boxes, counts, heat[:, :1], (heat[:, :1],), (heat,))

    def decode(self, inputs: DecoderInputs, query_counts: Sequence[int]) -> Decoded:
        assert self.gate.wait(10)
        self.decoded.append(list(query_counts))
        scores = inputs.queries[:, : max(query_counts)]
        return Decoded(np.zeros((*scores.shape[:2], 4), np.float32), scores)


def canvas(value: int, width: int = 2) -> Callable[[], NDArray[np.uint8]]:
    return lambda: np.full((3, 2, width), value, np.uint8)


Scenario = Callable[[ToyEngine, Scheduler], Awaitable[None]]


def play(scenario: Scenario, lanes: int = 1, batch: int = 8, wait_seconds: float = 0.0) -> None:
    async def main() -> None:
        engine = ToyEngine()
        scheduler = Scheduler(engine, SPEC, Metrics(), lanes, batch, wait_seconds)
        await scenario(engine, scheduler)
        scheduler.close()

    asyncio.run(main())


async def begin(scheduler: Scheduler, *values: int, priority: Priority = Priority.INTERACTIVE) -> list[asyncio.Task]:
    tasks = [asyncio.create_task(scheduler.run(canvas(value), priority)) for value in values]
    await asyncio.sleep(0)
    return tasks


def test_every_picture_gets_its_own_result() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        results: list[ModelResult] = await asyncio.gather(*await begin(scheduler, 3, 40, 5, 90))
        assert [result.estimated_count for result in results] == [3, 40, 5, 90]
        assert [len(result.boxes) for result in results] == [3, 40, 5, 90]
        assert [float(result.scores[0, 0]) for result in results] == [3, 40, 5, 90]
        assert [float(result.maps.density[0, 0]) for result in results] == [3, 40, 5, 90]

    play(scenario)


def test_canvases_of_other_shapes_run_apart_and_keep_their_order() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        widths = {10: 2, 11: 2, 12: 4, 13: 2, 14: 4}
        tasks = [asyncio.create_task(scheduler.run(canvas(value, width))) for value, width in widths.items()]
        await asyncio.sleep(0)
        engine.gate.set()
        results: list[ModelResult] = await asyncio.gather(*tasks)
        assert [result.estimated_count for result in results] == list(widths)
        assert [result.maps.density.shape[1] for result in results] == [1, 1, 2, 1, 2]
        assert engine.encoded == [[10], [11, 13], [12, 14]]
        assert sorted(map(sorted, engine.decoded)) == [[10], [11, 13], [12, 14]]

    play(scenario)


def test_a_batch_forms_while_the_engine_is_busy_and_no_larger_than_allowed() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        tasks = await begin(scheduler, 1) + await begin(scheduler, *range(2, 8))
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert engine.encoded == [[1], [2, 3, 4, 5], [6, 7]]

    play(scenario, batch=4)


def test_pictures_are_decoded_beside_those_that_need_about_as_many_queries() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        tasks = await begin(scheduler, 50) + await begin(scheduler, 10, 90, 12, 80, 14)
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert [sorted(group) for group in engine.decoded] == [[50], [10, 12, 14], [80, 90]]

    play(scenario)


def test_a_lone_picture_does_not_wait_for_company_unless_told_to() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        await asyncio.gather(*await begin(scheduler, 1))
        assert engine.encoded == [[1]]

    play(scenario, wait_seconds=0.0)


def test_an_incomplete_batch_waits_as_long_as_it_is_told_and_then_goes() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        first = await begin(scheduler, 1)
        await asyncio.sleep(0.05)
        await asyncio.gather(*first, *await begin(scheduler, 2))
        assert engine.encoded == [[1, 2]]

    play(scenario, wait_seconds=0.4)


def test_interactive_calls_pass_the_tiles_that_wait() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        tiles = await begin(scheduler, 1, 2, 3, priority=Priority.TILE)
        call = await begin(scheduler, 9)
        engine.gate.set()
        await asyncio.gather(*tiles, *call)
        assert engine.encoded.index([9]) == 1

    play(scenario, batch=1)


def test_a_caller_that_leaves_takes_its_picture_out_of_the_queue() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        first, leaves, stays = await begin(scheduler, 1, 2, 3)
        leaves.cancel()
        engine.gate.set()
        await asyncio.gather(first, stays)
        assert engine.encoded == [[1], [3]]

    play(scenario, batch=1)


def test_a_caller_that_leaves_mid_batch_harms_nobody() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        blocker = await begin(scheduler, 1)
        leaves, stays = await begin(scheduler, 2, 3)
        engine.gate.set()
        await blocker[0]
        leaves.cancel()
        assert (await stays).estimated_count == 3

    play(scenario)


def test_a_poisonous_picture_fails_alone() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        tasks = await begin(scheduler, 1) + await begin(scheduler, 2, POISON, 4)
        engine.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(outcome, "estimated_count", outcome.__class__) for outcome in outcomes] == [
            1,
            2,
            EngineError,
            4,
        ]

    play(scenario)


def test_a_batch_too_large_for_the_memory_runs_in_halves() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.memory_for = 2
        engine.gate.clear()
        tasks = await begin(scheduler, 1) + await begin(scheduler, 2, 3, 4, 5)
        engine.gate.set()
        assert [result.estimated_count for result in await asyncio.gather(*tasks)] == [1, 2, 3, 4, 5]
        assert engine.encoded == [[1], [2, 3, 4, 5], [2, 3], [4, 5]]

    play(scenario)


def test_halves_that_are_too_large_too_fail_and_the_next_call_works() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.memory_for = 1
        engine.gate.clear()
        tasks = await begin(scheduler, 1) + await begin(scheduler, 2, 3, 4, 5)
        engine.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ModelResult] + [OutOfMemoryError] * 4
        assert (await scheduler.run(canvas(7))).estimated_count == 7

    play(scenario)


def test_a_count_that_is_no_number_fails_its_own_picture_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        encode = engine.encode

        def spoil(images: NDArray[np.uint8]) -> Encoded:
            encoded = encode(images)
            encoded.count[encoded.count == 13] = np.nan
            return encoded

        monkeypatch.setattr(engine, "encode", spoil)
        engine.gate.clear()
        tasks = await begin(scheduler, 1) + await begin(scheduler, 2, 13)
        engine.gate.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ModelResult, ModelResult, EngineError]

    play(scenario)


def test_a_fault_of_ours_reaches_every_caller_of_its_batch_and_the_lane_is_free_again() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        def broken() -> NDArray[np.uint8]:
            raise KeyError("a bug")

        with pytest.raises(KeyError):
            await scheduler.run(broken)
        assert (await scheduler.run(canvas(7))).estimated_count == 7

    play(scenario)


def test_two_lanes_run_two_graphs_at_the_same_time() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        both = threading.Barrier(2)
        encode = engine.encode

        def meet(images: NDArray[np.uint8]) -> Encoded:
            both.wait(10)  # breaks unless a second run is at work
            return encode(images)

        engine.encode = meet  # pyright: ignore[reportAttributeAccessIssue]
        await asyncio.gather(*await begin(scheduler, 1, 2))

    play(scenario, lanes=2, batch=1)


def test_runs_with_company_go_to_the_engine_for_crowds_and_a_lone_one_does_not() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        crowds = ToyEngine()
        scheduler.run_crowds_on(crowds)
        await scheduler.run(canvas(1))
        assert (engine.encoded, engine.decoded, crowds.encoded) == ([[1]], [[1]], [])
        engine.gate.clear()
        tasks = await begin(scheduler, 2) + await begin(scheduler, 3)
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert crowds.encoded == [[3]]

    play(scenario, lanes=2, batch=1)


def test_tiles_of_scenes_never_share_a_run() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        tasks = await begin(scheduler, 1)
        tasks += await begin(scheduler, 2, 3, priority=Priority.SCENE)
        tasks += await begin(scheduler, 4, 5)
        engine.gate.set()
        await asyncio.gather(*tasks)
        assert engine.encoded == [[1], [4, 5], [2], [3]]
        assert sorted(engine.decoded) == [[1], [2], [3], [4, 5]]

    play(scenario)


def test_tiles_of_scenes_leave_a_lane_free_as_long_as_calls_come() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        await scheduler.run(canvas(1))
        engine.gate.clear()
        tasks = await begin(scheduler, 2, 3, priority=Priority.SCENE)
        assert scheduler._free == 1
        tasks += await begin(scheduler, 4)
        assert scheduler._free == 0  # the call has the lane at once
        engine.gate.set()
        await asyncio.gather(*tasks)

    play(scenario, lanes=2)


def test_tiles_of_scenes_take_all_lanes_where_no_call_comes() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        engine.gate.clear()
        tasks = await begin(scheduler, 2, 3, priority=Priority.SCENE)
        assert scheduler._free == 0
        engine.gate.set()
        await asyncio.gather(*tasks)

    play(scenario, lanes=2)


def test_tiles_of_scenes_always_take_the_same_engine() -> None:
    async def scenario(engine: ToyEngine, scheduler: Scheduler) -> None:
        beside = ToyEngine()
        scheduler.run_crowds_on(beside)
        await scheduler.run(canvas(1), Priority.SCENE)
        await asyncio.gather(*[scheduler.run(canvas(value), Priority.SCENE) for value in (2, 3)])
        assert (engine.encoded, sorted(beside.encoded)) == ([], [[1], [2], [3]])

    play(scenario)
