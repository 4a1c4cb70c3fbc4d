"""POST /detect?tile=...: a large picture in tiles, each object once, heat and all."""

from collections.abc import Callable

import httpx
import numpy as np
import pytest
from PIL import Image

Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]
SQUARES = [
    (0, 0),
    (96, 32),
    (128, 64),
    (160, 160),
    (224, 128),
    (288, 256),
    (448, 288),
]  # cells of 32 px, seams included


@pytest.fixture(scope="module")
def large_png(draw_scene: Scene, encode: Encode) -> bytes:
    """500 x 340 px with red squares of 32 px."""
    return encode(draw_scene(500, 340, *((x, y, 32, "red") for x, y in SQUARES)), "PNG")


def boxes(answer: httpx.Response) -> list[list[float]]:
    assert answer.status_code == 200, answer.text
    return sorted([round(edge) for edge in found["box"]] for found in answer.json()["detections"])


def test_every_object_of_a_tiled_picture_is_found_once(client: httpx.Client, large_png: bytes) -> None:
    answer = client.post("/detect", params={"tile": "160", "threshold": 0.5}, files={"file": large_png})
    assert boxes(answer) == sorted([x, y, x + 32, y + 32] for x, y in SQUARES)
    assert answer.json()["estimated_count"] == pytest.approx(len(SQUARES), abs=0.1)
    assert answer.json()["notes"] == ["cut into 15 tiles"]


def test_a_large_picture_is_tiled_by_itself_and_not_when_told_so(client: httpx.Client, large_png: bytes) -> None:
    by_itself = client.post("/detect", files={"file": large_png}).json()
    assert by_itself["notes"] == ["cut into 4 tiles"]
    assert client.post("/detect", params={"tile": "off"}, files={"file": large_png}).json()["notes"] == []


def test_a_picture_that_fits_is_not_tiled(client: httpx.Client, scene_png: bytes) -> None:
    assert client.post("/detect", files={"file": scene_png}).json()["notes"] == []


def test_the_heat_of_a_tiled_picture_lies_on_its_objects(client: httpx.Client, large_png: bytes) -> None:
    sent = client.post("/detect", params={"tile": "160"}, files={"file": large_png})
    query = {"image_id": sent.json()["image_id"], "kind": "class", "level": 0, "format": "json"}
    answer = client.get("/heatmap", params=query).json()
    heat, (step_x, _, _, _, step_y, _) = np.array(answer["values"]), answer["affine"]
    rows, columns = np.nonzero(heat > 0.5)
    hot = {
        (int((column + 0.5) * step_x) // 32 * 32, int((row + 0.5) * step_y) // 32 * 32)
        for row, column in zip(rows, columns, strict=True)
    }
    assert hot == set(SQUARES)
    drawn = client.get("/heatmap", params={"image_id": query["image_id"], "legend": "false"})
    assert drawn.headers["content-type"] == "image/png"


def test_a_heat_map_sent_now_takes_tiles_too(client: httpx.Client, large_png: bytes) -> None:
    answer = client.post("/heatmap", params={"tile": "160", "format": "json"}, files={"file": large_png})
    assert answer.status_code == 200
    assert len(answer.json()["values"]) >= 340 // 8


@pytest.mark.parametrize("tile", ["0", "-5", "huge", "1e3", "", "12345678"])
def test_a_tile_that_is_no_size_is_refused(client: httpx.Client, scene_png: bytes, tile: str) -> None:
    answer = client.post("/detect", params={"tile": tile}, files={"file": scene_png})
    assert (answer.status_code, answer.json()["errors"][0]["parameter"]) == (422, "tile")


def test_too_many_tiles_are_refused_before_any_is_worked_on(
    make_client: Callable[..., httpx.Client], large_png: bytes
) -> None:
    answer = make_client(max_tiles=10).post("/detect", params={"tile": "160"}, files={"file": large_png})
    assert answer.status_code == 422
    assert "makes 15 tiles" in answer.json()["detail"]
    assert "HEATQUERY_MAX_TILES" in answer.json()["detail"]


def test_a_failure_in_one_tile_is_an_answer_like_any_other(
    make_client: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch, large_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise RuntimeError("failed to allocate memory")

    monkeypatch.setattr("onnxruntime.InferenceSession.run_with_iobinding", fail)
    answer = client.post("/detect", params={"tile": "160"}, files={"file": large_png})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:heatquery:problem:out-of-memory")
