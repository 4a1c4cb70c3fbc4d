"""The HTTP service as an application of Ray Serve: replicas that come and go with the calls.

serve run service.scale_out.replicas:build min_replicas=2 max_replicas=8
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ray import serve

from service.app import create_app
from service.imaging import silence_pillow_warnings
from service.loading import begin_loading
from service.logs import configure_logging
from service.scale_out.cluster import prepare_environment
from service.settings import Settings


@dataclass(frozen=True)
class Replicas:
    """How many there are; fewer calls than this many replicas can work on end one, more start one."""

    min_replicas: int = 1
    max_replicas: int = 4


def build(arguments: Mapping[str, str]) -> serve.Application:
    """The application that `serve run` and `serve deploy` take; the settings are those of the environment.

    Args:
        arguments: fields of `Replicas`.
    Raises:
        ValueError: a setting does not go with replicas.
        ClusterError: Ray is told to do without tokens.
    """
    prepare_environment()
    replicas = Replicas(**{name: int(value) for name, value in arguments.items()})
    settings = _settings_of_a_replica(Settings())
    return Service.options(
        autoscaling_config={**vars(replicas), "target_ongoing_requests": settings.lanes},
        max_ongoing_requests=settings.lanes + settings.picture_threads,  # those that something can be done for
        max_queued_requests=settings.queue,
        ray_actor_options={
            "num_cpus": settings.threads * settings.lanes,
            "num_gpus": 0 if settings.provider == "cpu" else 1,
        },
    ).bind(settings)


def _settings_of_a_replica(settings: Settings) -> Settings:
    """As for one of several workers, but that they do not share a machine."""
    if settings.store.get_secret_value() == "memory":
        raise ValueError(
            "replicas share no memory, so GET /heatmap would not find what another one saw; set "
            "HEATQUERY_STORE=redis://... to a Redis that all of them reach"
        )
    threads = settings.threads or 1  # not every core of a machine that it shares
    waiting = 0 if settings.scenes is None else settings.scene_queue  # a job is on the disk of one machine
    return settings.model_copy(update={"threads": threads, "lanes": settings.lanes or 2, "scene_queue": waiting})


@serve.deployment(name="heatquery")
@serve.ingress()
class Service:
    """One replica. It takes calls once its model is loaded, and ends where that fails."""

    def __init__(self, settings: Settings) -> None:
        configure_logging(settings.log_level)
        silence_pillow_warnings()
        self._settings = settings
        self._loading = begin_loading(settings)
        self._loading.result()

    def __serve_build_asgi_app__(self) -> Callable[..., Awaitable[Any]]:  # the name that Ray Serve looks for
        return create_app(self._settings, self._loading)
