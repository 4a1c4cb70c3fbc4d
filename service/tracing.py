"""OpenTelemetry traces over OTLP/HTTP, where an endpoint is set; FastAPI itself makes the span of each request.

Without an endpoint the exporter is not even imported, and nothing is sent anywhere.
"""

from collections.abc import Iterable, Mapping
from threading import Thread
from time import perf_counter, time_ns
from typing import TYPE_CHECKING, NamedTuple

from fastapi.telemetry import TelemetryConfig
from opentelemetry import trace
from opentelemetry.util.types import AttributeValue
from pydantic import AnyHttpUrl

from service.metrics import Stage
from service.watching import PROBES

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


_FAREWELL_SECONDS = 2.0


class StageTime(NamedTuple):
    """When one picture was in one stage, by `perf_counter`."""

    stage: Stage
    begun: float
    ended: float
    attributes: Mapping[str, AttributeValue] = {}


class Tracing:
    """Spans of one app; without a provider, none."""

    def __init__(self, provider: "TracerProvider | None" = None) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("heatquery") if provider else None

    @classmethod
    def to(cls, endpoint: AnyHttpUrl | None) -> "Tracing":
        """Send spans to the collector at this base URL, from a thread, some at a time; None: make no spans.

        The SDK's own variables say the rest: OTEL_TRACES_SAMPLER, OTEL_EXPORTER_OTLP_HEADERS and the like.
        """
        if endpoint is None:
            return cls()
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=Resource.create({"service.name": "heatquery"}), shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint=f"{str(endpoint).rstrip('/')}/v1/traces")
        provider.add_span_processor(BatchSpanProcessor(exporter))
        return cls(provider)

    @property
    def of_requests(self) -> TelemetryConfig:
        """What FastAPI is told: one span per request, child of the caller's `traceparent`, and nothing else."""
        config: TelemetryConfig = {
            "tracing": self._provider is not None,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
            "exclude": lambda scope: scope.get("path") in PROBES,
        }
        if self._provider is not None:
            config["tracer_provider"] = self._provider
        return config

    def record_stages(self, stages: Iterable[StageTime]) -> None:
        """Add stages that are over to the span of the current request, as its children."""
        if self._tracer is None or not trace.get_current_span().is_recording():
            return
        offset = time_ns() - round(perf_counter() * 1e9)
        for stage, begun, ended, attributes in stages:
            span = self._tracer.start_span(stage, attributes=attributes, start_time=offset + round(begun * 1e9))
            span.end(offset + round(ended * 1e9))

    def close(self) -> None:
        """Send what is left, as far as the collector takes it in time: the SDK's own limit is half a minute."""
        if self._provider is not None:
            farewell = Thread(target=self._provider.shutdown, daemon=True)
            farewell.start()
            farewell.join(_FAREWELL_SECONDS)
