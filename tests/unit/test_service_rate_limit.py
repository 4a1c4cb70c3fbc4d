"""Counting calls: the window, its bounds in memory, who a caller is, and Redis that is away."""

import asyncio
import logging
from types import SimpleNamespace
from typing import Any

import pytest
from limits import RateLimitItem, parse

from redis_server import RedisServer
from service import rate_limit
from service.rate_limit import BoundedMemory, RateLimiter, Verdict, caller_of, is_expensive


class Clock:
    """Time that passes when told to."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the window; 1,000,000 is the begin of one of 10 seconds."""
    clock = Clock()
    monkeypatch.setattr(rate_limit, "time", clock)
    monkeypatch.setattr("limits.aio.strategies.time", SimpleNamespace(time=clock))
    return clock


@pytest.fixture
def three_in_ten() -> RateLimitItem:
    return parse("3/10 seconds")


def take(limiter: RateLimiter, times: int, caller: str = "a") -> list[bool | None]:
    async def calls() -> list[bool | None]:
        verdicts = [await limiter.take(caller) for _ in range(times)]
        return [verdict and verdict.allowed for verdict in verdicts]

    return asyncio.run(calls())


def test_calls_beyond_the_limit_are_refused(clock: Clock, three_in_ten: RateLimitItem) -> None:
    assert take(RateLimiter(three_in_ten), 5) == [True, True, True, False, False]


def test_another_caller_has_a_count_of_its_own(clock: Clock, three_in_ten: RateLimitItem) -> None:
    limiter = RateLimiter(three_in_ten)
    take(limiter, 5, "a")
    assert take(limiter, 1, "b") == [True]


def test_a_new_window_does_not_forget_the_last_one_at_once(clock: Clock, three_in_ten: RateLimitItem) -> None:
    limiter = RateLimiter(three_in_ten)
    take(limiter, 3)
    clock.now += 15  # half of the last window, 1.5 calls, still counts
    assert take(limiter, 3) == [True, True, False]


def test_two_windows_later_everything_is_forgotten(clock: Clock, three_in_ten: RateLimitItem) -> None:
    limiter = RateLimiter(three_in_ten)
    take(limiter, 3)
    clock.now += 20
    assert take(limiter, 4) == [True, True, True, False]


def test_a_verdict_says_what_is_left_and_when_more_comes(clock: Clock, three_in_ten: RateLimitItem) -> None:
    limiter = RateLimiter(three_in_ten)
    clock.now += 4
    assert asyncio.run(limiter.take("a")) == (True, 2, 7)


def test_after_the_seconds_that_a_refusal_names_a_call_is_allowed(clock: Clock, three_in_ten: RateLimitItem) -> None:
    limiter = RateLimiter(three_in_ten)
    clock.now += 1
    take(limiter, 3)
    refusal = asyncio.run(limiter.take("a"))
    assert refusal is not None
    clock.now += refusal.reset_seconds
    assert take(limiter, 1) == [True]


def test_memory_stays_bounded_under_many_callers(clock: Clock) -> None:
    memory = BoundedMemory(max_callers=100)

    async def many() -> None:
        for number in range(1000):
            await memory.acquire_sliding_window_entry(f"caller-{number}", 5, 60)

    asyncio.run(many())
    assert len(memory._windows) == 100


def test_the_caller_seen_longest_ago_is_forgotten_first(clock: Clock) -> None:
    memory = BoundedMemory(max_callers=2)

    async def counts() -> list[int]:
        for key in ("a", "b", "a", "c"):
            await memory.acquire_sliding_window_entry(key, 5, 60)
        return [(await memory.get_sliding_window(key, 60))[2] for key in "abc"]

    assert asyncio.run(counts()) == [2, 0, 1]


def scope(**changes: Any) -> dict[str, Any]:
    return {"type": "http", "method": "POST", "path": "/detect", "client": ("192.0.2.7", 1234), **changes}


@pytest.mark.parametrize(
    ("changes", "caller"),
    [
        ({}, "192.0.2.7"),
        ({"client": ("2001:db8:1:2:3:4:5:6", 1)}, "20010db800010002/64"),
        ({"client": ("2001:db8:1:2:ffff::1", 1)}, "20010db800010002/64"),
        ({"client": ("::ffff:192.0.2.7", 1)}, "192.0.2.7"),
        ({"client": None}, "unknown"),
        ({"client": ("a proxy's word", 0)}, "a proxy's word"),
        ({"state": {"caller": "0a1b2c"}}, "0a1b2c"),
    ],
)
def test_a_caller_is_a_key_or_an_address(changes: dict[str, Any], caller: str) -> None:
    assert caller_of(scope(**changes)) == caller


@pytest.mark.parametrize(
    ("method", "path", "counts"),
    [
        ("POST", "/detect", True),
        ("POST", "/predict", True),
        ("GET", "/heatmap", True),
        ("GET", "/scenes/0a1b/result", True),
        ("GET", "/scenes/0a1b/preview", True),
        ("GET", "/scenes/0a1b", False),
        ("GET", "/models", False),
        ("GET", "/readyz", False),
        ("HEAD", "/livez", False),
        ("OPTIONS", "/detect", False),
    ],
)
def test_calls_that_work_the_model_count(method: str, path: str, counts: bool) -> None:
    assert is_expensive(scope(method=method, path=path)) is counts


@pytest.fixture
def shared(redis_server: RedisServer, three_in_ten: RateLimitItem) -> list[RateLimiter]:
    """Limiters of two replicas with one Redis."""
    return [RateLimiter(three_in_ten, redis_server.url) for _ in range(2)]


def test_replicas_share_a_count_in_redis(shared: list[RateLimiter]) -> None:
    async def calls() -> list[bool | None]:
        verdicts = [await shared[number % 2].take("a") for number in range(5)]
        for limiter in shared:
            await limiter.close()
        return [verdict and verdict.allowed for verdict in verdicts]

    assert asyncio.run(calls()) == [True, True, True, False, False]


def test_redis_that_is_away_lets_calls_through_and_is_named_once(
    redis_server: RedisServer, three_in_ten: RateLimitItem, caplog: pytest.LogCaptureFixture
) -> None:
    redis_server.kill()

    async def calls() -> list[Verdict | None]:
        limiter = RateLimiter(three_in_ten, redis_server.url)
        verdicts = [await limiter.take("a") for _ in range(5)]
        limiter._paused_until = 0.1  # the pause is over
        verdicts.append(await limiter.take("a"))
        await limiter.close()
        return verdicts

    assert asyncio.run(calls()) == [None] * 6
    (record,) = [record for record in caplog.records if record.name == "heatquery"]
    assert (record.levelno, "Redis does not answer" in record.getMessage()) == (logging.ERROR, True)


def test_a_count_goes_on_when_redis_is_back(redis_server: RedisServer, three_in_ten: RateLimitItem) -> None:
    redis_server.kill()

    async def calls() -> list[bool]:
        limiter = RateLimiter(three_in_ten, redis_server.url)
        away = await limiter.take("a")
        redis_server.start()
        limiter._paused_until = 0.1  # the pause is over
        back = await limiter.take("a")
        await limiter.close()
        return [away is None, back is not None and back.allowed]

    assert asyncio.run(calls()) == [True, True]
