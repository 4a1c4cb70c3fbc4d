"""What the clients repeat, how long they wait, and when they give up; no test waits."""

from collections.abc import Iterator
from dataclasses import replace
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from both_clients import Connect, pretend_to_sleep
from service.client import HeatqueryError, ProblemError, RetryPolicy, UnreachableError
from service.client.retries import read_retry_after

ADDRESS = "http://service"
NOW = 1_800_000_000.0
GOOD = httpx.Response(200, json=[])
QUEUE_FULL = httpx.Response(
    429,
    headers={"Content-Type": "application/problem+json", "Retry-After": "1", "X-Request-ID": "r-7"},
    json={"type": "urn:heatquery:problem:queue-full", "title": "Too many calls", "detail": "2 wait", "status": 429},
)


class Clock:
    """Time that passes by sleeping alone, and jitter that is always the longest."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.waits.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("service.client.retries.monotonic", lambda: clock.now)
    monkeypatch.setattr("service.client.retries.wall_clock", lambda: NOW + clock.now)
    monkeypatch.setattr("service.client.retries.uniform", lambda low, high: high)
    pretend_to_sleep(monkeypatch, clock.sleep)
    return clock


class Script:
    """A service that gives these answers, one a request and the last for ever."""

    def __init__(self, *answers: httpx.Response | type[httpx.TransportError]) -> None:
        self._answers: Iterator[Any] = iter(answers)
        self._last: Any = None
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self._last = next(self._answers, self._last)
        if isinstance(self._last, httpx.Response):
            return httpx.Response(self._last.status_code, headers=self._last.headers, content=self._last.content)
        raise self._last("broken")


def ask(connect: Connect, script: Script, **policy: Any) -> Any:
    options = {"retries": RetryPolicy(**policy)} if policy else {}
    return connect(ADDRESS, transport=httpx.MockTransport(script), **options).models()


@pytest.mark.parametrize("status", [429, 503])
def test_a_call_is_repeated_where_the_service_asks_for_it(connect: Connect, clock: Clock, status: int) -> None:
    script = Script(httpx.Response(status), httpx.Response(status), GOOD)
    assert ask(connect, script) == []
    assert clock.waits == [0.2, 0.4]


def test_waits_double_up_to_the_longest(connect: Connect, clock: Clock) -> None:
    ask(connect, Script(*[httpx.Response(503)] * 5, GOOD), first_wait=1, longest_wait=3)
    assert clock.waits == [1, 2, 3, 3, 3]


def test_waits_are_drawn_from_zero_on(connect: Connect, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.client.retries.uniform", lambda low, high: low)
    ask(connect, Script(*[httpx.Response(503)] * 3, GOOD))
    assert clock.waits == [0, 0, 0]


def test_retry_after_in_seconds_is_the_least_wait(connect: Connect, clock: Clock) -> None:
    ask(connect, Script(httpx.Response(503, headers={"Retry-After": "7"}), GOOD))
    assert clock.waits == [pytest.approx(7.2)]


def test_retry_after_as_a_date_is_the_least_wait(connect: Connect, clock: Clock) -> None:
    date = formatdate(NOW + 30, usegmt=True)
    ask(connect, Script(httpx.Response(429, headers={"Retry-After": date}), GOOD))
    assert clock.waits == [pytest.approx(30.2)]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("", 0), ("soon", 0), ("-3", 0), ("1.5", 0), ("120", 120), (formatdate(NOW - 60, usegmt=True), 0)],
)
def test_a_retry_after_that_says_nothing_is_no_wait(header: str, seconds: float) -> None:
    assert read_retry_after(header) == seconds


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500, 502, 504, 507])
def test_no_other_status_is_repeated(connect: Connect, status: int) -> None:
    script = Script(httpx.Response(status))
    with pytest.raises(ProblemError) as caught:
        ask(connect, script)
    assert (caught.value.status, len(script.requests)) == (status, 1)


@pytest.mark.parametrize("failure", [httpx.ConnectError, httpx.ConnectTimeout])
def test_a_connection_that_does_not_come_about_is_tried_again(
    connect: Connect, failure: type[httpx.TransportError]
) -> None:
    script = Script(failure, failure, failure, GOOD)
    assert ask(connect, script) == []
    assert len(script.requests) == 4


@pytest.mark.parametrize("failure", [httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError])
def test_a_connection_that_broke_is_tried_once_more(connect: Connect, failure: type[httpx.TransportError]) -> None:
    assert ask(connect, Script(failure, httpx.ConnectError, httpx.Response(503), GOOD)) == []
    script = Script(failure)
    with pytest.raises(UnreachableError, match="the connection broke, with 0 bytes to send"):
        ask(connect, script)
    assert len(script.requests) == 2


def test_an_answer_that_does_not_come_is_not_asked_for_again(connect: Connect) -> None:
    script = Script(httpx.ReadTimeout)
    with pytest.raises(UnreachableError, match="no answer from http://service: broken"):
        ask(connect, script)
    assert len(script.requests) == 1


def test_the_last_refusal_is_raised_after_all_tries(connect: Connect) -> None:
    script = Script(QUEUE_FULL)
    with pytest.raises(ProblemError, match="429 Too many calls: 2 wait") as caught:
        ask(connect, script, tries=3)
    assert (caught.value.type, caught.value.request_id) == ("urn:heatquery:problem:queue-full", "r-7")
    assert len(script.requests) == 3
    assert caught.value.__notes__ == ["sent 3 times in 2.6 s; another would begin 1.8 s later (see RetryPolicy)"]


def test_no_try_begins_beyond_the_deadline(connect: Connect, clock: Clock) -> None:
    script = Script(httpx.Response(503, headers={"Retry-After": "4"}))
    with pytest.raises(ProblemError):
        ask(connect, script, deadline=10, first_wait=0.1)
    assert len(script.requests) == 3
    assert clock.now < 10


def test_a_wait_beyond_the_deadline_is_not_begun(connect: Connect, clock: Clock) -> None:
    with pytest.raises(ProblemError):
        ask(connect, Script(httpx.Response(503, headers={"Retry-After": "3600"})))
    assert clock.waits == []


def test_a_try_waits_no_longer_than_what_is_left(connect: Connect) -> None:
    script = Script(httpx.Response(503, headers={"Retry-After": "4"}), GOOD)
    ask(connect, script, deadline=10, first_wait=1)
    timeouts = [request.extensions["timeout"]["read"] for request in script.requests]
    assert timeouts == [10, 5]


def test_a_repeated_call_sends_the_same_picture(connect: Connect, tmp_path: Any) -> None:
    (tmp_path / "a.png").write_bytes(b"picture")
    script = Script(httpx.Response(503), httpx.Response(422))
    asking = connect(ADDRESS, transport=httpx.MockTransport(script))
    with (tmp_path / "a.png").open("rb") as file, pytest.raises(ProblemError):
        asking.detect(file)
    assert [request.content for request in script.requests] == [b"picture", b"picture"]


def test_the_api_key_goes_with_every_try(connect: Connect) -> None:
    script = Script(httpx.Response(503), GOOD)
    connect(ADDRESS, api_key="secret", transport=httpx.MockTransport(script)).models()
    assert [request.headers["X-API-Key"] for request in script.requests] == ["secret", "secret"]


def test_a_redirect_is_not_followed_and_said(connect: Connect) -> None:
    script = Script(httpx.Response(307, headers={"Location": "http://elsewhere/"}))
    with pytest.raises(HeatqueryError, match="http://service/models answered 307"):
        ask(connect, script)


def test_an_answer_of_another_program_is_said_to_be_one(connect: Connect) -> None:
    with pytest.raises(HeatqueryError, match="is this the address of a heatquery service"):
        ask(connect, Script(httpx.Response(200, html="<h1>Welcome</h1>")))


def test_a_proxy_in_front_is_quoted(connect: Connect) -> None:
    with pytest.raises(ProblemError, match="502 Bad Gateway: upstream is down") as caught:
        ask(connect, Script(httpx.Response(502, text="upstream is down")))
    assert caught.value.type == "about:blank"


def test_waiting_for_ready_asks_until_it_is(connect: Connect, clock: Clock) -> None:
    loading = httpx.Response(503, headers={"Retry-After": "5"})
    ready = httpx.Response(200, json={"status": "ready"})
    script = Script(httpx.ConnectError, httpx.ConnectError, loading, loading, ready)
    connect(ADDRESS, transport=httpx.MockTransport(script)).wait_until_ready()
    assert clock.waits == [0.2, 0.4, 0.8, 1.0]


def test_waiting_for_ready_ends_with_the_reason(connect: Connect, clock: Clock) -> None:
    asking = connect(ADDRESS, transport=httpx.MockTransport(Script(httpx.Response(503, text="no model"))))
    with pytest.raises(ProblemError, match="no model"):
        asking.wait_until_ready(30)
    assert 28 < clock.now < 30


@pytest.mark.parametrize("field", ["deadline", "tries", "first_wait", "longest_wait"])
def test_a_policy_without_room_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} is 0; it must be above 0"):
        replace(RetryPolicy(), **{field: 0})
