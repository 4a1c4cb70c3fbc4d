"""One picture's way through the service: read and resize, the model, then what the answer needs of it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Generic, TypeVar

from service.analysis import Analysis, ModelResult
from service.metrics import Metrics, Stage
from service.picture_tiles import TileOption
from service.predictor import Predictor, Prepared
from service.scheduler import Canvas, Priority, Scheduler
from service.tracing import StageTime, Tracing
from service.work_pool import WorkPool

Value = TypeVar("Value")
TILES_AT_ONCE = 8  # of one picture: enough to fill a batch, and few enough that their results stay small


@dataclass(frozen=True)
class Outcome(Generic[Value]):
    """An analysed picture, what the caller made of it, and milliseconds by step."""

    analysis: Analysis
    value: Value
    timing_ms: dict[str, float]


class Pipeline:
    """A predictor whose model runs are shared by all calls."""

    def __init__(
        self, predictor: Predictor, scheduler: Scheduler, pool: WorkPool, metrics: Metrics, tracing: Tracing
    ) -> None:
        self.predictor = predictor
        self.scheduler = scheduler
        self._pool, self._metrics, self._tracing = pool, metrics, tracing

    async def analyse(self, data: bytes, tile: TileOption, make: Callable[[Analysis], Value]) -> Outcome[Value]:
        """Analyse an upload.

        Args:
            make: turns the analysis into what the caller needs; runs in a worker thread.
        Raises:
            ServiceError: the picture or the model.
        """
        arrived = perf_counter()
        prepared = await self._pool.run(lambda: self.predictor.prepare(data, tile))
        waited = perf_counter() - arrived - sum(prepared.timing_ms.values()) / 1e3
        results = await self._run_model(prepared)

        def finish() -> tuple[Analysis, Value, float]:
            resumed = perf_counter()
            analysis = self.predictor.finish(prepared, results)
            return analysis, make(analysis), perf_counter() - resumed

        analysis, value, seconds = await self._pool.run(finish)
        timing = dict(analysis.timing_ms)
        timing["queue"] += waited * 1e3
        timing |= {"postprocess": seconds * 1e3, "total": (perf_counter() - arrived) * 1e3}
        self._observe(analysis, arrived, timing)
        return Outcome(analysis, value, {step: round(value, 2) for step, value in timing.items()})

    async def _run_model(self, prepared: Prepared) -> list[ModelResult]:
        if prepared.tiling is None:
            return [await self.scheduler.run(prepared.canvases[0])]
        slots = asyncio.Semaphore(TILES_AT_ONCE)

        async def run_one(canvas: Canvas) -> ModelResult:
            async with slots:
                return await self.scheduler.run(canvas, Priority.TILE)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(run_one(canvas)) for canvas in prepared.canvases]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None  # one is enough for the answer, and the others were cancelled
        return [task.result() for task in tasks]

    def _observe(self, analysis: Analysis, arrived: float, timing: dict[str, float]) -> None:
        """Measure the stages, and trace them as if each had followed the one before."""
        milliseconds: dict[Stage, float] = {
            "preprocess": timing["read_image"] + timing["preprocess"],
            "queue": timing["queue"],
            "encode": timing["encode"],
            "decode": timing["decode"],
            "postprocess": timing["postprocess"],
        }
        spans, begun = [], arrived
        for stage, duration in milliseconds.items():
            self._metrics.stage(stage, duration / 1e3)
            attributes = {"heatquery.query_count": analysis.query_count} if stage == "decode" else {}
            spans.append(StageTime(stage, begun, begun + duration / 1e3, attributes))
            begun += duration / 1e3
        self._tracing.record_stages(spans)
        self._metrics.queries(analysis.query_count)
        self._metrics.estimated(analysis.estimated_count)
