"""TIFF directories that lie or are cut: a picture or a clear 4xx, soon, and no memory for what is only claimed."""

import time

import httpx
import pytest
from fuzzing import resident_bytes
from tiff_lies import LENGTH, LIES, STRIP_BYTES, STRIP_OFFSET, WIDTH, tiff

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")  # as the service does; raised, they would refuse more


def send(client: httpx.Client, data: bytes) -> httpx.Response:
    return client.post("/detect", content=data, headers={"Content-Type": "image/tiff"})


def test_the_directory_that_the_others_are_made_of_is_sound(client: httpx.Client) -> None:
    answer = send(client, tiff())
    assert (answer.status_code, answer.json()["width"]) == (200, 8)


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_that_lies_is_refused_soon_and_takes_no_memory(client: httpx.Client, lie: str) -> None:
    before, begun = resident_bytes(client), time.monotonic()
    answer = send(client, LIES[lie])
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")
    assert time.monotonic() - begun < 2
    assert resident_bytes(client) - before < 100e6


@pytest.mark.parametrize("following", [8 + 64, 2**31], ids=["itself", "beyond the end"])
def test_a_next_directory_that_lies_does_not_spoil_the_first_picture(client: httpx.Client, following: int) -> None:
    assert send(client, tiff(following=following)).status_code == 200


def test_what_damages_the_header_is_refused_without_an_address_in_memory(client: httpx.Client) -> None:
    assert "0x" not in send(client, LIES["no directory"]).json()["detail"]


@pytest.mark.parametrize("side", [200_000, 2**32 - 1])
def test_a_sparse_tiff_of_giant_sides_is_refused_by_its_header(client: httpx.Client, side: int) -> None:
    assert send(client, tiff({WIDTH: side, LENGTH: side, STRIP_OFFSET: 0, STRIP_BYTES: 0})).status_code == 413
