"""The service as an ML backend of Label Studio, with bodies as Label Studio sends them."""

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

CONFIG = """<View>
  <Image name="photo" value="$picture"/>
  <RectangleLabels name="boxes" toName="photo"><Label value="red square"/><Label value="cow"/></RectangleLabels>
</View>"""


def data_uri(data: bytes, media_type: str = "image/png") -> str:
    return f"data:{media_type};base64,{b64encode(data).decode()}"


def setup_body(config: str) -> dict:
    return {
        "project": "7.1700000000",
        "schema": config,
        "hostname": "http://localhost:8080",
        "access_token": "secret",
        "extra_params": None,
    }


def predict_body(*pictures: object, config: str = CONFIG) -> dict:
    return {
        "tasks": [{"id": 10 + n, "data": {"picture": item}, "meta": {}} for n, item in enumerate(pictures)],
        "project": "7.1700000000",
        "label_config": config,
        "params": {"login": None, "password": None, "context": None},
    }


def test_a_ready_service_is_up(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "UP", "model_class": "toy"}


def test_a_service_without_a_model_is_not_up(make_client: Callable[..., httpx.Client], tmp_path: Path) -> None:
    assert make_client(models=tmp_path).get("/health").status_code == 503


def test_setup_names_the_model(client: httpx.Client) -> None:
    assert client.post("/setup", json=setup_body(CONFIG)).json() == {"model_version": "toy/1"}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('<View><Text name="t" value="$t"/></View>', "needs RectangleLabels on an Image"),
        ('<View><Image name="i" value="$i"/><RectangleLabels name="l" toName="x"/></View>', "needs RectangleLabels"),
        ('<View><Image name="i" value="i"/><RectangleLabels name="l" toName="i"/></View>', "is 'i', not a $name"),
        (CONFIG.replace("red square", "horse"), "none of the labels horse, cow; its classes are red square"),
        ("<View>", "not XML"),
        ("", "not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><View>&b;</View>', "document type"),
    ],
)
def test_setup_refuses_a_project_that_the_model_cannot_draw_in(client: httpx.Client, config: str, reason: str) -> None:
    answer = client.post("/setup", json=setup_body(config))
    assert answer.status_code == 422
    assert reason in answer.json()["detail"]


def test_a_picture_in_the_task_is_pre_annotated_under_the_names_of_the_project(
    client: httpx.Client, scene_png: bytes
) -> None:
    body = client.post("/predict", json=predict_body(data_uri(scene_png))).json()
    [prediction] = body["results"]
    [region] = prediction["result"]
    assert (region["from_name"], region["to_name"], region["type"]) == ("boxes", "photo", "rectanglelabels")
    assert region["value"]["rectanglelabels"] == ["red square"]
    assert (region["value"]["x"], region["value"]["width"]) == (20, 20)
    assert prediction["model_version"] == body["model_version"] == "toy/1"


def test_results_are_in_the_order_of_the_tasks(
    client: httpx.Client, scene_png: bytes, draw_scene: Callable[..., Image.Image], encode: Callable[..., bytes]
) -> None:
    empty = encode(draw_scene(50, 50))
    body = client.post("/predict", json=predict_body(*map(data_uri, (scene_png, empty, scene_png)))).json()
    assert [len(prediction["result"]) for prediction in body["results"]] == [1, 0, 1]


def test_labels_that_come_with_the_tasks_allow_every_class(client: httpx.Client, scene_png: bytes) -> None:
    config = '<View><Image name="i" value="$picture"/><RectangleLabels name="l" toName="i" value="$labels"/></View>'
    body = client.post("/predict", json=predict_body(data_uri(scene_png), config=config)).json()
    assert len(body["results"][0]["result"]) == 2


def test_without_a_configuration_every_class_is_looked_for(client: httpx.Client, scene_png: bytes) -> None:
    body = client.post("/predict", json={"tasks": [{"data": {"image": data_uri(scene_png)}}]}).json()
    assert [region["to_name"] for region in body["results"][0]["result"]] == ["image", "image"]


def test_no_tasks_have_no_results(client: httpx.Client) -> None:
    assert client.post("/predict", json=predict_body()).json()["results"] == []


@pytest.mark.parametrize("link", ["https://example.org/a.png", "/data/upload/1/a.png", "s3://bucket/a.png", "a.png"])
def test_a_link_is_not_fetched_and_the_answer_says_what_to_do(client: httpx.Client, link: str) -> None:
    answer = client.post("/predict", json=predict_body(link))
    assert answer.status_code == 422
    assert "tasks.0: data.picture" in answer.json()["detail"]
    assert "fetches nothing" in answer.json()["detail"]


def test_the_error_names_the_task(client: httpx.Client, scene_png: bytes) -> None:
    answer = client.post("/predict", json=predict_body(data_uri(scene_png), data_uri(scene_png[:200])))
    assert answer.status_code == 400
    assert answer.json()["detail"].startswith("tasks.1: ")


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("data:image/png;base64,????", 400),
        ("data:image/png;base64,", 400),
        ("data:image/png;base64", 400),
        ("data:image/png,abc", 415),
        ("data:text/html;base64,PGh0bWw+", 415),
        ("data:image/svg+xml;base64,PHN2Zy8+", 415),
        (7, 422),
        (None, 422),
        ({"url": "x"}, 422),
    ],
)
def test_what_is_not_a_picture_is_refused(client: httpx.Client, value: object, status: int) -> None:
    assert client.post("/predict", json=predict_body(value)).status_code == status


def test_a_task_without_the_picture_of_the_project_is_refused(client: httpx.Client) -> None:
    body = {**predict_body(), "tasks": [{"data": {"other": "data:image/png;base64,"}}]}
    assert "data.picture" in client.post("/predict", json=body).json()["detail"]


def test_a_picture_over_the_pixel_limit_is_refused(make_client: Callable[..., httpx.Client], scene_png: bytes) -> None:
    answer = make_client(max_pixels=30_000).post("/predict", json=predict_body(data_uri(scene_png)))
    assert answer.status_code == 413


@pytest.mark.parametrize("path", ["/setup", "/predict"])
@pytest.mark.parametrize(
    ("content", "status"),
    [(b"", 400), (b"{", 400), (b"[" * 100_000, 400), (b"\xff", 400), (b"[]", 422), (b"{}", 422), (b'"x"', 422)],
)
def test_a_body_of_another_shape_is_refused(client: httpx.Client, path: str, content: bytes, status: int) -> None:
    answer = client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("path", ["/setup", "/predict"])
def test_a_body_of_another_type_is_refused(client: httpx.Client, path: str) -> None:
    assert client.post(path, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415


def test_too_many_tasks_are_refused(client: httpx.Client) -> None:
    answer = client.post("/predict", json=predict_body(*["x"] * 257))
    assert answer.status_code == 422
    assert "at most 256" in answer.json()["detail"]


def test_the_answer_to_a_thousand_faults_is_short(client: httpx.Client) -> None:
    answer = client.post("/predict", json={"tasks": ["x" * 1000] * 1000})
    assert answer.status_code == 422
    assert len(answer.content) < 20_000


def test_tasks_over_the_byte_limit_are_refused(make_client: Callable[..., httpx.Client], scene_png: bytes) -> None:
    client = make_client(max_upload_bytes=100)
    assert client.post("/predict", json=predict_body(data_uri(scene_png))).status_code == 413
