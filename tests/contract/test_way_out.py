"""A refusal says what to do instead."""

import httpx
import pytest


def ask(client: httpx.Client, path: str, data: bytes) -> str:
    answer = client.post(path, files={"file": ("a.png", data, "image/png")})
    assert answer.status_code == 422
    return answer.json()["detail"]


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("thresold=0.3", "thresold: no such parameter; did you mean 'threshold'?"),
        ("zzz=1", "no such parameter; there is tile, threshold, max_detections, classes, format"),
        ("tile=5", "tile: must be auto, off, or the side of a tile in pixels from 10 to 999999"),
    ],
)
def test_a_wrong_parameter_names_the_right_one(client: httpx.Client, scene_png: bytes, query: str, hint: str) -> None:
    assert hint in ask(client, f"/detect?{query}", scene_png)


def test_a_level_that_density_has_not_names_the_one_it_has(client: httpx.Client, scene_png: bytes) -> None:
    assert ask(client, "/heatmap?kind=density&level=1", scene_png) == "level: kind=density has level 0 alone, not 1"


def test_a_text_in_place_of_the_file_is_told_how_to_send_one(client: httpx.Client) -> None:
    answer = client.post("/detect", data={"file": "hello"}, files={"other": b""})
    assert answer.json()["detail"].endswith("curl -F file=@picture.jpg, with the @")


def test_a_missing_id_is_called_missing(client: httpx.Client) -> None:
    assert client.get("/heatmap").json()["errors"][0]["message"] == "is missing"


def test_a_wrong_method_names_the_right_one(client: httpx.Client) -> None:
    assert client.put("/detect").json()["detail"] == "/detect does not take PUT, but POST"


def test_an_unknown_path_leads_to_the_list_of_calls(client: httpx.Client) -> None:
    assert client.get("/detekt").json()["detail"] == "there is no /detekt here; /docs lists every call"


def test_a_broken_form_is_told_how_to_send_one(client: httpx.Client) -> None:
    answer = client.post("/detect", content=b"abc", headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert answer.json()["detail"].endswith("Send a form as curl -F file=@picture.jpg does")


def test_a_body_that_is_no_object_is_named_as_the_body(client: httpx.Client) -> None:
    answer = client.post("/predict", json=[1])
    assert answer.json()["errors"][0]["parameter"] == "body"
