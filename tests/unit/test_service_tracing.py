"""Stages that are over become spans."""

from time import perf_counter, time_ns

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from service.tracing import StageTime, Tracing


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    """Keeps what it is given."""
    return InMemorySpanExporter()


@pytest.fixture
def provider(exporter: InMemorySpanExporter) -> TracerProvider:
    """Hands every span to the exporter at once."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return provider


def test_a_stage_is_a_child_of_the_request(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    with provider.get_tracer("test").start_as_current_span("request") as request:
        Tracing(provider).record_stages([StageTime("encode", 1.0, 2.0, {"batch_size": 3})])
    stage = exporter.get_finished_spans()[0]
    assert stage.parent is not None
    assert (stage.name, stage.parent.span_id) == ("encode", request.get_span_context().span_id)
    assert dict(stage.attributes or {}) == {"batch_size": 3}


def test_a_stage_is_as_long_ago_and_as_long_as_it_was(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    with provider.get_tracer("test").start_as_current_span("request"):
        ended = perf_counter()
        Tracing(provider).record_stages([StageTime("decode", ended - 0.5, ended)])
    stage = exporter.get_finished_spans()[0]
    assert stage.start_time is not None
    assert stage.end_time is not None
    assert stage.end_time - stage.start_time == pytest.approx(0.5e9, abs=1000)
    assert stage.end_time == pytest.approx(time_ns(), abs=10e9)


def test_outside_of_a_request_no_span_is_made(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    Tracing(provider).record_stages([StageTime("encode", 1.0, 2.0)])
    assert not exporter.get_finished_spans()


def test_without_a_provider_no_span_is_made(provider: TracerProvider, exporter: InMemorySpanExporter) -> None:
    with provider.get_tracer("test").start_as_current_span("request"):
        Tracing().record_stages([StageTime("encode", 1.0, 2.0)])
    assert [span.name for span in exporter.get_finished_spans()] == ["request"]
