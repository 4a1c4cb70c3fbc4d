"""POST /detect on sound pictures."""

from collections.abc import Callable

import httpx
import pytest
from PIL import Image

Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]


def post(client: httpx.Client, data: bytes, **parameters: str | float | list[str]) -> dict:
    answer = client.post("/detect", files={"file": ("a.png", data, "image/png")}, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_red_square_comes_back_as_a_box_at_its_place(client: httpx.Client, scene_png: bytes) -> None:
    found = post(client, scene_png)["detections"]
    assert [(item["label"], item["box"]) for item in sorted(found, key=lambda item: item["box"])] == [
        ("red square", [64, 64, 128, 128]),
        ("blue square", [192, 128, 256, 192]),
    ]


def test_the_answer_says_what_was_run(client: httpx.Client, scene_png: bytes) -> None:
    body = post(client, scene_png)
    assert (body["width"], body["height"]) == (320, 240)
    assert body["model"]["name"] == "toy"
    assert body["estimated_count"] == pytest.approx(2, abs=0.1)
    assert body["query_count"] == 6
    assert {"queue", "read_image", "preprocess", "encode", "decode", "postprocess", "total"} == set(body["timing_ms"])


def test_an_empty_scene_has_no_detections(client: httpx.Client, draw_scene: Scene, encode: Encode) -> None:
    body = post(client, encode(draw_scene(320, 240)))
    assert (body["detections"], body["query_count"]) == ([], 4)


def test_a_raw_body_gives_what_a_form_gives(client: httpx.Client, scene_png: bytes) -> None:
    raw = client.post("/detect", content=scene_png, headers={"Content-Type": "image/png"})
    assert raw.json()["detections"] == post(client, scene_png)["detections"]


@pytest.mark.parametrize("content_type", ["application/octet-stream", "image/jpeg", "IMAGE/PNG; q=1"])
def test_the_content_decides_the_image_type(client: httpx.Client, scene_png: bytes, content_type: str) -> None:
    answer = client.post("/detect", content=scene_png, headers={"Content-Type": content_type})
    assert len(answer.json()["detections"]) == 2


def test_the_same_bytes_have_the_same_image_id(client: httpx.Client, scene_png: bytes) -> None:
    assert post(client, scene_png)["image_id"] == post(client, scene_png)["image_id"]


@pytest.mark.parametrize("classes", ["blue square", ["blue square", "blue square"]])
def test_only_the_classes_asked_for_are_returned(
    client: httpx.Client, scene_png: bytes, classes: str | list[str]
) -> None:
    assert {item["label"] for item in post(client, scene_png, classes=classes)["detections"]} == {"blue square"}


def test_classes_may_be_separated_by_commas(client: httpx.Client, scene_png: bytes) -> None:
    assert len(post(client, scene_png, classes="blue square,red square")["detections"]) == 2


def test_max_detections_keeps_the_best(client: httpx.Client, draw_scene: Scene, encode: Encode) -> None:
    scene = draw_scene(320, 320, (0, 0, 64, "#ff4040"), (128, 0, 64, "red"))
    found = post(client, encode(scene), max_detections=1)["detections"]
    assert [item["box"] for item in found] == [[128, 0, 192, 64]]


def test_a_threshold_of_one_returns_nothing(client: httpx.Client, scene_png: bytes) -> None:
    assert post(client, scene_png, threshold=1)["detections"] == []


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_are_in_the_frame_a_person_sees(
    client: httpx.Client, draw_scene: Scene, encode: Encode, orientation: int
) -> None:
    upright = draw_scene(320, 240, (64, 64, 64, "red"))
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    body = post(client, encode(stored, "JPEG", quality=95, exif=exif))
    assert (body["width"], body["height"]) == (320, 240)
    assert [item["box"] for item in body["detections"]] == [[64, 64, 128, 128]]


def test_a_first_frame_is_used_and_said_so(client: httpx.Client, draw_scene: Scene, encode: Encode) -> None:
    first, second = draw_scene(320, 240, (64, 64, 64, "red")), draw_scene(320, 240)
    body = post(client, encode(first, "GIF", save_all=True, append_images=[second]))
    assert len(body["detections"]) == 1
    assert "first one was used" in body["notes"][0]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 20000), (20000, 1), (97, 311), (161, 159)])
def test_odd_sizes_are_taken(client: httpx.Client, draw_scene: Scene, encode: Encode, width: int, height: int) -> None:
    body = post(client, encode(draw_scene(width, height)))
    assert (body["width"], body["height"], body["detections"]) == (width, height, [])


def test_models_tell_provider_and_parity(client: httpx.Client) -> None:
    listed = client.get("/models").json()
    assert listed == [client.get("/models/toy").json()]
    assert listed[0]["provider"] == "CPUExecutionProvider"
    assert listed[0]["parity"]["passed"] is True


def test_the_service_is_live_and_ready(client: httpx.Client) -> None:
    assert client.get("/livez").json()["status"] == "live"
    assert client.get("/readyz").json()["status"] == "ready"
    assert client.head("/livez").status_code == 200
    assert client.head("/readyz").status_code == 200


def test_the_schema_describes_both_ways_to_send_a_picture(client: httpx.Client) -> None:
    content = client.get("/openapi.json").json()["paths"]["/detect"]["post"]["requestBody"]["content"]
    assert {"multipart/form-data", "application/octet-stream", "image/*"} == set(content)
    assert client.get("/docs").status_code == 200
