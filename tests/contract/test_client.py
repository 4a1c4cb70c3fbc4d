"""The client in front of a real service: `Client` and `AsyncClient` give the same answers."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from both_clients import Connect, pretend_to_sleep
from service.client import (
    Client,
    ImageId,
    PictureError,
    ProblemError,
    RetryPolicy,
    UnreachableError,
)
from toy_service import wait_until

MakeClient = Callable[..., httpx.Client]
Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]


@pytest.fixture
def asking(connect: Connect, client: httpx.Client) -> Client:
    """A client of the shared toy service."""
    return connect(client.base_url)


def test_detections_come_as_arrays(asking: Client, scene_png: bytes) -> None:
    found = asking.detect(scene_png)
    order = np.argsort(found.boxes[:, 0])
    assert found.boxes[order].tolist() == [[64, 64, 128, 128], [192, 128, 256, 192]]
    assert [found.labels[i] for i in order] == ["red square", "blue square"]
    assert found.class_ids[order].tolist() == [0, 1]
    assert found.scores.shape == (2,)


def test_detections_come_one_by_one(asking: Client, scene_png: bytes) -> None:
    found = asking.detect(scene_png)
    assert len(found) == 2
    assert {(item.label, item.box) for item in found} == {
        ("red square", (64, 64, 128, 128)),
        ("blue square", (192, 128, 256, 192)),
    }


def test_the_rest_of_the_answer_is_typed(asking: Client, scene_png: bytes) -> None:
    found = asking.detect(scene_png)
    assert (found.width, found.height, found.model.name, found.query_count) == (320, 240, "toy", 6)
    assert found.document["image_id"] == found.image_id


def test_no_objects_are_an_array_of_no_rows(asking: Client, draw_scene: Scene) -> None:
    found = asking.detect(draw_scene(320, 240))
    assert (found.boxes.shape, len(found), list(found)) == ((0, 4), 0, [])


def test_options_reach_the_service(asking: Client, scene_png: bytes) -> None:
    assert set(asking.detect(scene_png, classes=["blue square"]).labels) == {"blue square"}
    assert set(asking.detect(scene_png, classes="blue square").labels) == {"blue square"}
    assert len(asking.detect(scene_png, max_detections=1)) == 1
    assert len(asking.detect(scene_png, threshold=1.0)) == 0


@pytest.fixture(params=["path", "text path", "bytes", "file", "memory file", "Pillow image", "array"])
def scene(request: pytest.FixtureRequest, tmp_path: Path, scene_png: bytes) -> Iterator[Any]:
    """The scene in each form that a picture may have."""
    path = tmp_path / "scene.png"
    path.write_bytes(scene_png)
    with path.open("rb") as file, Image.open(path) as image:
        yield {
            "path": path,
            "text path": str(path),
            "bytes": scene_png,
            "file": file,
            "memory file": BytesIO(scene_png),
            "Pillow image": image,
            "array": np.asarray(image),
        }[request.param]


def test_every_form_of_a_picture_is_sent(asking: Client, scene: Any) -> None:
    assert set(asking.detect(scene).labels) == {"red square", "blue square"}


def test_boxes_of_a_pillow_image_are_in_its_own_pixels(asking: Client, draw_scene: Scene, encode: Encode) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer would turn it
    turned = Image.open(BytesIO(encode(draw_scene(320, 240, (64, 64, 64, "red")), "JPEG", quality=95, exif=exif)))
    assert asking.detect(turned).boxes.tolist() == [[64, 64, 128, 128]]


@pytest.mark.parametrize("mode", ["CMYK", "RGBA", "P", "L", "YCbCr", "F"])
def test_a_pillow_image_of_any_mode_is_sent(asking: Client, draw_scene: Scene, mode: str) -> None:
    assert asking.detect(draw_scene(320, 240).convert(mode)).width == 320


@pytest.mark.parametrize(
    "array", [np.zeros((8, 8, 3), np.float32), np.zeros((3, 8, 8), np.uint8), np.zeros((8,), np.uint8)]
)
def test_an_array_that_is_no_picture_is_refused_by_its_shape(asking: Client, array: NDArray[Any]) -> None:
    with pytest.raises(PictureError, match=rf"the array is {array.dtype} \({array.shape[0]},.* send uint8"):
        asking.detect(array)


def test_a_file_in_text_mode_is_refused(asking: Client, tmp_path: Path) -> None:
    (tmp_path / "scene.txt").write_text("abc")
    with (tmp_path / "scene.txt").open() as file, pytest.raises(PictureError, match="'rb'"):
        asking.detect(file)  # pyright: ignore[reportArgumentType]: the mistake that is tested


def test_a_missing_file_is_a_missing_file(asking: Client) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        asking.detect("nowhere.png")


def test_a_heat_map_is_drawn_for_a_picture(asking: Client, scene_png: bytes) -> None:
    drawn = asking.heatmap(scene_png, kind="class", class_name="red square", legend=False, boxes=True)
    assert Image.open(BytesIO(drawn)).size == (320, 240)


def test_a_heat_map_is_drawn_for_an_image_id(asking: Client, scene_png: bytes) -> None:
    found = asking.detect(scene_png)
    drawn = Image.open(BytesIO(asking.heatmap(found.image_id, format="webp", colormap="viridis", opacity=0.3)))
    assert (drawn.format, drawn.width) == ("WEBP", 320)


def test_an_image_id_from_elsewhere_is_marked_as_one(asking: Client, scene_png: bytes) -> None:
    kept = str(asking.detect(scene_png).image_id)
    assert asking.heat_values(ImageId(kept)).image_id == kept


def test_heat_values_lie_on_the_picture(asking: Client, scene_png: bytes) -> None:
    heat = asking.heat_values(scene_png, kind="class", class_name="red square", level=0)
    row, column = np.unravel_index(np.argmax(heat.values), heat.values.shape)
    a, b, c, d, e, f = heat.affine
    x, y = a * (column + 0.5) + b * (row + 0.5) + c, d * (column + 0.5) + e * (row + 0.5) + f
    assert 64 < x < 128
    assert 64 < y < 128
    assert heat.title == "class heat of 'red square', level 0 (stride 8)"


def test_models_are_typed(asking: Client) -> None:
    (model,) = asking.models()
    assert (model.name, model.classes, model.input_size) == ("toy", ("red square", "blue square"), 160)
    assert (model.provider, model.precision, model.licence) == ("CPUExecutionProvider", "fp32", "Apache-2.0")


def test_a_service_with_a_model_is_ready(asking: Client) -> None:
    assert asking.ready() is True
    asking.wait_until_ready(5)


def test_a_service_without_a_sound_model_is_not_ready(
    make_client: MakeClient, connect: Connect, tmp_path: Path
) -> None:
    asking = connect(make_client(models=tmp_path).base_url)
    assert asking.ready() is False
    with pytest.raises(ProblemError, match="503 The service is not ready"):
        asking.wait_until_ready(0.05)


def test_a_refusal_has_the_fields_of_the_problem(asking: Client) -> None:
    with pytest.raises(ProblemError, match="415 Not a supported image type: the content is not one of") as caught:
        asking.detect(b"no picture")
    error = caught.value
    assert (error.status, error.type) == (415, "urn:heatquery:problem:unsupported-type")
    assert error.title == "Not a supported image type"
    assert error.request_id
    assert error.concerns_picture


def test_a_bad_parameter_is_named(asking: Client, scene_png: bytes) -> None:
    with pytest.raises(ProblemError) as caught:
        asking.detect(scene_png, threshold=7)
    (bad,) = caught.value.errors
    assert (bad["parameter"], bad["value"]) == ("threshold", "7")
    assert not caught.value.concerns_picture


def test_an_unknown_image_id_is_a_problem_of_404(asking: Client) -> None:
    with pytest.raises(ProblemError) as caught:
        asking.heatmap(ImageId("0" * 32))
    assert (caught.value.status, caught.value.type) == (404, "urn:heatquery:problem:unknown-image")


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", ""])
def test_an_address_without_http_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="http://HOST:PORT"):
        Client(address)


def test_a_full_queue_is_waited_for(
    make_client: MakeClient, connect: Connect, monkeypatch: pytest.MonkeyPatch, scene_png: bytes
) -> None:
    address = make_client(queue=1).base_url
    head = b"POST /detect HTTP/1.1\r\nHost: t\r\nContent-Type: image/png\r\nContent-Length: 9\r\n\r\n1"
    waits: list[float] = []
    with ExitStack() as slow_uploads:  # they hold every place

        def is_full() -> bool:
            return httpx.post(f"{address}/detect", content=b"").status_code == 429

        def leave(seconds: float) -> None:
            waits.append(seconds)
            slow_uploads.close()
            wait_until(lambda: not is_full())

        while not is_full():
            upload = slow_uploads.enter_context(socket.create_connection((address.host, address.port)))
            upload.sendall(head)
            time.sleep(0.02)
        pretend_to_sleep(monkeypatch, leave)
        assert len(connect(address).detect(scene_png)) == 2
    assert len(waits) == 1
    assert waits[0] >= 1  # the service's Retry-After


def test_a_picture_of_too_many_bytes_is_refused_with_the_limit(make_client: MakeClient, connect: Connect) -> None:
    asking = connect(make_client(max_upload_bytes=1000).base_url)
    with pytest.raises(ProblemError, match="over 1,000 bytes") as caught:
        asking.detect(b"\xff\xd8\xff" + bytes(4_000_000))
    assert caught.value.status == 413


def test_a_key_opens_the_service(make_client: MakeClient, connect: Connect) -> None:
    address = make_client(api_keys="k" * 32).base_url
    assert connect(address, api_key="k" * 32).models()[0].name == "toy"
    with pytest.raises(ProblemError, match="the key is not known") as caught:
        connect(address, api_key="wrong" * 8).models()
    assert not caught.value.concerns_picture
    assert connect(address).ready() is True


def test_a_rate_limit_beyond_the_deadline_is_told_at_once(
    make_client: MakeClient, connect: Connect, scene_png: bytes
) -> None:
    asking = connect(make_client(rate_limit="1/hour").base_url, retries=RetryPolicy(deadline=30))
    assert len(asking.detect(scene_png)) == 2
    with pytest.raises(ProblemError) as caught:
        asking.detect(scene_png)
    assert caught.value.status == 429
    assert "another would begin" in caught.value.__notes__[0]


def test_a_service_that_comes_up_late_is_waited_for(
    connect: Connect, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asking = connect(f"http://127.0.0.1:{port}")
    relays: list[Relay] = []

    def come_up(_: float) -> None:
        if not relays:
            relays.append(Relay(port, client.base_url.port or 0))

    pretend_to_sleep(monkeypatch, come_up)
    try:
        assert asking.models()[0].name == "toy"
        assert len(relays) == 1
    finally:
        for relay in relays:
            relay.close()


class Relay:
    """A port that passes connections on to another."""

    def __init__(self, port: int, target: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._target = target
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with self._listener.accept()[0] as caller, socket.create_connection(("127.0.0.1", self._target)) as target:
            target.sendall(caller.recv(65536))
            while data := target.recv(65536):
                caller.sendall(data)


def test_no_service_at_all_is_unreachable(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    asking = connect(f"http://127.0.0.1:{port}", retries=RetryPolicy(tries=1))
    with pytest.raises(UnreachableError, match=f"no answer from http://127.0.0.1:{port}: .* does the service run"):
        asking.models()
    assert asking.ready() is False


def test_importing_the_client_loads_nothing_of_the_server() -> None:
    server = {"onnxruntime", "fastapi", "starlette", "uvicorn", "pydantic", "service.app", "service.predictor"}
    unwanted = server | {"torch", "matplotlib"}
    script = f"import sys, service.client; print({unwanted} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"
