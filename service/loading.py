"""From the settings to a model that is ready to run, without anything of the web."""

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

from service.engines.onnx import OnnxEngine
from service.engines.trial import TrialEngine
from service.manifest import ModelFolder, find_model_folder, load_model_folder
from service.predictor import Predictor
from service.settings import Settings


class LoadedModel(NamedTuple):
    """A model that has been verified, loaded and run once."""

    folder: ModelFolder
    predictor: Predictor


def find_model(settings: Settings) -> ModelFolder:
    """Find and verify the model that the settings name. Raises ModelFolderError."""
    path = find_model_folder(settings.models, settings.model)
    return load_model_folder(path, settings.precision, settings.provider)


def load_model(settings: Settings) -> LoadedModel:
    """Find, verify, load and warm up the model that the settings name.

    Raises:
        ModelFolderError, EngineLoadError, ServiceError.
    """
    folder = find_model(settings)
    threads = settings.threads or settings.cores
    on_trial = settings.provider == "tensorrt"  # which answers nobody before it has been tried: see `TrialEngine`
    engine = OnnxEngine(folder, "cuda" if on_trial else settings.provider, threads)
    engine.check_outputs()
    runs = TrialEngine(engine, folder.manifest) if on_trial else engine
    predictor = Predictor(folder, runs, settings.max_pixels, settings.max_tiles)
    predictor.warm_up()
    return LoadedModel(folder, predictor)


def begin_loading(settings: Settings) -> "Future[LoadedModel]":
    """Load the model in a thread of its own; a process that ends waits for it."""
    thread = ThreadPoolExecutor(1, thread_name_prefix="heatquery-loading")
    loading = thread.submit(load_model, settings)
    thread.shutdown(wait=False)
    return loading
