"""Runs of the model: pictures are encoded in batches, then decoded beside others that need as many queries.

One event loop owns the queues, so nothing is locked; threads only run the graphs. A run never waits for company while
nothing else runs, unless asked to. A batch that fails is taken apart, so that one picture does not spoil the others.

Tiles of scenes are work without anybody who waits, for hours. They leave a lane free as long as calls come, and keep to
themselves: what a run gives depends in its last bits on what else is in it, and a scene that is killed and resumed must
give the same bytes.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import count
from time import perf_counter
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from service.analysis import HeatMaps, ModelResult
from service.engines.base import DecoderInputs, EncodedRow, Engine
from service.errors import EngineError, OutOfMemoryError, ServiceError
from service.manifest import QuerySpec
from service.metrics import Batched, Metrics
from service.queries import query_counts

Canvas = Callable[[], NDArray[np.uint8]]
"""Draws (3, H, W); called in the thread that encodes it, so that waiting windows of a large picture hold no pixels."""

QUIET_SECONDS = 2.0  # without a call, until scenes take all lanes
ALIKE = 1.5  # pictures are decoded together if the most queries of any are at most this many times the fewest
Output = TypeVar("Output")


class Priority(IntEnum):
    """Who goes first when several wait."""

    INTERACTIVE = 0
    TILE = 1
    SCENE = 2


@dataclass(eq=False)
class _Item:
    """A canvas on its way."""

    canvas: Canvas
    order: tuple[Priority, int]
    future: "asyncio.Future[ModelResult]"
    since: float = field(default_factory=perf_counter)
    seconds: dict[str, float] = field(default_factory=lambda: {"queue": 0.0, "encode": 0.0, "decode": 0.0})
    encoded: EncodedRow | None = None
    queries: int = 0

    @property
    def cells(self) -> tuple[int, ...] | None:
        """Shape of the density map, which says that of all maps."""
        return None if self.encoded is None else self.encoded.batch.density.shape[1:]

    @property
    def of_scene(self) -> bool:
        return self.order[0] is Priority.SCENE

    def leaves_queue(self) -> None:
        self.seconds["queue"] += perf_counter() - self.since


class Scheduler:
    """Shares an engine among calls. To be made and used in one event loop."""

    def __init__(
        self,
        engine: Engine,
        spec: QuerySpec,
        metrics: Metrics,
        lanes: int,
        batch: int,
        wait_seconds: float,
        scene_batch: int = 1,
    ) -> None:
        """Start with empty queues.

        Args:
            lanes: graphs that run at the same time.
            batch: most pictures in one run of a graph.
            wait_seconds: how long an incomplete batch waits for company.
            scene_batch: most tiles of scenes in one run; 1 where a tile's result shall not depend on its company.
        """
        self._engine, self._spec, self._metrics = engine, spec, metrics
        self._beside = engine
        self._lanes = lanes
        self._batch, self._scene_batch, self._wait_seconds = batch, scene_batch, wait_seconds
        self._free = lanes
        self._last_call = -QUIET_SECONDS
        self._threads = ThreadPoolExecutor(lanes, thread_name_prefix="heatquery-model")
        self._loop = asyncio.get_running_loop()
        self._numbers = count()
        self._waiting: dict[Batched, list[_Item]] = {"encode": [], "decode": []}
        self._running: set[asyncio.Task[None]] = set()

    async def run(self, canvas: Canvas, priority: Priority = Priority.INTERACTIVE) -> ModelResult:
        """Take one canvas through both graphs. A caller that is cancelled leaves the queue.

        Raises:
            OutOfMemoryError, EngineError.
        """
        item = _Item(canvas, (priority, next(self._numbers)), self._loop.create_future())
        if not item.of_scene:
            self._last_call = item.since
        self._waiting["encode"].append(item)
        self._pump()
        return await item.future

    def run_crowds_on(self, engine: Engine) -> None:
        """Take another engine, with fewer threads, for runs that have company.

        One run is fastest on all cores; several at once do more on cores of their own than on cores that they share.
        """
        self._beside = engine

    @property
    def most_scene_tiles(self) -> int:
        """How many tiles of scenes can be in runs at once."""
        return self._lanes * self._scene_batch

    def close(self) -> None:
        """Let the runs at work end; drop what waits."""
        for item in (*self._waiting["encode"], *self._waiting["decode"]):
            item.future.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _pump(self) -> None:
        """Start as many runs as there are free lanes and batches to fill them."""
        while self._free and (chosen := self._next_batch()):
            stage, items = chosen
            self._waiting[stage] = [item for item in self._waiting[stage] if item not in items]
            self._free -= 1
            alone = self._free == self._lanes - 1 and not any(self._waiting.values()) and not items[0].of_scene
            task = self._loop.create_task(self._carry_out(stage, items, self._engine if alone else self._beside))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        for stage, waiting in self._waiting.items():
            self._metrics.queue_depth[stage].set(len(waiting))

    def _next_batch(self) -> tuple[Batched, list[_Item]] | None:
        """What to run next: by priority, and what is half done before what is new."""
        for stage, items in self._waiting.items():
            self._waiting[stage] = sorted((item for item in items if not item.future.done()), key=_by_order)
        encode, decode = self._of_one_kind("encode"), self._of_one_kind("decode")
        if decode and (not encode or decode[0].order[0] <= encode[0].order[0]):
            return "decode", self._alike(decode)
        if encode and self._may_begin(encode):
            return "encode", encode[: self._most(encode)]
        return ("decode", self._alike(decode)) if decode else None

    def _of_one_kind(self, stage: Batched) -> list[_Item]:
        """What waits and may begin now: calls, or else tiles of scenes, which never share a run."""
        waiting = self._waiting[stage]
        if calls := [item for item in waiting if not item.of_scene]:
            return calls
        return waiting if self._free > self._kept_for_calls() else []

    def _kept_for_calls(self) -> int:
        """Lanes that scenes leave free: one, where there are several and calls have come of late."""
        return int(self._lanes > 1 and perf_counter() - self._last_call < QUIET_SECONDS)

    def _most(self, items: Sequence[_Item]) -> int:
        return self._scene_batch if items[0].of_scene else self._batch

    def _may_begin(self, encode: Sequence[_Item]) -> bool:
        """Whether the batch is full or has waited long enough; else look again when it has."""
        due = min(item.since for item in encode) + self._wait_seconds
        if len(encode) >= self._most(encode) or (missing := due - perf_counter()) <= 0:
            return True
        self._loop.call_later(missing, self._pump)
        return False

    def _alike(self, decode: Sequence[_Item]) -> list[_Item]:
        """The first in the queue, and others with maps of the same shape that need about as many queries."""
        group: list[_Item] = []
        for item in decode:
            numbers = [each.queries for each in (*group, item)]
            alike = max(numbers) <= ALIKE * min(numbers) and item.cells == decode[0].cells
            if alike and len(group) < self._most(decode):
                group.append(item)
        return group

    async def _carry_out(self, stage: Batched, items: list[_Item], engine: Engine) -> None:
        """Run a batch in a thread, then hand its outcomes on."""
        self._metrics.batch(stage, len(items))
        for item in items:
            item.leaves_queue()
        work = partial(self._encode if stage == "encode" else self._decode, engine)
        begun = perf_counter()
        try:
            outcomes = await self._loop.run_in_executor(self._threads, lambda: in_parts(work, items))
        except Exception as error:  # a fault of ours; whoever waits must hear of it
            outcomes = [error] * len(items)
        finally:
            self._free += 1
        for item, outcome in zip(items, outcomes, strict=True):
            item.seconds[stage] = perf_counter() - begun
            self._hand_on(item, outcome)
        self._pump()

    def _hand_on(self, item: _Item, outcome: EncodedRow | ModelResult | Exception) -> None:
        if item.future.done():
            return
        match outcome:
            case EncodedRow():
                item.encoded, item.since = outcome, perf_counter()
                try:
                    (item.queries,) = query_counts(outcome.count, self._spec, outcome.batch.queries.shape[1])
                except EngineError as error:
                    item.future.set_exception(error)
                else:
                    self._waiting["decode"].append(item)
            case ModelResult():
                item.future.set_result(outcome)
            case Exception():
                item.future.set_exception(outcome)

    def _encode(self, engine: Engine, items: Sequence[_Item]) -> list[EncodedRow]:
        canvases = [item.canvas() for item in items]
        rows: list[EncodedRow | None] = [None] * len(items)
        for places in _places_of_each([canvas.shape for canvas in canvases]):
            encoded = engine.encode(np.stack([canvases[place] for place in places]))
            for row, place in enumerate(places):
                rows[place] = EncodedRow(encoded, row)
        return [row for row in rows if row is not None]

    def _decode(self, engine: Engine, items: Sequence[_Item]) -> list[ModelResult]:
        rows = [item.encoded for item in items if item.encoded is not None]
        decoded = engine.decode(DecoderInputs.of_rows(rows), [item.queries for item in items])
        return [
            ModelResult(
                estimated_count=float(row.count[0]),
                query_count=item.queries,
                boxes=decoded.boxes[index, : item.queries],
                scores=decoded.scores[index, : item.queries],
                maps=HeatMaps.of_row(row.batch, row.row),
                seconds=item.seconds,
            )
            for index, (item, row) in enumerate(zip(items, rows, strict=True))
        ]


def in_parts(
    work: Callable[[Sequence[_Item]], Sequence[Output]], items: Sequence[_Item]
) -> list[Output | ServiceError]:
    """Run a batch; one that fails runs once more in parts, so that every picture gets its own outcome.

    Out of memory: in halves, which need less. Any other failure: one by one, as one picture may be the cause.
    """
    try:
        return list(work(items))
    except (OutOfMemoryError, EngineError) as error:
        if len(items) == 1:
            return [error]
        size = -(-len(items) // 2) if isinstance(error, OutOfMemoryError) else 1
    parts = [items[first : first + size] for first in range(0, len(items), size)]
    return [outcome for part in parts for outcome in _once(work, part)]


def _once(work: Callable[[Sequence[_Item]], Sequence[Output]], items: Sequence[_Item]) -> list[Output | ServiceError]:
    try:
        return list(work(items))
    except (OutOfMemoryError, EngineError) as error:
        return [error] * len(items)


def _places_of_each(shapes: Sequence[tuple[int, ...]]) -> list[list[int]]:
    """Where each shape stands, the shapes in order of their first place."""
    return [[place for place, found in enumerate(shapes) if found == shape] for shape in dict.fromkeys(shapes)]


def _by_order(item: _Item) -> tuple[Priority, int]:
    return item.order
