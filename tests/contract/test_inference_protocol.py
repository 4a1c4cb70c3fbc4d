"""Health and metadata paths of the Open Inference Protocol."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest


def test_the_server_names_itself(client: httpx.Client) -> None:
    body = client.get("/v2").json()
    assert (body["name"], body["extensions"]) == ("heatquery", [])
    assert isinstance(body["version"], str)


def test_a_slash_behind_the_root_is_led_back(client: httpx.Client) -> None:
    assert client.get("/v2/", follow_redirects=True).json() == client.get("/v2").json()


def test_the_server_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"live": True, "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/toy", "/v2/models/toy/versions/1"])
def test_a_model_tells_its_tensors(client: httpx.Client, path: str) -> None:
    assert client.get(path).json() == {
        "name": "toy",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 3, -1, -1]}],
        "outputs": [
            {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1, 2]},
        ],
    }


@pytest.mark.parametrize("path", ["/v2/models/toy/ready", "/v2/models/toy/versions/1/ready"])
def test_a_loaded_model_is_ready(client: httpx.Client, path: str) -> None:
    assert client.get(path).json() == {"name": "toy", "ready": True}


@pytest.mark.parametrize("path", ["other", "other/ready", "toy/versions/2", "toy/versions/2/ready"])
def test_another_model_is_unknown(client: httpx.Client, path: str) -> None:
    answer = client.get(f"/v2/models/{path}")
    assert answer.status_code == 404
    assert "there is 'toy/1'" in answer.json()["detail"]


def test_an_error_has_the_member_of_the_protocol(client: httpx.Client) -> None:
    body = client.get("/v2/models/other").json()
    assert body["error"] == body["detail"]


def test_a_service_without_a_model_is_live_but_nothing_is_ready(
    make_client: Callable[..., httpx.Client], tmp_path: Path
) -> None:
    client = make_client(models=tmp_path)
    paths = ["health/live", "health/ready", "models/toy", "models/toy/ready", "models/toy/versions/1/ready"]
    assert [client.get(f"/v2/{path}").status_code for path in paths] == [200, 503, 503, 503, 503]
