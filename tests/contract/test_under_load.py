"""Ten times the load, clients that leave mid-response, a mix of everything, and no memory left, for a few seconds each.

The long ones are in benchmarks/serving.py.
"""

import asyncio
import itertools
import os
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
import pytest
from fuzzing import resident_bytes
from PIL import Image

from benchmarks.load import Address, Answer, closed_loop, upload
from metrics_page import samples
from toy_service import wait_until

MakeClient = Callable[..., httpx.Client]
PLACES, CALLERS, DEADLINE_SECONDS = 4, 40, 30.0


@pytest.fixture(scope="module")
def noisy_png() -> bytes:
    """A picture whose heat map takes megabytes, so that an answer does not fit in the buffers of a connection."""
    buffer = BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (960, 1280, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def leave_mid_response(client: httpx.Client, picture: bytes) -> None:
    """Ask for a heat map, read the first bytes of it and reset the connection."""
    head = "POST /heatmap?tile=off HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(picture)}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(60)
        connection.connect((client.base_url.host, client.base_url.port or 80))
        connection.sendall(head.encode() + picture)
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_clients_that_leave_mid_response_harm_nobody(
    make_client: MakeClient, scene_png: bytes, noisy_png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    client = make_client(queue=4, lanes=1, batch=4)
    with ThreadPoolExecutor(4) as callers:
        leavers = [callers.submit(leave_mid_response, client, noisy_png) for _ in range(2)]
        stayers = [callers.submit(client.post, "/detect", files={"file": scene_png}) for _ in range(2)]
        assert [len(call.result().json()["detections"]) for call in stayers] == [2, 2]
        for leaver in leavers:
            leaver.result()
    wait_until(lambda: samples(client.get("/metrics").text)["heatquery_requests_in_flight"] <= 1)  # this one
    assert not [record for record in caplog.records if record.name == "heatquery"]


def load(client: httpx.Client, picture: bytes, callers: int, seconds: float) -> list[Answer]:
    address = Address(client.base_url.host, client.base_url.port or 80)
    calls = itertools.repeat(upload("scene", picture))
    return asyncio.run(closed_loop(address, calls, callers, seconds))


def test_ten_times_the_load_is_refused_at_once_and_what_is_taken_keeps_its_deadline(
    make_client: MakeClient, scene_png: bytes
) -> None:
    client = make_client(queue=PLACES, deadline_seconds=DEADLINE_SECONDS, heat_store_bytes=0)
    load(client, scene_png, CALLERS, seconds=0.5)  # warm
    before = resident_bytes(client)
    answers = load(client, scene_png, CALLERS, seconds=2.5)
    statuses = Counter(answer.status for answer in answers)
    taken = [answer.done - answer.sent for answer in answers if answer.status == 200]
    refused = [answer.done - answer.sent for answer in answers if answer.status == 429]
    assert set(statuses) == {200, 429}
    assert np.percentile(taken, 99) < DEADLINE_SECONDS
    assert np.median(refused) < np.median(taken)
    assert resident_bytes(client) - before < 50e6
    assert client.post("/detect", files={"file": scene_png}).status_code == 200


def of_every_kind() -> list[bytes]:
    """Pictures from one pixel to half a megapixel in every type."""
    noise = np.random.default_rng(0).integers(0, 256, (900, 800, 4), dtype=np.uint8)
    pictures: list[bytes] = []
    for width, height in ((1, 1), (64, 64), (33, 900), (321, 240), (800, 600)):
        image = Image.fromarray(noise[:height, :width])
        deep = Image.fromarray(noise[:height, :width, 0].astype(np.uint16) * 16)
        for kind, drawn in (
            ("JPEG", image.convert("RGB")),
            ("PNG", image),
            ("WEBP", image.convert("RGB")),
            ("BMP", image.convert("L")),
            ("GIF", image.convert("L")),
            ("TIFF", deep),
        ):
            buffer = BytesIO()
            drawn.save(buffer, kind)
            pictures.append(buffer.getvalue())
    return pictures


def test_mixed_sizes_leave_no_memory_threads_or_files_behind(make_client: MakeClient) -> None:
    client = make_client(heat_store_bytes=8 * 1024**2)
    pictures = [*of_every_kind(), b"", b"GIF89a", b"<svg/>"]

    def call_all() -> tuple[float, int, int]:
        for picture in pictures:
            client.post("/detect?tile=off", content=picture, headers={"Content-Type": "image/png"})
        client.post("/heatmap", content=pictures[-4], headers={"Content-Type": "image/png"})
        return resident_bytes(client) / 1e6, threading.active_count(), len(os.listdir("/proc/self/fd"))

    call_all()
    (megabytes, threads, files), *_, last = [call_all() for _ in range(3)]
    assert last[0] - megabytes < 30
    assert (last[1], last[2]) == (threads, files)


def test_a_graph_that_runs_out_of_memory_is_503_and_the_next_call_works(
    make_client: MakeClient, monkeypatch: pytest.MonkeyPatch, scene_png: bytes
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer of size 1")

    with monkeypatch.context() as patch:
        patch.setattr("onnxruntime.InferenceSession.run_with_iobinding", fail)
        answer = client.post("/detect", files={"file": scene_png})
    assert (answer.status_code, answer.json()["type"]) == (503, "urn:heatquery:problem:out-of-memory")
    assert client.post("/detect", files={"file": scene_png}).status_code == 200
