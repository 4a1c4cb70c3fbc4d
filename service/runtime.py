"""The one object behind the routers: settings, gate, store, metrics and, once it is ready, the pipeline."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from typing import Literal

from service.engines.onnx import EngineLoadError, OnnxEngine
from service.engines.tensorrt import TensorRTPlan
from service.engines.trial import TrialEngine
from service.errors import NotReadyError, ServiceError
from service.gate import Gate
from service.loading import LoadedModel
from service.manifest import ModelFolder, ModelFolderError
from service.measured_store import MeasuredStore
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.predictor import Predictor
from service.scene_service import Scenes
from service.scheduler import Scheduler
from service.settings import Settings
from service.store import open_store
from service.tracing import Tracing
from service.work_pool import WorkPool

Status = Literal["loading", "ready", "failed", "stopping"]
logger = logging.getLogger("heatquery")


class Runtime:
    """State of a running service. Live from the start; ready once the model is verified and warmed up."""

    def __init__(self, settings: Settings, on_ready: Callable[[Predictor], None] | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.tracing = Tracing.to(settings.otlp_endpoint)
        self.gate = Gate(settings.queue, settings.deadline_seconds)
        self.pool = WorkPool(settings.picture_threads)
        self.scenes = Scenes(settings, self.metrics)
        self.store = MeasuredStore(open_store(settings), self.metrics)
        self.status: Status = "loading"
        self.reason = "the model is loading"
        self._on_ready = on_ready
        self._pipeline: Pipeline | None = None

    async def take(self, loading: "Future[LoadedModel]") -> None:
        """Become ready when the model is loaded; one that fails leaves the service live and not ready."""
        try:
            folder, predictor = await asyncio.wrap_future(loading)
        except (ModelFolderError, EngineLoadError, ServiceError) as error:
            self.status, self.reason = "failed", str(error)
            logger.error("not ready: %s", error)
            return
        except Exception:  # whatever it was, the state must not stay "loading" for ever
            self.status, self.reason = "failed", "the model could not be loaded; the log says why"
            logger.exception("not ready")
            return
        self._pipeline = Pipeline(predictor, self._schedule(predictor), self.pool, self.metrics, self.tracing)
        self._tell_ready(predictor)
        if self.status != "stopping":
            self.status, self.reason = "ready", ""
        if self._on_ready:
            self._on_ready(predictor)
        share = self.settings.threads_beside_others
        if share < (self.settings.threads or self.settings.cores):
            await self._serve_crowds(folder, self._pipeline.scheduler, share)
        self.scenes.start(self._pipeline)  # after the engine that their tiles are for
        if isinstance(predictor.engine, TrialEngine):
            await self._try_tensorrt(folder, predictor, predictor.engine)

    def _tell_ready(self, predictor: Predictor) -> None:
        model, provider = predictor.manifest, predictor.engine.provider
        self.metrics.ready(model.name, model.version, predictor.precision, provider, predictor.sha256)

    async def _serve_crowds(self, folder: ModelFolder, scheduler: Scheduler, threads: int) -> None:
        """Load the model once more, for runs that have company; calls are taken meanwhile."""
        try:
            scheduler.run_crowds_on(await asyncio.to_thread(OnnxEngine, folder, self.settings.provider, threads))
        except EngineLoadError as error:
            logger.warning("runs with company share the threads of lone ones: %s", error)

    async def _try_tensorrt(self, folder: ModelFolder, predictor: Predictor, engine: TrialEngine) -> None:
        """Build TensorRT's engines while CUDA answers, and let them take over once they have passed their trial."""
        assert self.settings.engines is not None  # the settings ask for it
        plan = TensorRTPlan(self.settings.engines, max(2, self.settings.batch_size))  # a trial runs pictures in twos
        try:
            candidate = await asyncio.to_thread(OnnxEngine, folder, "tensorrt", 0, plan)
        except (EngineLoadError, OSError) as error:
            logger.error("TensorRT is not taken, %s goes on: %s", engine.provider, error)
            return

        def taken_over() -> None:
            self.metrics.forget_model()
            self._tell_ready(predictor)

        engine.try_out(candidate, taken_over)

    def _schedule(self, predictor: Predictor) -> Scheduler:
        settings = self.settings
        return Scheduler(
            predictor.engine,
            predictor.manifest.query,
            self.metrics,
            lanes=settings.lane_count,
            batch=settings.batch_size,
            wait_seconds=settings.batch_wait_seconds,
            scene_batch=1 if settings.provider == "cpu" else settings.batch_size,
        )

    @property
    def has_model(self) -> bool:
        """Whether a model is loaded."""
        return self._pipeline is not None

    def require_pipeline(self) -> Pipeline:
        """The loaded model, at work; calls that come while the service stops are still taken.

        Raises:
            NotReadyError: still loading, or it could not be loaded.
        """
        if self._pipeline is None:
            raise NotReadyError(self.reason)
        return self._pipeline

    def require_ready(self) -> Predictor:
        """The loaded model, for those who ask whether to send calls here. Raises NotReadyError."""
        if self.status != "ready":
            raise NotReadyError(self.reason)
        return self.require_pipeline().predictor

    def begin_stopping(self) -> None:
        """Say that no further calls should come; those that do are taken."""
        self.status, self.reason = "stopping", "the service is stopping"
        self.metrics.not_ready()
        self.scenes.begin_stopping()

    def close(self) -> None:
        """Let what runs end, and drop what waits."""
        if self._pipeline is not None:
            self._pipeline.scheduler.close()
            if isinstance(engine := self._pipeline.predictor.engine, TrialEngine):
                engine.close()
        self.pool.close()
