"""Many pictures in one go: order, bounds, and what one bad picture does."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from PIL import Image

from both_clients import Connect
from service.client import AsyncClient, Client, ProblemError

Scene = Callable[..., Image.Image]


@pytest.fixture
def asking(connect: Connect, client: httpx.Client) -> Client:
    """A client of the shared toy service."""
    return connect(client.base_url)


def test_results_come_in_the_order_given(asking: Client, draw_scene: Scene) -> None:
    scenes = [draw_scene(100 + 10 * i, 100) for i in range(9)]
    results = list(asking.detect_many(scenes, concurrency=3))
    assert [result.index for result in results] == list(range(9))
    widths = [result.detections.width for result in results if result.detections is not None]
    assert widths == [scene.width for scene in scenes]


def test_no_pictures_give_no_results(asking: Client) -> None:
    assert list(asking.detect_many([])) == []


def test_options_hold_for_every_picture(asking: Client, scene_png: bytes) -> None:
    results = asking.detect_many([scene_png] * 3, classes=["red square"])
    assert [found.labels for result in results if (found := result.detections)] == [("red square",)] * 3


def test_a_bad_picture_fails_alone(asking: Client, scene_png: bytes) -> None:
    results = list(asking.detect_many([scene_png, b"no picture", "nowhere.png", scene_png]))
    assert [result.detections is not None for result in results] == [True, False, False, True]
    refused, missing = results[1].error, results[2].error
    assert isinstance(refused, ProblemError)
    assert refused.status == 415
    assert isinstance(missing, FileNotFoundError)


def test_an_error_that_all_would_meet_is_raised(asking: Client, scene_png: bytes) -> None:
    with pytest.raises(ProblemError, match="'rde square' is not a class"):
        list(asking.detect_many([scene_png] * 20, classes="rde square"))


def test_progress_is_told_up_to_the_end(asking: Client, scene_png: bytes) -> None:
    told: list[tuple[int, int | None]] = []
    list(asking.detect_many([scene_png] * 5, progress=lambda done, total: told.append((done, total))))
    assert told[-1] == (5, 5)
    assert told == sorted(set(told))


def test_progress_of_a_stream_has_no_total(asking: Client, scene_png: bytes) -> None:
    told: list[int | None] = []
    list(asking.detect_many(iter([scene_png]), progress=lambda _, total: told.append(total)))
    assert told == [None]


def test_a_concurrency_of_none_is_refused(asking: Client, scene_png: bytes) -> None:
    with pytest.raises(ValueError, match="concurrency is 0; it must be 1 or more"):
        list(asking.detect_many([scene_png], concurrency=0))


class CountingService:
    """Answers 400 after a moment, and counts the calls that are open at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.open = self.most = self.calls = 0

    def _enter(self) -> None:
        with self._lock:
            self.calls += 1
            self.open += 1
            self.most = max(self.most, self.open)

    def _leave(self) -> None:
        with self._lock:
            self.open -= 1

    def blocking(self, _: httpx.Request) -> httpx.Response:
        self._enter()
        time.sleep(0.005)
        self._leave()
        return httpx.Response(400)

    async def nonblocking(self, _: httpx.Request) -> httpx.Response:
        self._enter()
        await asyncio.sleep(0.005)
        self._leave()
        return httpx.Response(400)


def endless() -> Iterator[bytes]:
    while True:
        yield b"picture"


def test_as_many_calls_run_as_allowed_and_no_more() -> None:
    service = CountingService()
    with Client("http://service", transport=httpx.MockTransport(service.blocking)) as asking:
        assert len(list(asking.detect_many([b"picture"] * 30, concurrency=3))) == 30
    assert service.most == 3


def test_as_many_tasks_run_as_allowed_and_no_more() -> None:
    async def run(service: CountingService) -> int:
        async with AsyncClient("http://service", transport=httpx.MockTransport(service.nonblocking)) as asking:
            return len([result async for result in asking.detect_many([b"picture"] * 30, concurrency=3)])

    service = CountingService()
    assert asyncio.run(run(service)) == 30
    assert service.most == 3


def test_pictures_without_end_are_taken_as_results_are() -> None:
    service = CountingService()
    with Client("http://service", transport=httpx.MockTransport(service.blocking)) as asking:
        results = asking.detect_many(endless(), concurrency=2)
        assert [next(results).index for _ in range(10)] == list(range(10))
        results.close()
    assert service.calls < 30


def test_a_loop_that_is_left_leaves_no_task() -> None:
    async def run() -> set[str]:
        service = CountingService()
        async with AsyncClient("http://service", transport=httpx.MockTransport(service.nonblocking)) as asking:
            results = asking.detect_many(endless(), concurrency=2)
            async for _ in results:
                break
            await results.aclose()
        return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}

    assert asyncio.run(run()) == set()
