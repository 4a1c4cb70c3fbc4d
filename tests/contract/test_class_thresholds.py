"""Thresholds that a model has for single classes, as callers meet them."""

import json
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest


@pytest.fixture
def picky_client(make_client: Callable[..., httpx.Client], model_folder: Path) -> httpx.Client:
    """A service whose model never believes in a red square: no score is above 1."""
    manifest = json.loads((model_folder / "model.json").read_text(encoding="utf-8"))
    manifest["postprocess"]["class_thresholds"] = {"red square": 1.0}
    (model_folder / "model.json").write_text(json.dumps(manifest), encoding="utf-8")
    return make_client(models=model_folder.parent.parent)


def labels(answer: httpx.Response) -> set[str]:
    return {item["label"] for item in answer.json()["detections"]}


def test_a_class_has_its_own_threshold(picky_client: httpx.Client, scene_png: bytes) -> None:
    assert labels(picky_client.post("/detect", content=scene_png)) == {"blue square"}


def test_a_threshold_of_the_request_holds_for_every_class(picky_client: httpx.Client, scene_png: bytes) -> None:
    answer = picky_client.post("/detect", content=scene_png, params={"threshold": 0.3})
    assert labels(answer) == {"red square", "blue square"}


def test_other_formats_keep_to_it_too(picky_client: httpx.Client, scene_png: bytes) -> None:
    lines = picky_client.post("/detect", content=scene_png, params={"format": "yolo"}).text.splitlines()
    assert [line.split()[0] for line in lines] == ["1"]


def test_label_studio_keeps_to_it_too(picky_client: httpx.Client, scene_png: bytes) -> None:
    task = {"data": {"image": f"data:image/png;base64,{b64encode(scene_png).decode()}"}}
    [prediction] = picky_client.post("/predict", json={"tasks": [task]}).json()["results"]
    assert [region["value"]["rectanglelabels"] for region in prediction["result"]] == [["blue square"]]


def test_models_shows_it(picky_client: httpx.Client) -> None:
    [model] = picky_client.get("/models").json()
    assert model["postprocess"]["class_thresholds"] == {"red square": 1.0}
