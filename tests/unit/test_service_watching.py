"""The middleware that measures requests, around applications that behave in every way."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metrics_page import samples
from service.metrics import Metrics
from service.watching import WatchMiddleware

COUNT = "heatquery_request_seconds_count{method=POST}{route=other}{status=%d}"


def ask(app: ASGIApp, metrics: Metrics, *incoming: Message, **scope: Any) -> list[Message]:
    """Send one request through the middleware; returns what was answered."""
    messages, answered = list(incoming), []

    async def receive() -> Message:
        return messages.pop(0)

    async def send(message: Message) -> None:
        answered.append(message)

    request = {"type": "http", "method": "POST", "path": "/x", "client": ("192.0.2.1", 1), **scope}
    asyncio.run(WatchMiddleware(app, metrics)(request, receive, send))  # pyright: ignore[reportArgumentType]
    return answered


async def answer_once_read(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then answer 200."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


async def fail(scope: Scope, receive: Receive, send: Send) -> None:
    """An error that nobody foresaw."""
    raise RuntimeError("nobody foresaw this")


async def wait_for_disconnect(scope: Scope, receive: Receive, send: Send) -> None:
    """Give up, without an answer, once the client has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


def test_a_client_that_left_before_its_answer_counts_as_499() -> None:
    metrics = Metrics()
    ask(wait_for_disconnect, metrics, {"type": "http.request"}, {"type": "http.disconnect"})
    assert samples(metrics.render("")[0])[COUNT % 499] == 1


def test_an_error_that_nobody_foresaw_counts_as_500_and_internal() -> None:
    metrics = Metrics()
    with pytest.raises(RuntimeError):
        ask(fail, metrics)
    page = samples(metrics.render("")[0])
    assert (page[COUNT % 500], page["heatquery_rejected_total{reason=internal}"]) == (1, 1)


def test_no_request_is_in_flight_after_an_error() -> None:
    metrics = Metrics()
    with pytest.raises(RuntimeError):
        ask(fail, metrics)
    assert samples(metrics.render("")[0])["heatquery_requests_in_flight"] == 0


def test_body_bytes_are_added_over_chunks() -> None:
    metrics = Metrics()
    chunks = [{"type": "http.request", "body": b"12345", "more_body": True}, {"type": "http.request", "body": b"678"}]
    ask(answer_once_read, metrics, *chunks)
    assert samples(metrics.render("")[0])["heatquery_request_body_bytes_sum{method=POST}{route=other}"] == 8


def test_methods_that_callers_make_up_are_one() -> None:
    metrics = Metrics()
    for method in ("FOO", "BAR"):
        ask(answer_once_read, metrics, {"type": "http.request"}, method=method)
    counted = [name for name in samples(metrics.render("")[0]) if name.startswith("heatquery_request_seconds_count")]
    assert counted == ["heatquery_request_seconds_count{method=other}{route=other}{status=200}"]


def test_a_request_is_one_line_of_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heatquery.access")
    ask(answer_once_read, Metrics(), {"type": "http.request", "body": b"1234"})
    (record,) = caplog.records
    fields = {name: getattr(record, name) for name in ("method", "route", "path", "status", "client")}
    assert fields == {"method": "POST", "route": "other", "path": "/x", "status": 200, "client": "192.0.2.1"}
    assert (getattr(record, "bytes_in", None), getattr(record, "bytes_out", None)) == (4, 2)


def test_a_query_string_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "heatquery.access")
    ask(answer_once_read, Metrics(), {"type": "http.request"}, query_string=b"token=secret")
    assert "secret" not in str([vars(record) for record in caplog.records])
