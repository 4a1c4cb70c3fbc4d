"""Scenes that outlive what befalls them: processes killed at any moment, disks that are full."""

import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from service.scenes.tile_table import TileTable
from service_process import serving
from toy_service import wait_until

KILLS = 2


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """4,000 x 2,500 px with 200 squares where the toy model sees them; some 700 of its tiles."""
    rng = np.random.default_rng(3)
    image = Image.new("RGB", (4000, 2500), (90, 90, 90))
    for column, row in zip(rng.integers(0, 124, 200) * 32, rng.integers(0, 77, 200) * 32, strict=True):
        image.paste(("red", "blue")[int(row) // 32 % 2], (int(column), int(row), int(column) + 32, int(row) + 32))
    path = tmp_path_factory.mktemp("mosaic") / "mosaic.png"
    image.save(path, compress_level=1)
    return path.read_bytes()


def send(address: str, data: bytes) -> str:
    answer = httpx.post(f"{address}/scenes?heat=true", content=data, timeout=60)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def status(address: str, scene_id: str) -> dict[str, Any]:
    return httpx.get(f"{address}/scenes/{scene_id}", timeout=30).json()


def wait_for_tiles(address: str, scene_id: str, more_than: int) -> None:
    wait_until(lambda: status(address, scene_id)["tiles"]["done"] > more_than, 60)


def result(address: str, scene_id: str) -> dict[str, bytes]:
    """Everything that can be had of a scene, and what was kept of its tiles."""
    wait_until(lambda: status(address, scene_id)["state"] not in ("queued", "reading", "running", "merging"), 120)
    assert status(address, scene_id)["state"] == "done", status(address, scene_id)
    found = {
        kind: httpx.get(f"{address}/scenes/{scene_id}/result?format={kind}", timeout=60).content
        for kind in ("geojson", "csv", "coco", "gpkg")
    }
    return found | {"heat": httpx.get(f"{address}/scenes/{scene_id}/heat.tif", timeout=60).content}


def tiles(folder: Path, scene_id: str) -> list[tuple[int, bytes]]:
    with closing(TileTable(folder / scene_id / "tiles.sqlite")) as table:
        return list(table.payloads())


def test_a_scene_whose_process_is_killed_again_and_again_gives_the_same_bytes(
    toy_models: Path, tmp_path: Path, mosaic: bytes
) -> None:
    environment = {"HEATQUERY_SCENES": str(tmp_path / "killed"), "HEATQUERY_THREADS": "1"}
    scene_id, done = "", 0
    dice = random.Random(29)
    for _ in range(KILLS):
        with serving(toy_models, **environment) as (process, address):
            scene_id = scene_id or send(address, mosaic)
            wait_for_tiles(address, scene_id, done)
            time.sleep(dice.uniform(0, 0.6))
            process.send_signal(signal.SIGKILL)
            process.wait()
        done = len(tiles(tmp_path / "killed", scene_id))
    with serving(toy_models, **environment) as (_, address):
        assert status(address, scene_id)["tiles"]["done"] <= done
        broken = result(address, scene_id)
    with serving(toy_models, **environment | {"HEATQUERY_SCENES": str(tmp_path / "whole")}) as (_, address):
        unbroken_id = send(address, mosaic)
        unbroken = result(address, unbroken_id)
    assert done > 0
    assert tiles(tmp_path / "killed", scene_id) == tiles(tmp_path / "whole", unbroken_id)
    assert [kind for kind in broken if broken[kind] != unbroken[kind]] == []


def test_two_processes_share_a_scene_and_one_that_is_killed_is_not_missed(
    toy_models: Path, tmp_path: Path, mosaic: bytes
) -> None:
    environment = {"HEATQUERY_SCENES": str(tmp_path / "scenes"), "HEATQUERY_THREADS": "1"}
    with serving(toy_models, **environment) as (first, one), serving(toy_models, **environment) as (_, other):
        scene_id = send(one, mosaic)
        wait_for_tiles(other, scene_id, 100)
        first.send_signal(signal.SIGKILL)
        shared = result(other, scene_id)
        alone = result(other, send(other, mosaic))
    assert [kind for kind in shared if shared[kind] != alone[kind]] == []


def ended(client: httpx.Client, scene_id: str) -> dict[str, Any]:
    at: list[dict[str, Any]] = []

    def has_ended() -> bool:
        at.append(client.get(f"/scenes/{scene_id}").json())
        return at[-1]["state"] in ("done", "failed", "cancelled")

    try:
        wait_until(has_ended, 60)
    finally:
        print(at[-1])
    return at[-1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small disk cannot be mounted here: it takes root's rights")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_fills_up_fails_the_scene_and_a_retry_goes_on(
    make_client: Callable[..., httpx.Client], small_disk: Path, encode: Callable[..., bytes]
) -> None:
    client = make_client(scenes=small_disk / "scenes")
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3_000_000))
    image = Image.new("RGB", (3000, 2000), (90, 90, 90))
    image.paste("red", (320, 320, 352, 352))
    scene_id = client.post("/scenes?heat=true", content=encode(image)).json()["id"]
    failed = ended(client, scene_id)
    assert (failed["state"], "full" in failed["error"]) == ("failed", True)
    ballast.unlink()
    assert client.post(f"/scenes/{scene_id}/retry").status_code == 202
    done = ended(client, scene_id)
    assert (done["state"], done["error"], done["objects"]) == ("done", None, 1)


def test_a_scene_that_does_not_fit_is_refused_and_leaves_nothing(
    make_client: Callable[..., httpx.Client], small_disk: Path
) -> None:
    client = make_client(scenes=small_disk / "scenes")
    for content in (bytes(6_000_000), iter([bytes(1_000_000)] * 6)):
        answer = client.post("/scenes", content=content)
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:heatquery:problem:no-storage")
    assert not list(small_disk.glob("scenes/*/scene"))
    assert client.get("/scenes").json() == []


def test_a_read_only_disk_is_told_apart_and_calls_go_on(
    make_client: Callable[..., httpx.Client], small_disk: Path, scene_png: bytes
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    client = make_client(scenes=small_disk / "scenes")
    answer = client.post("/scenes", content=scene_png)
    assert (answer.status_code, "Read-only" in answer.json()["detail"]) == (507, True)
    assert client.post("/detect", content=scene_png).status_code == 200
