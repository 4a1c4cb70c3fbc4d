"""What a collector on the loopback is sent, and that nothing is sent unless it was asked for."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from time import perf_counter
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from pydantic import AnyHttpUrl

from service.settings import Settings
from toy_service import RunningService, wait_until

ROOT = Path(__file__).parents[2]
MakeClient = Callable[..., httpx.Client]
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """An OTLP/HTTP endpoint that keeps every span."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # the name that http.server calls
                collector.take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        assert path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(names["service.name"])
            self.spans += [span for scope in resource.scope_spans for span in scope.spans]

    def wait_for(self, name: str) -> Any:
        """The first span of this name, once it has come."""
        wait_until(lambda: any(span.name == name for span in self.spans))
        return next(span for span in self.spans if span.name == name)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A running collector, and an SDK that does not keep it waiting."""
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    collector = Collector()
    thread = threading.Thread(target=collector.server.serve_forever, daemon=True)
    thread.start()
    yield collector
    collector.server.shutdown()
    thread.join()
    collector.server.server_close()


def attributes(span: Any) -> dict[str, Any]:
    """Attributes of a span as plain values."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def test_a_request_is_a_span_of_the_callers_trace(make_client: MakeClient, collector: Collector) -> None:
    client = make_client(otlp_endpoint=collector.url)
    client.get("/models/zeppelin", headers={"traceparent": TRACEPARENT})
    span = collector.wait_for("GET /models/{name}")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, PARENT)
    assert attributes(span)["http.response.status_code"] == 404
    assert collector.services == {"heatquery"}


def test_the_stages_of_a_picture_are_spans_below_its_request(
    make_client: MakeClient, collector: Collector, scene_png: bytes
) -> None:
    client = make_client(otlp_endpoint=collector.url)
    answer = client.post("/detect", files={"file": scene_png}).json()
    request = collector.wait_for("POST /detect")
    stages = {span.name: span for span in collector.spans if span.parent_span_id == request.span_id}
    assert stages.keys() == {"preprocess", "queue", "encode", "decode", "postprocess"}
    encode = stages["encode"]
    seconds = (encode.end_time_unix_nano - encode.start_time_unix_nano) / 1e9
    assert seconds == pytest.approx(answer["timing_ms"]["encode"] / 1e3, abs=1e-4)
    assert attributes(stages["decode"])["heatquery.query_count"] == answer["query_count"]


def test_a_caller_that_does_not_sample_is_not_traced(make_client: MakeClient, collector: Collector) -> None:
    client = make_client(otlp_endpoint=collector.url)
    client.get("/models/first", headers={"traceparent": TRACEPARENT.removesuffix("01") + "00"})
    client.get("/models", headers={"traceparent": TRACEPARENT})
    collector.wait_for("GET /models")
    assert [span.name for span in collector.spans] == ["GET /models"]


def test_probes_are_not_traced(make_client: MakeClient, collector: Collector) -> None:
    client = make_client(otlp_endpoint=collector.url)
    for path in ("/livez", "/readyz", "/metrics"):
        client.get(path)
    client.get("/models")
    collector.wait_for("GET /models")
    assert [span.name for span in collector.spans] == ["GET /models"]


def test_a_collector_that_is_not_there_keeps_nobody_waiting(toy_models: Path, scene_png: bytes) -> None:
    settings = Settings(models=toy_models, threads=1, otlp_endpoint=AnyHttpUrl("http://127.0.0.1:9"))
    service = RunningService.start(settings)
    try:
        assert service.client.post("/detect", files={"file": scene_png}).status_code == 200
    finally:
        begun = perf_counter()
        service.stop()
    assert perf_counter() - begun < 5
    assert not service.thread.is_alive()


def test_without_an_endpoint_no_exporter_is_even_imported(toy_models: Path) -> None:
    script = (
        "import asyncio, sys\n"
        "from service.app import create_app\n"
        "from service.settings import Settings\n"
        f"app = create_app(Settings(models={str(toy_models)!r}))\n"
        "async def live():\n"
        "    async with app.router.lifespan_context(app):\n"
        "        pass\n"
        "asyncio.run(live())\n"
        "exporters = ('opentelemetry.sdk.trace.export', 'opentelemetry.exporter')\n"
        "print([name for name in sys.modules if name.startswith(exporters)])\n"
    )
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}  # of another program on the same host
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert said.stdout == "[]\n"
