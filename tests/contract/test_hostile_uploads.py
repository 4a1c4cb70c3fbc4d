"""What a caller may do wrong, by accident or not: a clear 4xx, never a 500, never a word of the inside."""

import gzip
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from PIL import Image

Scene = Callable[..., Image.Image]
Encode = Callable[..., bytes]


def problem(answer: httpx.Response, status: int) -> dict:
    """Check that the answer is a proper problem+json of this status, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert "Traceback" not in answer.text
    return body


def send(client: httpx.Client, data: bytes, content_type: str = "image/png") -> httpx.Response:
    return client.post("/detect", content=data, headers={"Content-Type": content_type})


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels worth the name."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("percent", [30, 60, 90, 99])
def test_a_cut_picture_is_undecodable(
    client: httpx.Client, draw_scene: Scene, encode: Encode, kind: str, percent: int
) -> None:
    noisy = Image.effect_noise((200, 150), 60).convert("RGB")
    data = encode(noisy, kind)
    problem(send(client, data[: len(data) * percent // 100]), 400)


def test_an_empty_body_is_undecodable(client: httpx.Client) -> None:
    assert "0 bytes" in problem(send(client, b""), 400)["detail"]


def test_an_empty_file_part_is_undecodable(client: httpx.Client) -> None:
    problem(client.post("/detect", files={"file": ("a.png", b"", "image/png")}), 400)


def test_a_form_without_the_file_part_names_it(client: httpx.Client, scene_png: bytes) -> None:
    answer = client.post("/detect", files={"picture": ("a.png", scene_png, "image/png")})
    assert "'file'" in problem(answer, 422)["detail"]


def test_a_text_field_named_file_is_not_a_file(client: httpx.Client) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--x--\r\n'
    problem(send(client, body, "multipart/form-data; boundary=x"), 422)


@pytest.mark.parametrize("content_type", ["multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_broken_form_is_refused(client: httpx.Client, content_type: str) -> None:
    problem(send(client, b"this is no form", content_type), 400)


def test_ten_thousand_form_parts_are_refused(client: httpx.Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
    problem(send(client, part * 10_000 + b"--x--\r\n", "multipart/form-data; boundary=x"), 400)


def test_a_huge_text_field_is_refused(client: httpx.Client) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + b"1" * 2_000_000 + b"\r\n--x--\r\n"
    problem(send(client, body, "multipart/form-data; boundary=x"), 400)


def test_a_declared_length_over_the_limit_is_refused(make_client: Callable[..., httpx.Client]) -> None:
    client = make_client(max_upload_bytes=1000)
    assert "1,000 bytes" in problem(send(client, b"\x89PNG\r\n\x1a\n" + bytes(2000)), 413)["detail"]


def test_a_chunked_body_over_the_limit_is_refused(make_client: Callable[..., httpx.Client]) -> None:
    client = make_client(max_upload_bytes=1000)

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100)

    answer = client.post("/detect", content=chunks(), headers={"Content-Type": "image/png"})
    assert "1,000 bytes" in problem(answer, 413)["detail"]


def test_a_form_over_the_limit_is_refused(make_client: Callable[..., httpx.Client]) -> None:
    client = make_client(max_upload_bytes=1000)
    problem(client.post("/heatmap", files={"file": ("a.png", bytes(5000), "image/png")}), 413)


@pytest.mark.parametrize(("width", "height"), [(12_000, 12_000), (100_000, 100_000)])
def test_a_pixel_bomb_is_refused_by_its_header(client: httpx.Client, width: int, height: int) -> None:
    begun = time.perf_counter()
    assert "HEATQUERY_MAX_PIXELS" in problem(send(client, png_header(width, height)), 413)["detail"]
    assert time.perf_counter() - begun < 1


def test_a_picture_of_no_size_is_undecodable(client: httpx.Client) -> None:
    problem(send(client, png_header(0, 0)), 400)


def test_a_small_tiff_with_a_giant_tile_is_refused(client: httpx.Client) -> None:
    tags = [
        (256, 64),
        (257, 64),
        (258, 8),
        (259, 1),
        (262, 1),
        (277, 1),
        (322, 16384),
        (323, 16384),
        (324, 8),
        (325, 64),
    ]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    assert "tile" in problem(send(client, data, "image/tiff"), 413)["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        b"<!doctype html><img src=x onerror=alert(1)>",
        b'<VRTDataset rasterXSize="1"><SourceFilename>/vsicurl/http://127.0.0.1/x</SourceFilename></VRTDataset>',
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"\x00\x00\x00\x20ftypheic",
    ],
)
@pytest.mark.parametrize("content_type", ["image/tiff", "image/svg+xml", "application/octet-stream"])
def test_what_only_claims_to_be_an_image_is_not_opened(client: httpx.Client, content: bytes, content_type: str) -> None:
    problem(send(client, content, content_type), 415)


@pytest.mark.parametrize("content_type", ["text/html", "application/json", "application/x-www-form-urlencoded"])
def test_another_content_type_is_refused(client: httpx.Client, scene_png: bytes, content_type: str) -> None:
    assert "image/jpeg" in problem(send(client, scene_png, content_type), 415)["detail"]


def test_a_part_of_another_content_type_is_refused(client: httpx.Client, scene_png: bytes) -> None:
    problem(client.post("/detect", files={"file": ("a.html", scene_png, "text/html")}), 415)


@pytest.mark.parametrize("honest", [True, False])
def test_a_content_coding_is_refused_not_unpacked(client: httpx.Client, scene_png: bytes, honest: bool) -> None:
    data = gzip.compress(scene_png) if honest else scene_png
    headers = {"Content-Type": "image/png", "Content-Encoding": "gzip"}
    assert "gzip" in problem(client.post("/detect", content=data, headers=headers), 415)["detail"]


@pytest.mark.parametrize("threshold", ["nan", "inf", "-inf", "-1", "2", "", "high"])
def test_a_threshold_outside_zero_to_one_is_refused(client: httpx.Client, scene_png: bytes, threshold: str) -> None:
    answer = client.post(f"/detect?threshold={threshold}", files={"file": scene_png})
    assert problem(answer, 422)["errors"][0]["parameter"] == "threshold"


@pytest.mark.parametrize("query", ["max_detections=0", "max_detections=1501", "max_detections=x", "treshold=0.5"])
def test_other_wrong_parameters_are_refused(client: httpx.Client, scene_png: bytes, query: str) -> None:
    problem(client.post(f"/detect?{query}", files={"file": scene_png}), 422)


def test_an_unknown_class_is_answered_with_the_nearest(client: httpx.Client, scene_png: bytes) -> None:
    answer = client.post("/detect?classes=red+sqare", files={"file": scene_png})
    assert "'red square'" in problem(answer, 422)["detail"]


def test_a_script_behind_a_jpeg_is_ignored(client: httpx.Client, draw_scene: Scene, encode: Encode) -> None:
    data = encode(draw_scene(320, 240, (64, 64, 64, "red")), "JPEG") + b"<script>alert(1)</script>"
    assert len(send(client, data, "image/jpeg").json()["detections"]) == 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "BMP"])
def test_flipped_bits_never_break_the_service(client: httpx.Client, encode: Encode, kind: str) -> None:
    data = encode(Image.effect_noise((64, 48), 60).convert("RGB"), kind)
    for position in range(12, len(data), max(1, len(data) // 40)):
        damaged = data[:position] + bytes([data[position] ^ 0xFF]) + data[position + 1 :]
        answer = send(client, damaged)
        assert answer.status_code in (200, 400, 413, 415), answer.text


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_beside_sound_pixels_is_ignored(client: httpx.Client, draw_scene: Scene, encode: Encode) -> None:
    data = encode(draw_scene(320, 240, (64, 64, 64, "red")), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert len(send(client, data).json()["detections"]) == 1


def test_an_unknown_path_is_a_problem_too(client: httpx.Client) -> None:
    problem(client.get("/nothing"), 404)


def test_a_wrong_method_is_a_problem_too(client: httpx.Client) -> None:
    problem(client.get("/detect"), 405)


def test_an_unknown_model_is_404(client: httpx.Client) -> None:
    problem(client.get("/models/..%2f..%2fetc"), 404)
    problem(client.get("/models/other"), 404)


def test_the_request_id_of_the_caller_comes_back(client: httpx.Client) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "job-17.a_b"}).headers["x-request-id"] == "job-17.a_b"


@pytest.mark.parametrize("given", ["", "a b", "x" * 65, "<script>", "a;b"])
def test_a_doubtful_request_id_is_replaced(client: httpx.Client, given: str) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given})
    assert answer.headers["x-request-id"] != given
    assert len(answer.headers["x-request-id"]) == 32


def talk(client: httpx.Client, data: bytes, seconds: float) -> bytes:
    """Send raw bytes, then wait for whatever comes until the server closes."""
    with socket.create_connection(("127.0.0.1", client.base_url.port or 0), timeout=seconds) as connection:
        connection.sendall(data)
        received = b""
        while part := connection.recv(65536):
            received += part
        return received


def test_a_body_that_never_ends_is_given_up(make_client: Callable[..., httpx.Client]) -> None:
    client = make_client(body_seconds=0.3)
    head = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 1000\r\n\r\n"
    answer = talk(client, head + b"\x89PNG", seconds=5)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"application/problem+json" in answer


def test_more_bytes_than_declared_are_not_read_as_picture(client: httpx.Client) -> None:
    head = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    head += b"Content-Length: 4\r\nConnection: close\r\n\r\n"
    answer = talk(client, head + b"\x89PNG" + bytes(100), seconds=5)
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 415"))


def test_uploads_are_never_written_to_disk(
    make_client: Callable[..., httpx.Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    client = make_client()
    monkeypatch.setattr("tempfile.TemporaryFile", lambda *_, **__: pytest.fail("a temporary file was made"))
    big = Image.effect_noise((1500, 1100), 90).convert("RGB")
    big.save(tmp_path / "big.bmp")  # 5 MB: above the size at which the form parser would use a file
    answer = client.post("/detect", files={"file": (tmp_path / "big.bmp").read_bytes()})
    assert answer.status_code == 200
