"""Real processes: SIGTERM under load, and several workers behind one port."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from service_process import serving


def test_a_stop_signal_under_load_loses_no_call(toy_models: Path, scene_png: bytes) -> None:
    with serving(toy_models, HEATQUERY_DRAIN_SECONDS="2") as (process, address):
        statuses: list[int] = []
        told = threading.Event()  # as a balancer is, by /readyz

        def call_until_told() -> None:
            while not told.is_set():
                statuses.append(httpx.post(f"{address}/detect", files={"file": scene_png}, timeout=30).status_code)

        with ThreadPoolExecutor(4) as callers:
            calls = [callers.submit(call_until_told) for _ in range(4)]
            while len(statuses) < 4:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
            ready = httpx.get(f"{address}/readyz", timeout=10)
            assert (ready.status_code, ready.json()["detail"]) == (503, "the service is stopping")
            told.set()
            for call in calls:
                call.result(timeout=30)  # raises if a connection broke off
        assert process.wait(timeout=30) == -signal.SIGTERM  # uvicorn ends as the signal asks
        assert len(statuses) > 4
        assert set(statuses) == {200}
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/livez")


def test_a_second_signal_ends_the_taking_of_calls_at_once(toy_models: Path) -> None:
    with serving(toy_models, HEATQUERY_DRAIN_SECONDS="60") as (process, _):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == -signal.SIGTERM


def test_workers_share_one_port_and_a_dead_one_is_replaced(toy_models: Path, scene_png: bytes) -> None:
    store = {"HEATQUERY_STORE": "redis://127.0.0.1:1/0", "HEATQUERY_DRAIN_SECONDS": "0"}  # no such server: detect works
    with serving(toy_models, "--workers", "2", **store) as (process, address):

        def children() -> set[str]:
            listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            return {pid for pid in listed if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()}

        before = children()
        assert len(before) == 2
        victim = sorted(before)[0]
        os.kill(int(victim), signal.SIGKILL)
        deadline = time.monotonic() + 30
        while victim in children() or len(children()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        answers = [httpx.post(f"{address}/detect", files={"file": scene_png}, timeout=30) for _ in range(4)]
        assert {answer.status_code for answer in answers} <= {200, 503}  # 503: the new one still loads its model
        assert 200 in {answer.status_code for answer in answers}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def test_workers_without_a_shared_store_are_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match=r"HEATQUERY_WORKERS=2: .* set HEATQUERY_STORE=redis://"):
        Settings(workers=2)
