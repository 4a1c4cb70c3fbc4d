"""Under load: the loop stays free, the queue is bounded, and no call waits for ever."""

import asyncio
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
    client = make_client(workers=1, queue=2)
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


def test_an_error_of_ours_is_500_without_a_trace(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, scene_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr("service.predictor.Letterbox.fit", fail)
    answer = client.post("/detect", files={"file": scene_png}, headers={"X-Request-ID": "r-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "r-1")
    assert "secret" not in answer.text


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
