"""Connections as they come from the network: slow, endless, malformed or never read. Real sockets throughout."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from service.server import MAX_HEAD_BYTES, MAX_PIPELINED

MakeClient = Callable[..., httpx.Client]


def connect(client: httpx.Client) -> socket.socket:
    return socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10)


def read_to_end(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset counts as the end."""
    received = b""
    try:
        while chunk := connection.recv(65536):
            received += chunk
    except ConnectionResetError:
        pass
    return received


def ask(client: httpx.Client, request: bytes) -> bytes:
    """What comes back for exactly these bytes, on a connection that we do not close first."""
    with connect(client) as connection:
        connection.sendall(request)
        return read_to_end(connection)


@contextmanager
def seconds_between(low: float, high: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert low <= time.monotonic() - begun <= high


def test_a_connection_that_says_nothing_is_closed(make_client: MakeClient) -> None:
    client = make_client(header_seconds=0.5)
    with connect(client) as connection, seconds_between(0.3, 5):
        assert read_to_end(connection) == b""


def test_a_head_that_trickles_in_gets_408(make_client: MakeClient) -> None:
    client = make_client(header_seconds=0.5)
    with connect(client) as connection, seconds_between(0.3, 5):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
        for _ in range(4):
            time.sleep(0.05)
            connection.sendall(b"X-Slow: 1\r\n")
        answer = read_to_end(connection)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"HEATQUERY_HEADER_SECONDS" in answer


def test_the_second_head_on_a_connection_has_a_deadline_too(make_client: MakeClient) -> None:
    client = make_client(header_seconds=0.5)
    with connect(client) as connection, seconds_between(0.3, 5):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"GET /livez HTTP/1.1\r\n")
        assert b" 408 " in read_to_end(connection)


def test_line_ends_between_requests_do_not_hold_a_connection(make_client: MakeClient) -> None:
    client = make_client(header_seconds=0.5)
    with connect(client) as connection, seconds_between(0.3, 4):
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(b"\r\n")
        assert read_to_end(connection) == b""


def test_a_body_that_nobody_wants_does_not_hold_a_connection(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.server._BODY_MARGIN_SECONDS", 1.7)  # after the 404
    client = make_client(body_seconds=0.3)
    with connect(client) as connection, seconds_between(1, 6):
        connection.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        assert b" 404 " in read_to_end(connection)


def test_a_head_without_end_gets_431(make_client: MakeClient) -> None:
    client = make_client()
    with connect(client) as connection:
        connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ")
        for _ in range(40):
            time.sleep(0.01)
            try:
                connection.sendall(b"a" * 8192)
            except OSError:
                break
        assert b" 431 " in read_to_end(connection)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * MAX_HEAD_BYTES,
        b"GET /livez?" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: x",
        b"GET /livez HTTP/1.1\r\nHost: x" + b"\r\na:b" * 20_000,
    ],
    ids=["header", "address", "number of headers"],
)
def test_a_complete_head_over_the_limit_gets_431(client: httpx.Client, head: bytes) -> None:
    assert ask(client, head + b"\r\n\r\n").startswith(b"HTTP/1.1 431 ")


def test_a_long_head_under_the_limit_is_served(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"X-Long": "a" * (MAX_HEAD_BYTES - 1000)}).status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /livez HTTP/9.9\r\nHost: x\r\n\r\n",
        b"CONNECT internal:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"POST /detect HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
    ids=lambda data: repr(data[:60]),
)
def test_bytes_that_are_not_http_get_400(client: httpx.Client, request_bytes: bytes) -> None:
    answer = ask(client, request_bytes)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/problem+json" in answer.lower()
    assert client.get("/livez").status_code == 200


def test_http_1_0_is_answered_and_closed(client: httpx.Client) -> None:
    answer = ask(client, b"GET /livez HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_upgrade_that_nobody_offers_is_answered_as_plain_http(client: httpx.Client) -> None:
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    answer = ask(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n" + upgrade + b"Sec-WebSocket-Key: eA==\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_few_pipelined_requests_are_answered_in_order(client: httpx.Client) -> None:
    paths = [b"/livez", b"/nothing", b"/livez"]
    requests = b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in paths[:-1])
    answer = ask(client, requests + b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"404", b"200"]


def test_thousands_of_pipelined_requests_end_the_connection(client: httpx.Client) -> None:
    answer = ask(client, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
    assert answer.count(b" 200 OK") <= MAX_PIPELINED
    assert client.get("/livez").status_code == 200


def test_a_connection_over_the_limit_gets_503_and_the_others_go_on(make_client: MakeClient) -> None:
    client = make_client(connections=3)
    client.get("/livez")  # the client's own connection is one of the three
    with connect(client), connect(client):
        time.sleep(0.2)
        with connect(client) as refused:
            assert read_to_end(refused).startswith(b"HTTP/1.1 503 ")
        assert client.get("/livez").status_code == 200


def test_a_closed_connection_makes_room(make_client: MakeClient) -> None:
    client = make_client(connections=2)
    client.get("/livez")
    for _ in range(5):
        with connect(client) as connection:
            connection.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert read_to_end(connection).startswith(b"HTTP/1.1 200 ")
        time.sleep(0.1)


def test_an_answer_that_is_never_read_ends_its_connection(make_client: MakeClient) -> None:
    client = make_client(reader_seconds=1)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((client.base_url.host, client.base_url.port or 80))
    with connection:
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * MAX_PIPELINED)
        time.sleep(3)  # less than uvicorn's own 5 s between requests
        assert len(read_to_end(connection)) < len(client.get("/openapi.json").content) * MAX_PIPELINED


def test_an_answer_that_is_read_slowly_arrives_whole(make_client: MakeClient) -> None:
    client = make_client(reader_seconds=1)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((client.base_url.host, client.base_url.port or 80))
    last = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = 0
    with connection, seconds_between(1.1, 20):
        connection.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * (MAX_PIPELINED - 1) + last)
        while chunk := connection.recv(8192):
            received += len(chunk)
            time.sleep(0.01)
    assert received > len(client.get("/openapi.json").content) * MAX_PIPELINED
