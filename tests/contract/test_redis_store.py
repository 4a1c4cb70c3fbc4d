"""Two services that share a Redis: either draws what the other saw, and neither falls with it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from redis_server import RedisServer, require_redis_server
from results import make_result
from service.packing import pack_result
from service.redis_store import PAUSE_SECONDS

MakeClient = Callable[..., httpx.Client]


@pytest.fixture
def replica(make_client: MakeClient) -> MakeClient:
    """Start a service on a Redis; patient, because the machine that tests may be busy."""
    return lambda url, **changes: make_client(store=url, store_seconds=10, **changes)


@pytest.fixture
def guarded_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A server with a password."""
    require_redis_server()
    server = RedisServer(tmp_path, password="open-sesame")
    yield server
    server.close()


def detect(client: httpx.Client, scene: bytes) -> str:
    """Send a picture; its id."""
    answer = client.post("/detect", files={"file": scene})
    assert answer.status_code == 200, answer.text
    return answer.json()["image_id"]


def draw(client: httpx.Client, image_id: str, **query: object) -> httpx.Response:
    return client.get("/heatmap", params=httpx.QueryParams(image_id=image_id, **query))


def problem(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


@pytest.mark.parametrize("query", [{}, {"boxes": True}, {"format": "npy", "kind": "density"}, {"format": "json"}])
def test_another_replica_draws_the_same_bytes(
    replica: MakeClient, redis_server: RedisServer, scene_png: bytes, query: dict
) -> None:
    first, second = replica(redis_server.url), replica(redis_server.url)
    drawn = draw(second, detect(first, scene_png), **query)
    assert drawn.status_code == 200
    assert drawn.content == first.post("/heatmap", params=query, files={"file": scene_png}).content


def test_memory_and_redis_draw_the_same_bytes(
    client: httpx.Client, replica: MakeClient, redis_server: RedisServer, scene_png: bytes
) -> None:
    shared = replica(redis_server.url)
    assert draw(shared, detect(shared, scene_png)).content == draw(client, detect(client, scene_png)).content


def test_what_post_heatmap_saw_is_shared_too(replica: MakeClient, redis_server: RedisServer, scene_png: bytes) -> None:
    first, second = replica(redis_server.url), replica(redis_server.url)
    image_id = first.post("/heatmap", files={"file": scene_png}).headers["x-image-id"]
    assert draw(second, image_id).status_code == 200


def test_one_picture_is_one_value_however_often_it_is_sent(
    replica: MakeClient, redis_server: RedisServer, scene_png: bytes
) -> None:
    for client in (replica(redis_server.url), replica(redis_server.url)):
        detect(client, scene_png)
        detect(client, scene_png)
    assert redis_server.client.dbsize() == 1


def test_an_expired_result_is_404(replica: MakeClient, redis_server: RedisServer, scene_png: bytes) -> None:
    client = replica(redis_server.url, heat_ttl_seconds=0.001)
    image_id = detect(client, scene_png)
    time.sleep(0.05)
    assert problem(draw(client, image_id)) == (404, "unknown-image")


@pytest.mark.parametrize("name", ["0" * 32, "*", "../../etc/passwd", "0" * 32 + ":x"])
def test_an_id_that_names_nothing_is_404(replica: MakeClient, redis_server: RedisServer, name: str) -> None:
    assert problem(draw(replica(redis_server.url), name)) == (404, "unknown-image")


def test_a_lost_server_costs_the_heat_map_alone(
    replica: MakeClient, redis_server: RedisServer, scene_png: bytes
) -> None:
    client = replica(redis_server.url)
    image_id = detect(client, scene_png)
    redis_server.kill()
    assert detect(client, scene_png) == image_id
    lost = draw(client, image_id)
    assert problem(lost) == (503, "store-unavailable")
    assert lost.headers["retry-after"] == "1"
    redis_server.start()
    time.sleep(PAUSE_SECONDS)
    assert draw(client, detect(client, scene_png)).status_code == 200


def test_the_service_starts_without_the_server(
    replica: MakeClient, redis_server: RedisServer, scene_png: bytes
) -> None:
    redis_server.kill()
    client = replica(redis_server.url)
    assert client.get("/readyz").status_code == 200
    assert detect(client, scene_png)


@pytest.mark.parametrize("value", [b"", b"garbage", b"\x80\x04cos\nsystem\n(S'true'\ntR.", bytes(1_000_000)])
def test_a_foreign_value_is_404(replica: MakeClient, redis_server: RedisServer, scene_png: bytes, value: bytes) -> None:
    client = replica(redis_server.url)
    image_id = detect(client, scene_png)
    (key,) = redis_server.client.keys()
    redis_server.client.set(key, value)
    assert problem(draw(client, image_id)) == (404, "unknown-image")


def test_a_list_under_our_key_is_404_and_the_next_call_replaces_it(
    replica: MakeClient, redis_server: RedisServer, scene_png: bytes
) -> None:
    client = replica(redis_server.url)
    image_id = detect(client, scene_png)
    (key,) = redis_server.client.keys()
    redis_server.client.delete(key)
    redis_server.client.rpush(key, "entry")
    assert problem(draw(client, image_id)) == (404, "unknown-image")
    detect(client, scene_png)
    assert draw(client, image_id).status_code == 200


def test_a_result_of_another_model_shape_is_404(
    replica: MakeClient, redis_server: RedisServer, scene_png: bytes
) -> None:
    client = replica(redis_server.url)
    image_id = detect(client, scene_png)
    (key,) = redis_server.client.keys()
    other = make_result(scene_png, classes=3)
    redis_server.client.set(key, pack_result(other))
    assert other.image_id == image_id
    assert problem(draw(client, image_id)) == (404, "unknown-image")


def test_a_password_opens_the_server(replica: MakeClient, guarded_server: RedisServer, scene_png: bytes) -> None:
    client = replica(guarded_server.url)
    assert draw(client, detect(client, scene_png)).status_code == 200


def test_a_wrong_password_costs_the_heat_map_alone_and_is_not_shown(
    replica: MakeClient, guarded_server: RedisServer, scene_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = replica(guarded_server.url.replace("open-sesame", "wrong-word"))
    answer = draw(client, detect(client, scene_png))
    assert problem(answer) == (503, "store-unavailable")
    assert "results cannot be" in caplog.text
    assert "wrong-word" not in caplog.text + answer.text
