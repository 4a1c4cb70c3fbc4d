"""Scenes and connections: slow uploads, clients that leave, a service that stops, libraries that wait to be loaded."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

from service.scenes.store import SceneStore
from service_process import ROOT, serving
from toy_service import wait_until

MakeClient = Callable[..., httpx.Client]
PIECE = bytes(512 * 1024)


@pytest.fixture(scope="session")
def large_picture(draw_scene: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    """Enough tiles for some seconds of work."""
    return encode(draw_scene(4500, 3000, (32, 32, 32, "red")), compress_level=1)


def test_a_scene_may_take_longer_than_any_body_as_long_as_it_comes(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(scenes=tmp_path / "scenes", body_seconds=2)

    def pieces() -> Iterator[bytes]:
        for _ in range(10):  # 5 MiB in 2.5 s, each of them in half a second
            time.sleep(0.25)
            yield PIECE

    answer = client.post("/scenes", content=pieces())
    assert (answer.status_code, answer.json().get("bytes")) == (202, 10 * len(PIECE))


def test_a_scene_that_trickles_in_is_given_up_and_leaves_nothing(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(scenes=tmp_path / "scenes", body_seconds=0.5)
    head = b"POST /scenes HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(head)
        trickling = threading.Event()

        def trickle() -> None:
            while not trickling.wait(0.05):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=trickle)
        thread.start()
        answer = connection.recv(65536)
        trickling.set()
        thread.join()
    assert answer.startswith(b"HTTP/1.1 408")
    assert not list((tmp_path / "scenes").glob("*.part"))


def test_a_client_that_leaves_while_it_sends_leaves_nothing(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(scenes=tmp_path / "scenes")
    head = b"POST /scenes HTTP/1.1\r\nHost: x\r\nContent-Type: image/tiff\r\nContent-Length: 9000000\r\n\r\n"
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(head + bytes(2_000_000))
        wait_until(lambda: bool(list((tmp_path / "scenes").glob("*.part/scene"))))
    wait_until(lambda: not list((tmp_path / "scenes").glob("*.part")))
    assert client.get("/scenes").json() == []


def test_a_follower_that_leaves_is_followed_no_more(
    make_client: MakeClient, tmp_path: Path, large_picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(scenes=tmp_path / "scenes")
    job = client.post("/scenes", content=large_picture).json()
    with client.stream("GET", f"/scenes/{job['id']}/events") as answer:
        lines = answer.iter_lines()
        next(lines)
        looks = count_looks(monkeypatch)
        wait_until(lambda: len(looks) > 1)
    time.sleep(0.6)  # a look that had begun
    looks.clear()
    time.sleep(1.2)
    assert looks == []
    assert client.delete(f"/scenes/{job['id']}").status_code == 204


def count_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    looks: list[str] = []
    get = SceneStore.get

    def count(store: SceneStore, job_id: str) -> object:
        looks.append(job_id)
        return get(store, job_id)

    monkeypatch.setattr(SceneStore, "get", count)
    return looks


def test_a_stop_signal_ends_followers_and_leaves_the_scene_to_the_next_process(
    toy_models: Path, tmp_path: Path, large_picture: bytes
) -> None:
    environment = {"HEATQUERY_SCENES": str(tmp_path / "scenes"), "HEATQUERY_DRAIN_SECONDS": "0"}
    with serving(toy_models, **environment) as (process, address):
        job = httpx.post(f"{address}/scenes", content=large_picture, timeout=30).json()
        path = f"{address}/scenes/{job['id']}"
        wait_until(lambda: httpx.get(path).json()["tiles"]["done"] > 0)
        with httpx.stream("GET", f"{path}/events", timeout=30) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGTERM)
            assert '"state":"done"' not in "".join(lines)
        assert process.wait(timeout=25) == -signal.SIGTERM
    with serving(toy_models, **environment) as (_, address):
        path = f"{address}/scenes/{job['id']}"
        wait_until(lambda: httpx.get(path).json()["state"] == "done", 60)


def test_the_service_starts_without_the_libraries_for_rasters() -> None:
    code = "import service.server, sys; print([name for name in ('rasterio', 'pyogrio') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
