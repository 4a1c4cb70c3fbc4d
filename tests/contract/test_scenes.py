"""/scenes over HTTP: sent, followed, fetched, cancelled, retried, deleted."""

import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from toy_service import SIDE, wait_until

Draw = Callable[..., Image.Image]
Encode = Callable[..., bytes]
MakeClient = Callable[..., httpx.Client]


@pytest.fixture
def scenes(make_client: MakeClient, tmp_path: Path) -> httpx.Client:
    """A service with a scenes folder of its own."""
    return make_client(scenes=tmp_path / "scenes")


@pytest.fixture(scope="session")
def picture(draw_scene: Draw, encode: Encode) -> bytes:
    """600 x 400, a red and a blue square of 32 px far from each other, each on a cell of the toy model."""
    return encode(draw_scene(600, 400, (32, 32, 32, "red"), (384, 256, 32, "blue")))


def send(client: httpx.Client, data: bytes, **query: Any) -> dict[str, Any]:
    answer = client.post("/scenes", content=data, params=query, headers={"Content-Type": "image/png"})
    assert answer.status_code == 202, answer.text
    return answer.json()


def state_of(client: httpx.Client, scene_id: str) -> str:
    return client.get(f"/scenes/{scene_id}").json()["state"]


def finish(client: httpx.Client, scene_id: str) -> dict[str, Any]:
    wait_until(lambda: state_of(client, scene_id) in ("done", "failed", "cancelled"), 60)
    return client.get(f"/scenes/{scene_id}").json()


def test_a_scene_is_taken_and_ends_done(scenes: httpx.Client, picture: bytes) -> None:
    answer = scenes.post("/scenes", content=picture, headers={"Content-Type": "image/png"})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/scenes/{job['id']}"
    done = finish(scenes, job["id"])
    assert (done["state"], done["error"], done["width"], done["height"]) == ("done", None, 600, 400)
    assert done["tiles"]["done"] == done["tiles"]["total"] > 4
    assert done["objects"] == 2


def test_the_result_has_the_objects_where_they_are(scenes: httpx.Client, picture: bytes) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    answer = scenes.get(f"/scenes/{job['id']}/result", params={"format": "coco"})
    assert answer.headers["Content-Type"] == "application/json"
    boxes = sorted(tuple(item["bbox"]) for item in answer.json()["annotations"])
    assert boxes == [(32, 32, 32, 32), (384, 256, 32, 32)]


@pytest.mark.parametrize(
    ("kind", "media_type", "begins"),
    [
        ("geojson", "application/geo+json", b"{"),
        ("gpkg", "application/geopackage+sqlite3", b"SQLite format 3"),
        ("coco", "application/json", b"{"),
        ("csv", "text/csv", b""),
    ],
)
def test_every_format_can_be_had(
    scenes: httpx.Client, picture: bytes, kind: str, media_type: str, begins: bytes
) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    answer = scenes.get(f"/scenes/{job['id']}/result", params={"format": kind})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(media_type)
    assert answer.content.startswith(begins)


def test_classes_and_threshold_choose_the_objects(scenes: httpx.Client, picture: bytes) -> None:
    path = f"/scenes/{finish(scenes, send(scenes, picture)['id'])['id']}/result"
    assert len(scenes.get(path, params={"classes": "red square"}).json()["features"]) == 1
    assert len(scenes.get(path, params={"threshold": 1}).json()["features"]) == 0
    assert scenes.get(path, params={"classes": "zebra"}).status_code == 422
    assert scenes.get(path, params={"threshold": 0.01}).status_code == 422


def test_a_form_is_taken_and_its_name_is_only_told(scenes: httpx.Client, picture: bytes, tmp_path: Path) -> None:
    name = "../../../evil\r\n<b>.png"
    answer = scenes.post("/scenes", files={"other": ("x", b"y"), "file": (name, picture, "image/png")})
    assert answer.status_code == 202, answer.text
    assert "/" not in answer.json()["name"]
    assert not list(tmp_path.rglob("*evil*"))
    assert finish(scenes, answer.json()["id"])["state"] == "done"


def test_heat_lies_on_the_picture_where_it_was_asked_for(scenes: httpx.Client, picture: bytes) -> None:
    job = finish(scenes, send(scenes, picture, heat="true")["id"])
    answer = scenes.get(f"/scenes/{job['id']}/heat.tif")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/tiff")
    assert answer.content[:4] == b"II*\0"


def test_heat_that_was_not_asked_for_is_not_found(scenes: httpx.Client, picture: bytes) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    answer = scenes.get(f"/scenes/{job['id']}/heat.tif")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:heatquery:problem:unknown-scene")
    assert "heat=true" in answer.json()["detail"]


def test_scenes_are_listed_newest_first(scenes: httpx.Client, picture: bytes) -> None:
    assert scenes.get("/scenes").json() == []
    sent = [send(scenes, picture)["id"] for _ in range(2)]
    assert [job["id"] for job in scenes.get("/scenes").json()] == sent[::-1]


def test_events_tell_each_change_and_end_with_the_job(scenes: httpx.Client, picture: bytes) -> None:
    job = send(scenes, picture)
    kinds, states = [], []
    with scenes.stream("GET", f"/scenes/{job['id']}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                kinds.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                states.append(json.loads(line.removeprefix("data: "))["state"])
    assert set(kinds[:-1]) <= {"progress"}
    assert (kinds[-1], states[-1]) == ("end", "done")


@pytest.mark.parametrize("scene_id", ["..%2f..%2fetc%2fpasswd", "%2e%2e", "0" * 32, "F" * 32, "0" * 31, "jobs.sqlite"])
@pytest.mark.parametrize("path", ["", "/events", "/result", "/heat.tif", "/preview"])
def test_an_id_that_is_none_is_not_found(scenes: httpx.Client, scene_id: str, path: str) -> None:
    answer = scenes.get(f"/scenes/{scene_id}{path}")
    assert answer.status_code == 404
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_scene_that_is_no_picture_fails_with_a_reason(scenes: httpx.Client) -> None:
    job = finish(scenes, send(scenes, b"<VRTDataset/>" * 10)["id"])
    assert job["state"] == "failed"
    assert job["error"]
    answer = scenes.get(f"/scenes/{job['id']}/result")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:heatquery:problem:scene-state")


def test_a_failed_scene_can_be_retried_and_a_done_one_not(scenes: httpx.Client, picture: bytes) -> None:
    failed = finish(scenes, send(scenes, b"junk")["id"])
    assert scenes.post(f"/scenes/{failed['id']}/retry").status_code == 202
    assert finish(scenes, failed["id"])["state"] == "failed"
    done = finish(scenes, send(scenes, picture)["id"])
    answer = scenes.post(f"/scenes/{done['id']}/retry")
    assert (answer.status_code, "only failed or cancelled" in answer.json()["detail"]) == (409, True)


def test_a_finished_scene_is_deleted_with_its_files(scenes: httpx.Client, picture: bytes, tmp_path: Path) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    assert (tmp_path / "scenes" / job["id"]).is_dir()
    assert scenes.delete(f"/scenes/{job['id']}").status_code == 204
    assert not (tmp_path / "scenes" / job["id"]).exists()
    assert scenes.get(f"/scenes/{job['id']}").status_code == 404


def test_a_scene_that_has_ended_is_not_cancelled_but_kept(scenes: httpx.Client, picture: bytes) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    assert scenes.post(f"/scenes/{job['id']}/cancel").status_code == 409
    assert scenes.get(f"/scenes/{job['id']}").json()["state"] == "done"


def test_a_running_scene_is_cancelled_and_goes_on_when_retried(
    scenes: httpx.Client, encode: Encode, draw_scene: Draw
) -> None:
    job = send(scenes, encode(draw_scene(6000, 4000, (32, 32, 32, "red"))))
    wait_until(lambda: scenes.get(f"/scenes/{job['id']}").json()["tiles"]["done"] > 0, 60)
    cancelled = scenes.post(f"/scenes/{job['id']}/cancel").json()
    assert cancelled["state"] == "cancelled"
    assert cancelled["tiles"]["done"] < cancelled["tiles"]["total"]
    assert scenes.post(f"/scenes/{job['id']}/retry").json()["state"] == "queued"
    done = finish(scenes, job["id"])
    assert (done["state"], done["objects"]) == ("done", 1)


def test_more_scenes_than_may_wait_are_refused_with_a_time(
    make_client: MakeClient, tmp_path: Path, picture: bytes
) -> None:
    client = make_client(scenes=tmp_path / "scenes", scene_queue=0)
    answer = client.post("/scenes", content=picture)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
    assert "HEATQUERY_SCENE_QUEUE" in answer.json()["detail"]


def test_more_bytes_than_may_be_kept_are_refused(make_client: MakeClient, tmp_path: Path, picture: bytes) -> None:
    client = make_client(scenes=tmp_path / "scenes", scene_disk_bytes=len(picture) + 10)
    finish(client, send(client, picture)["id"])
    for content in (picture, iter([picture])):  # with a length, and in pieces of unknown number
        answer = client.post("/scenes", content=content)
        assert (answer.status_code, answer.json()["type"]) == (507, "urn:heatquery:problem:no-storage")
    assert len(list((tmp_path / "scenes").glob("*/scene"))) == 1
    assert not list((tmp_path / "scenes").glob("*.part"))


def test_a_scene_has_a_byte_limit_of_its_own(make_client: MakeClient, tmp_path: Path) -> None:
    client = make_client(scenes=tmp_path / "scenes", max_upload_bytes=1000, max_scene_bytes=5000)
    data = np.random.default_rng(0).bytes(4000)
    assert send(client, data)["bytes"] == 4000
    for content in (bytes(6000), iter([bytes(3000)] * 2)):
        answer = client.post("/scenes", content=content)
        assert answer.status_code == 413
        assert "5,000 bytes (HEATQUERY_MAX_SCENE_BYTES)" in answer.json()["detail"]
    assert not list((tmp_path / "scenes").glob("*.part"))


def test_an_empty_body_is_refused_and_leaves_nothing(scenes: httpx.Client, tmp_path: Path) -> None:
    assert scenes.post("/scenes", content=b"").status_code == 400
    assert not list((tmp_path / "scenes").glob("*.part"))


def test_a_form_without_the_file_is_refused(scenes: httpx.Client) -> None:
    answer = scenes.post("/scenes", files={"picture": ("a.png", b"x", "image/png")})
    assert (answer.status_code, "named 'file'; found ['picture']" in answer.json()["detail"]) == (422, True)


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ({"scaling": "5,1"}, "scaling"),
        ({"bands": "0,1,2"}, "bands"),
        ({"resolution": "0"}, "resolution"),
        ({"overlap": 33}, "overlap"),
        ({"overlap": SIDE}, "overlap"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_parameter_is_named_before_anything_is_kept(
    scenes: httpx.Client, picture: bytes, tmp_path: Path, query: dict[str, Any], word: str
) -> None:
    answer = scenes.post("/scenes", content=picture, params=query)
    assert (answer.status_code, word in answer.json()["detail"]) == (422, True)
    assert not list((tmp_path / "scenes").glob("*/scene"))


def test_with_keys_each_sees_its_own_list(make_client: MakeClient, tmp_path: Path, picture: bytes) -> None:
    first, second = "a" * 16, "b" * 16
    client = make_client(scenes=tmp_path / "scenes", api_keys=f"{first},{second}")
    assert client.post("/scenes", content=picture).status_code == 401
    headers = [{"X-API-Key": key} for key in (first, second)]
    client.post("/scenes", content=picture, headers=headers[0])
    assert [len(client.get("/scenes", headers=each).json()) for each in headers] == [1, 0]


def preview_of(client: httpx.Client, scene_id: str, **query: Any) -> Image.Image:
    answer = client.get(f"/scenes/{scene_id}/preview", params=query)
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "image/jpeg"), answer.text
    return Image.open(BytesIO(answer.content)).convert("RGB")


@pytest.mark.parametrize(("side", "size"), [(300, (300, 200)), (16, (16, 11)), (2048, (600, 400))])
def test_a_preview_is_as_large_as_asked_for_and_never_larger_than_the_scene(
    scenes: httpx.Client, picture: bytes, side: int, size: tuple[int, int]
) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    assert preview_of(scenes, job["id"], side=side).size == size


def test_a_preview_shows_objects_where_they_are(scenes: httpx.Client, picture: bytes) -> None:
    preview = preview_of(scenes, finish(scenes, send(scenes, picture)["id"])["id"], side=300)
    for point, channel in (((24, 24), 0), ((200, 136), 2)):
        pixel = preview.getpixel(point)
        assert isinstance(pixel, tuple)
        assert pixel[channel] > 200
        assert pixel[2 - channel] < 60


def test_a_preview_is_made_once_and_deleted_with_its_scene(
    scenes: httpx.Client, picture: bytes, tmp_path: Path
) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    preview_of(scenes, job["id"])
    made = (tmp_path / "scenes" / job["id"] / "overview.jpg").stat().st_mtime_ns
    preview_of(scenes, job["id"], side=64)
    assert (tmp_path / "scenes" / job["id"] / "overview.jpg").stat().st_mtime_ns == made
    scenes.delete(f"/scenes/{job['id']}")
    assert not list(tmp_path.rglob("overview.jpg"))


def test_there_is_no_preview_of_what_is_no_picture(scenes: httpx.Client) -> None:
    job = finish(scenes, send(scenes, b"<VRTDataset/>" * 10)["id"])
    answer = scenes.get(f"/scenes/{job['id']}/preview")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:heatquery:problem:scene-state")
    assert "failed" in answer.json()["detail"]


def test_a_preview_of_no_size_or_a_huge_one_is_refused(scenes: httpx.Client, picture: bytes) -> None:
    job = finish(scenes, send(scenes, picture)["id"])
    for side in (15, 2049):
        assert scenes.get(f"/scenes/{job['id']}/preview", params={"side": side}).status_code == 422


def test_a_scene_tells_whether_its_heat_is_kept(scenes: httpx.Client, picture: bytes) -> None:
    assert send(scenes, picture)["heat"] is False
    assert send(scenes, picture, heat="true")["heat"] is True
