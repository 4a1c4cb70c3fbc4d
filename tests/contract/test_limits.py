"""Under load: the loop stays free, the queue is bounded, and no call waits for ever."""

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.app import create_app
from service.engines.base import Encoded
from service.engines.onnx import OnnxEngine
from service.settings import Settings

MakeClient = Callable[..., httpx.Client]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch, client: httpx.Client) -> Iterator[threading.Event]:
    """Holds every run of the encoder until it is set. (`client` has loaded its model before.)"""
    opened = threading.Event()
    opened.set()
    encode = OnnxEngine.encode

    def wait_and_encode(engine: OnnxEngine, images: NDArray[np.uint8]) -> Encoded:
        opened.wait(10)
        return encode(engine, images)

    monkeypatch.setattr(OnnxEngine, "encode", wait_and_encode)
    yield opened
    opened.set()


def test_a_full_queue_answers_429_at_once(make_client: MakeClient, gate: threading.Event, scene_png: bytes) -> None:
    client = make_client(queue=3)
    gate.clear()
    with ThreadPoolExecutor(4) as callers:
        calls = [callers.submit(client.post, "/detect", files={"file": scene_png}) for _ in range(4)]
        refused = next(as_completed(calls, timeout=10)).result()  # while the gate is shut only a refusal can end
        gate.set()
        statuses = sorted(call.result().status_code for call in calls)
    assert statuses == [200, 200, 200, 429]
    assert refused.headers["retry-after"] == "1"
    assert refused.json()["type"] == "urn:heatquery:problem:queue-full"
    assert client.post("/detect", files={"file": scene_png}).status_code == 200


def test_slow_uploads_take_places_and_give_them_back(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client(queue=2)
    head = f"POST /detect HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\nContent-Length: {len(scene_png)}\r\n\r\n"
    address = ("127.0.0.1", client.base_url.port or 0)
    with socket.create_connection(address) as first, socket.create_connection(address) as second:
        for connection in (first, second):
            connection.sendall(head.encode() + scene_png[:10])
        time.sleep(0.3)  # both have come as far as their bodies
        begun = time.perf_counter()
        refused = client.post("/detect", files={"file": scene_png})
        assert time.perf_counter() - begun < 2
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        assert "2 calls are being worked on or waiting" in refused.json()["detail"]
        for connection in (first, second):
            connection.sendall(scene_png[10:])
        assert [connection.recv(12) for connection in (first, second)] == [b"HTTP/1.1 200"] * 2
    with ThreadPoolExecutor(2) as callers:
        calls = [callers.submit(client.post, "/detect", files={"file": scene_png}) for _ in range(2)]
        assert [call.result().status_code for call in calls] == [200, 200]


def test_a_client_that_leaves_while_it_waits_takes_its_picture_along(
    make_client: MakeClient, gate: threading.Event, scene_png: bytes
) -> None:
    client = make_client(lanes=1, queue=2)
    head = f"POST /detect HTTP/1.1\r\nHost: test\r\nContent-Type: image/png\r\nContent-Length: {len(scene_png)}\r\n\r\n"
    gate.clear()
    with ThreadPoolExecutor(1) as callers:
        busy = callers.submit(client.post, "/detect", files={"file": scene_png})
        time.sleep(0.3)
        with socket.create_connection(("127.0.0.1", client.base_url.port or 0)) as leaver:
            leaver.sendall(head.encode() + scene_png)
            time.sleep(0.3)
            assert client.post("/detect", files={"file": scene_png}).status_code == 429
        time.sleep(0.3)  # gone: its place is free, although the engine has not moved
        stays = callers.submit(client.post, "/detect", files={"file": scene_png})
        gate.set()
        assert (busy.result().status_code, stays.result().status_code) == (200, 200)


def test_a_late_call_is_answered_504_at_its_deadline(
    make_client: MakeClient, gate: threading.Event, scene_png: bytes
) -> None:
    client = make_client(deadline_seconds=0.2)
    gate.clear()
    begun = time.perf_counter()
    answer = client.post("/detect", files={"file": scene_png})
    assert time.perf_counter() - begun < 2
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:heatquery:problem:deadline")
    gate.set()
    assert client.post("/detect", files={"file": scene_png}).status_code == 200


def test_memory_that_runs_out_is_503_and_the_next_call_works(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, scene_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("service.imaging._to_rgb", fail)
        answer = client.post("/detect", files={"file": scene_png})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:heatquery:problem:out-of-memory")
    assert client.post("/detect", files={"file": scene_png}).status_code == 200


def test_an_error_of_ours_is_500_and_its_trace_is_in_the_log_alone(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scene_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr("service.predictor.Letterbox.fit", fail)
    answer = client.post("/detect", files={"file": scene_png}, headers={"X-Request-ID": "r-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r-1")
    assert "secret" not in answer.text
    (record,) = [record for record in caplog.records if record.name == "heatquery"]
    assert "request r-1: POST '/detect' failed" in record.getMessage()
    assert "a secret of the inside" in logging.Formatter().format(record)


def test_a_failure_of_the_engine_is_logged_under_the_request_id(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scene_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise RuntimeError("shape mismatch in node 7")

    monkeypatch.setattr("onnxruntime.InferenceSession.run_with_iobinding", fail)
    answer = client.post("/detect", files={"file": scene_png}, headers={"X-Request-ID": "r-2"})
    assert (answer.status_code, answer.json()["type"]) == (500, "urn:heatquery:problem:engine-failed")
    (record,) = [record for record in caplog.records if record.name == "heatquery"]
    assert "request r-2: POST '/detect' failed: the model failed on this picture" in record.getMessage()
    assert "shape mismatch in node 7" in logging.Formatter().format(record)


def test_a_mistake_of_the_caller_is_not_logged(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    assert client.post("/detect", files={"file": b"no picture"}).status_code == 415
    assert not [record for record in caplog.records if record.name == "heatquery"]


def test_the_event_loop_turns_while_a_picture_is_worked_on(
    toy_models: Path, gate: threading.Event, scene_png: bytes
) -> None:
    async def largest_gap() -> float:
        app = create_app(Settings(models=toy_models, threads=1))
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as caller:
                while (await caller.get("/readyz")).status_code != 200:
                    await asyncio.sleep(0.01)
                gate.clear()
                call = asyncio.create_task(caller.post("/detect", files={"file": scene_png}))
                threading.Timer(0.3, gate.set).start()
                gap, last = 0.0, time.perf_counter()
                while not call.done():
                    await asyncio.sleep(0.001)
                    now = time.perf_counter()
                    gap, last = max(gap, now - last), now
                assert call.result().status_code == 200
                return gap

    assert asyncio.run(largest_gap()) < 0.1
