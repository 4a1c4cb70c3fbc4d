"""Scenes and the service on a Ray cluster of one machine with room for two processes."""

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from ray_cluster import free_port
from redis_server import RedisServer
from service.__main__ import main
from service.errors import EngineError
from service.loading import find_model
from service.scale_out.cluster import connected
from service.scenes.recipe import SceneRequest, prepare_scene
from service.settings import Settings
from toy_scenes import open_tiles

pytestmark = [
    # Ray Data's context sets its own deprecated fields when it is first made.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
    # Ray Serve declares its schemas in a way that pydantic wants to give up.
    pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning"),
]
Detect = Callable[..., int]


@pytest.fixture
def detect(toy_models: Path) -> Detect:
    """Run the command with the toy model."""

    def run(*arguments: object) -> int:
        return main(["detect", *map(str, arguments), "--models", str(toy_models)])

    return run


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 tiles with red squares on most of them, one of them without a valid pixel."""
    pixels = np.full((1000, 1000, 4), (90, 90, 90, 255), dtype=np.uint8)
    for x, y in np.random.default_rng(0).integers(0, 31, (100, 2)) * 32:
        pixels[y : y + 32, x : x + 32, :3] = (255, 0, 0)
    pixels[:200, :200, 3] = 0
    path = tmp_path_factory.mktemp("scene") / "scene.png"
    Image.fromarray(pixels).save(path)
    return path


def finished_tiles(out: Path) -> int:
    """Tiles that the state beside a result holds."""
    try:
        with sqlite3.connect(f"file:{out}.state?mode=ro", uri=True) as database:
            return database.execute("SELECT done FROM scene").fetchone()[0]
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_two_processes_give_the_bytes_of_one(ray_cluster: str, detect: Detect, scene: Path, tmp_path: Path) -> None:
    options = ["--heat", tmp_path / "ray.tif", "--engine", "ray", "--ray-address", ray_cluster, "--lanes", 2]
    assert detect(scene, "--out", tmp_path / "ray.gpkg", *options) == 0
    assert detect(scene, "--out", tmp_path / "local.gpkg", "--heat", tmp_path / "local.tif") == 0
    for name in ("gpkg", "tif"):
        assert (tmp_path / f"ray.{name}").read_bytes() == (tmp_path / f"local.{name}").read_bytes()


def test_a_killed_driver_is_gone_on_with(
    ray_cluster: str, detect: Detect, scene: Path, toy_models: Path, tmp_path: Path
) -> None:
    out, ray = tmp_path / "killed.csv", ["--engine", "ray", "--ray-address", ray_cluster, "--lanes", "1"]
    command = ["detect", str(scene), "--out", str(out), "--models", str(toy_models), *ray]
    with subprocess.Popen([sys.executable, "-m", "service", *command]) as driver:
        try:
            while finished_tiles(out) < 10:
                assert driver.poll() is None
                time.sleep(0.01)
        finally:
            driver.kill()
    assert 10 <= finished_tiles(out) < 100
    assert detect(scene, "--out", out, "--resume", *ray) == 0
    assert detect(scene, "--out", tmp_path / "unbroken.csv") == 0
    assert out.read_bytes() == (tmp_path / "unbroken.csv").read_bytes()


def test_a_machine_with_another_file_or_model_is_told(
    ray_cluster: str, scene: Path, toy_models: Path, tmp_path: Path
) -> None:
    settings = Settings(models=toy_models, threads=1)
    model = find_model(settings)
    other = replace(prepare_scene(scene, SceneRequest.for_model(model.manifest), model), fingerprint="0" * 64)
    with connected(ray_cluster, 1):
        from service.scale_out.scan import RayScan

        with pytest.raises(EngineError, match="is not the one of the machine that asks"):
            RayScan(settings, 1)(other, open_tiles(other, tmp_path), stop=Event(), report=print)


def test_replicas_answer_as_the_service_does(
    ray_cluster: str, redis_server: RedisServer, toy_models: Path, scene_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEATQUERY_MODELS", str(toy_models))
    monkeypatch.setenv("HEATQUERY_LANES", "1")
    monkeypatch.setenv("HEATQUERY_STORE", redis_server.url)
    with connected(ray_cluster, 2):
        from ray import serve

        from service.scale_out.replicas import build

        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(build({"min_replicas": "2", "max_replicas": "2"}))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            assert client.get("/readyz").json()["status"] == "ready"
            answer = _kept_answer(client, scene_png)
            drawings = [client.get("/heatmap", params={"image_id": answer["image_id"]}) for _ in range(8)]
        assert [each["label"] for each in answer["detections"]] == ["red square", "blue square"]
        assert {each.status_code for each in drawings} == {200}  # whichever replica draws it
        serve.shutdown()


def _kept_answer(client: httpx.Client, picture: bytes) -> dict[str, Any]:
    """Ask until the heat is kept, too: on a busy machine Redis may take longer than a replica waits for it."""
    for _ in range(5):
        answer = client.post("/detect", files={"file": picture}).json()
        if client.get("/heatmap", params={"image_id": answer["image_id"]}).status_code == 200:
            return answer
    return pytest.fail("no heat was kept in five calls")


def test_replicas_need_a_shared_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("HEATQUERY_STORE", "memory")
    from service.scale_out.replicas import build

    with pytest.raises(ValueError, match="HEATQUERY_STORE=redis"):
        build({})


def test_a_cluster_without_tokens_is_refused(
    detect: Detect, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert detect(scene, "--out", tmp_path / "r.csv", "--engine", "ray") == 2
    assert "RAY_AUTH_MODE=disabled: whoever reaches such a cluster can run code on it" in capsys.readouterr().err


def test_without_ray_it_says_how_to_install_it(
    detect: Detect, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert detect(scene, "--out", tmp_path / "r.csv", "--engine", "ray", "--ray-address", "auto") == 2
    assert "pip install 'heatquery[serve,ray]'" in capsys.readouterr().err


def test_an_address_without_the_engine_is_refused(
    detect: Detect, scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert detect(scene, "--out", tmp_path / "r.csv", "--ray-address", "auto") == 2
    assert "add --engine ray" in capsys.readouterr().err
