"""The one object behind the routers: settings, pool, store and, once it is ready, the predictor."""

import asyncio
import logging
from collections.abc import Callable
from typing import Literal

from service.engines.onnx import EngineLoadError, OnnxEngine
from service.errors import NotReadyError, ServiceError
from service.manifest import ModelFolderError, find_model_folder, load_model_folder
from service.measured_store import MeasuredStore
from service.metrics import Metrics
from service.predictor import Predictor
from service.settings import Settings
from service.store import open_store
from service.tracing import Tracing
from service.work_pool import WorkPool

Status = Literal["loading", "ready", "failed"]
logger = logging.getLogger("heatquery")


class Runtime:
    """State of a running service. Live from the start; ready once the model is verified and warmed up."""

    def __init__(self, settings: Settings, on_ready: Callable[[Predictor], None] | None = None) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.tracing = Tracing.to(settings.otlp_endpoint)
        self.pool = WorkPool(settings.workers, settings.queue, settings.deadline_seconds)
        self.store = MeasuredStore(open_store(settings), self.metrics)
        self.status: Status = "loading"
        self.reason = "the model is loading"
        self._on_ready = on_ready
        self._predictor: Predictor | None = None

    async def load(self) -> None:
        """Load the model off the event loop; a model that fails leaves the service live and not ready."""
        try:
            self._predictor = await asyncio.to_thread(load_predictor, self.settings)
        except (ModelFolderError, EngineLoadError, ServiceError) as error:
            self.status, self.reason = "failed", str(error)
            logger.error("not ready: %s", error)
            return
        except Exception:  # whatever it was, the state must not stay "loading" for ever
            self.status, self.reason = "failed", "the model could not be loaded; the log says why"
            logger.exception("not ready")
            return
        self.status, self.reason = "ready", ""
        model = self._predictor
        name, version = model.manifest.name, model.manifest.version
        self.metrics.ready(name, version, model.precision, model.engine.provider, model.sha256)
        if self._on_ready:
            self._on_ready(self._predictor)

    def require_predictor(self) -> Predictor:
        """The loaded model.

        Raises:
            NotReadyError: still loading, or it could not be loaded.
        """
        if self._predictor is None:
            raise NotReadyError(self.reason)
        return self._predictor


def load_predictor(settings: Settings) -> Predictor:
    """Find, verify, load and warm up the model that the settings name.

    Raises:
        ModelFolderError, EngineLoadError, ServiceError.
    """
    path = find_model_folder(settings.models, settings.model)
    folder = load_model_folder(path, settings.precision, settings.provider)
    engine = OnnxEngine(folder, settings.provider, settings.threads)
    engine.check_outputs()
    predictor = Predictor(folder, engine, settings.max_pixels)
    predictor.warm_up()
    return predictor
