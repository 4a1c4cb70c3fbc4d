"""Scenes through the client: sent, waited for, downloaded, retried, deleted."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from PIL import Image

from both_clients import Connect
from service.client import Client, ProblemError, RetryPolicy, Scene, SceneFailedError

Draw = Callable[..., Image.Image]


@pytest.fixture
def asking(connect: Connect, make_client: Callable[..., httpx.Client], tmp_path: Path) -> Client:
    """A client of a service with a scenes folder of its own."""
    return connect(make_client(scenes=tmp_path / "scenes").base_url)


@pytest.fixture
def harbour(draw_scene: Draw, tmp_path: Path) -> Path:
    """600 x 400 with a red and a blue square, more bytes than one piece of an upload."""
    path = tmp_path / "harbour.tif"
    draw_scene(600, 400, (32, 32, 32, "red"), (384, 256, 32, "blue")).save(path)
    return path


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "notes.tif"
    path.write_text("no picture at all" * 100)
    return path


def test_a_scene_is_sent_with_its_name_and_waited_for(asking: Client, harbour: Path) -> None:
    sent = asking.submit_scene(harbour)
    assert (sent.name, sent.tiles) == ("harbour.tif", 0)
    seen: list[Scene] = []
    done = asking.wait_for_scene(sent.id, progress=seen.append, interval=0.05)
    assert (done.state, done.objects, done.width, done.tiles_done) == ("done", 2, 600, done.tiles)
    assert seen[-1] == done


def test_the_progress_of_an_upload_ends_with_all_bytes(asking: Client, harbour: Path) -> None:
    told: list[tuple[int, int | None]] = []
    asking.submit_scene(harbour, progress=lambda sent, total: told.append((sent, total)))
    size = harbour.stat().st_size
    assert len(told) > 2
    assert told == sorted(told)
    assert told[-1] == (size, size)


def test_a_result_is_written_to_a_file_as_the_service_has_it(asking: Client, harbour: Path, tmp_path: Path) -> None:
    scene = asking.wait_for_scene(asking.submit_scene(harbour).id, interval=0.05)
    told: list[tuple[int, int | None]] = []
    path = asking.download_scene(
        scene.id, tmp_path / "boxes.csv", "csv", classes=["red square"], progress=lambda *now: told.append(now)
    )
    assert path.read_text().count("\n") == 2
    assert told[-1] == (path.stat().st_size, path.stat().st_size)
    assert not list(tmp_path.glob("*.part"))


def test_heat_can_be_had_where_it_was_asked_for(asking: Client, harbour: Path, tmp_path: Path) -> None:
    scene = asking.wait_for_scene(asking.submit_scene(harbour, heat=True).id, interval=0.05)
    assert scene.heat
    assert asking.download_scene(scene.id, tmp_path / "heat.tif", "heat").read_bytes()[:2] == b"II"


def test_a_refused_download_leaves_no_file(asking: Client, harbour: Path, tmp_path: Path) -> None:
    scene = asking.wait_for_scene(asking.submit_scene(harbour).id, interval=0.05)
    with pytest.raises(ProblemError, match="sent without heat=true"):
        asking.download_scene(scene.id, tmp_path / "heat.tif", "heat")
    assert not list(tmp_path.glob("heat.tif*"))


def test_a_scene_that_fails_says_why(asking: Client, text: Path) -> None:
    sent = asking.submit_scene(text)
    with pytest.raises(SceneFailedError, match=r"notes\.tif failed") as failure:
        asking.wait_for_scene(sent.id, interval=0.05)
    assert failure.value.scene.error
    assert asking.retry_scene(sent.id).state == "queued"


def test_a_scene_that_has_ended_cannot_be_cancelled(asking: Client, harbour: Path) -> None:
    scene = asking.wait_for_scene(asking.submit_scene(harbour).id, interval=0.05)
    with pytest.raises(ProblemError, match="the scene is done"):
        asking.cancel_scene(scene.id)


def test_scenes_are_listed_and_deleted(asking: Client, harbour: Path) -> None:
    scene = asking.wait_for_scene(asking.submit_scene(harbour).id, interval=0.05)
    assert [each.id for each in asking.scenes()] == [scene.id]
    asking.delete_scene(scene.id)
    assert asking.scenes() == []


def test_a_scene_is_not_sent_twice_after_a_broken_connection(connect: Connect, harbour: Path) -> None:
    calls: list[httpx.Request] = []

    def break_off(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ReadError("reset", request=request)

    asking = connect("http://nowhere", transport=httpx.MockTransport(break_off))
    with pytest.raises(Exception, match="reset"):
        asking.submit_scene(harbour)
    assert len(calls) == 1


def test_a_result_that_takes_longer_than_a_call_is_asked_for_again(connect: Connect, tmp_path: Path) -> None:
    answers = iter([httpx.Response(504), httpx.Response(200, content=b"label\n")])
    transport = httpx.MockTransport(lambda request: next(answers))
    asking = connect("http://nowhere", transport=transport, retries=RetryPolicy(first_wait=0.01))
    assert asking.download_scene("0" * 32, tmp_path / "boxes.csv", "csv").read_text() == "label\n"
