"""A scene by the command line and by HTTP: one engine, one result."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.__main__ import main
from toy_service import wait_until


@pytest.mark.parametrize("kind", ["geojson", "gpkg", "coco", "csv"])
def test_both_roads_give_the_same_objects(
    kind: str, make_client: Callable[..., httpx.Client], toy_models: Path, scene_png: bytes, tmp_path: Path
) -> None:
    picture, result = tmp_path / "scene.png", tmp_path / "result"
    picture.write_bytes(scene_png)
    main(["detect", str(picture), "--out", str(result), "--format", kind, "--models", str(toy_models)])
    (by_command,) = result.iterdir()
    client = make_client(scenes=tmp_path / "scenes")
    job = client.post("/scenes", files={"file": (picture.name, scene_png, "image/png")}).json()["id"]
    wait_until(lambda: client.get(f"/scenes/{job}").json()["state"] == "done", 60)
    by_http = client.get(f"/scenes/{job}/result", params={"format": kind}).content
    assert b"blue square" in by_http
    assert by_command.read_bytes() == by_http
