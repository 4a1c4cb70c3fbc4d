"""What a stranger can and cannot do: keys, limits, headers, origins, and nothing fetched, written or given away."""

import json
import os
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from service.headers import SECURITY_HEADERS
from service.server import ListenError, listen
from service.settings import Settings

MakeClient = Callable[..., httpx.Client]
KEYS = ("alice-0123456789abcdef", "bob-0123456789abcdef00")
OTHER = "https://maps.example"


@pytest.fixture
def guarded(make_client: MakeClient) -> httpx.Client:
    """A client without a key of a service that wants one."""
    return make_client(api_keys=",".join(KEYS))


@pytest.mark.parametrize("path", ["/detect", "/heatmap", "/setup", "/predict"])
def test_a_call_without_a_key_gets_401(guarded: httpx.Client, path: str, scene_png: bytes) -> None:
    answer = guarded.post(path, files={"file": scene_png})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:heatquery:problem:unauthorized"


@pytest.mark.parametrize("path", ["/models", "/models/toy", "/v2/models/toy", "/heatmap?image_id=x", "/nothing"])
def test_reading_needs_a_key_too(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 401


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"])
def test_probes_and_pages_are_open(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 200


@pytest.mark.parametrize("key", KEYS)
def test_every_key_opens(guarded: httpx.Client, key: str, scene_png: bytes) -> None:
    assert guarded.post("/detect", files={"file": scene_png}, headers={"X-API-Key": key}).status_code == 200
    assert guarded.get("/models", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    assert guarded.get("/models", auth=("anyone", key)).status_code == 200


def test_a_wrong_key_is_not_repeated(guarded: httpx.Client) -> None:
    answer = guarded.get("/models", headers={"X-API-Key": "mallory-0123456789"})
    assert answer.status_code == 401
    assert "mallory" not in answer.text


def test_a_body_without_a_key_is_not_waited_for(guarded: httpx.Client) -> None:
    with socket.create_connection((guarded.base_url.host, guarded.base_url.port or 80), timeout=10) as connection:
        head = b"POST /detect HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: 9999999\r\n"
        connection.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_the_schema_names_the_key_where_one_is_wanted(guarded: httpx.Client, client: httpx.Client) -> None:
    assert "securitySchemes" in guarded.get("/openapi.json").json()["components"]
    assert "securitySchemes" not in client.get("/openapi.json").json()["components"]


def test_calls_beyond_the_rate_get_429_and_probes_do_not(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client(rate_limit="2/hour")
    answers = [client.post("/detect", files={"file": scene_png}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert answers[2].json()["type"] == "urn:heatquery:problem:rate-limit"
    assert 1 <= int(answers[2].headers["retry-after"]) <= 3601
    assert client.get("/readyz").status_code == 200


def test_counted_answers_say_what_is_left(make_client: MakeClient, scene_png: bytes) -> None:
    answer = make_client(rate_limit="5/hour").post("/detect", files={"file": scene_png})
    assert answer.headers["ratelimit-policy"] == '"calls";q=5;w=3600'
    assert answer.headers["ratelimit"].startswith('"calls";r=4;t=')


def test_each_key_has_a_rate_of_its_own(make_client: MakeClient, scene_png: bytes) -> None:
    client = make_client(rate_limit="1/hour", api_keys=",".join(KEYS))
    callers = [KEYS[0], KEYS[0], KEYS[1]]
    answers = [client.post("/detect", files={"file": scene_png}, headers={"X-API-Key": key}) for key in callers]
    assert [answer.status_code for answer in answers] == [200, 429, 200]


@pytest.mark.parametrize(
    ("host", "keys", "warns"), [("0.0.0.0", None, True), ("0.0.0.0", KEYS[0], False), ("127.0.0.1", None, False)]
)
def test_a_service_that_is_open_to_a_network_says_so(
    host: str, keys: str | None, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    listen(Settings(host=host, port=0, api_keys=None if keys is None else SecretStr(keys))).close()
    assert [record.name for record in caplog.records if "HEATQUERY_API_KEYS" in record.getMessage()] == (
        ["heatquery"] if warns else []
    )


def test_a_port_that_is_taken_is_told_with_its_number() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ListenError, match=f"cannot listen on 127.0.0.1 port {port}: Address already in use"):
            listen(Settings(host="127.0.0.1", port=port))


@pytest.mark.parametrize(("proxies", "statuses"), [("", [200, 429]), ("127.0.0.1", [200, 200])])
def test_the_address_that_a_proxy_names_counts_where_the_proxy_is_known(
    make_client: MakeClient, scene_png: bytes, proxies: str, statuses: list[int]
) -> None:
    client = make_client(rate_limit="1/hour", proxies=proxies)
    headers = [{"X-Forwarded-For": f"192.0.2.{number}"} for number in range(2)]
    answers = [client.post("/detect", files={"file": scene_png}, headers=header) for header in headers]
    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize("path", ["/livez", "/nothing", "/openapi.json", "/models", "/detect", "/docs"])
def test_every_answer_has_the_security_headers(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert {name for name in SECURITY_HEADERS if name not in answer.headers} == set()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "server" not in answer.headers


def test_an_error_of_ours_has_them_too(
    make_client: MakeClient, scene_png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client()

    def fail(*_: object) -> None:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr("service.routers.detect.DetectionOptions.from_manifest", fail)
    answer = client.post("/detect", files={"file": scene_png})
    assert (answer.status_code, answer.headers["x-content-type-options"]) == (500, "nosniff")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text


def test_bytes_that_are_not_http_get_them_too(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(b"no http\r\n\r\n")
        assert b"x-content-type-options: nosniff" in connection.recv(65536)


def test_pages_of_other_origins_may_not_read_by_default(client: httpx.Client) -> None:
    answer = client.get("/models", headers={"Origin": OTHER})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    preflight = {"Origin": OTHER, "Access-Control-Request-Method": "POST"}
    assert client.request("OPTIONS", "/detect", headers=preflight).status_code == 405


def test_an_origin_that_is_named_may_read(make_client: MakeClient) -> None:
    client = make_client(cors_origins=f"{OTHER}, http://localhost:3000", api_keys=KEYS[0])
    preflight = {
        "Origin": OTHER,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "x-api-key",
    }
    assert client.request("OPTIONS", "/detect", headers=preflight).status_code == 200
    refusal = client.post("/detect", headers={"Origin": OTHER})
    assert (refusal.status_code, refusal.headers["access-control-allow-origin"]) == (401, OTHER)
    assert "X-Image-ID" in refusal.headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in refusal.headers


@pytest.mark.parametrize("origin", ["https://evil.example", "https://maps.example.evil.example", "null"])
def test_an_origin_that_is_not_named_may_not(make_client: MakeClient, origin: str) -> None:
    answer = make_client(cors_origins=OTHER).get("/models", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_a_head_request_has_the_headers_alone(client: httpx.Client) -> None:
    live, detect = client.head("/livez"), client.head("/detect")
    assert (live.status_code, live.content, "x-frame-options" in live.headers) == (200, b"", True)
    assert (detect.status_code, detect.content) == (405, b"")


def test_docs_need_nothing_from_elsewhere(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "//" not in page.text
    assert "<script>" not in page.text
    for name in ("swagger-ui-bundle.js", "swagger-ui.css", "start.js"):
        assert f'"docs/{name}"' in page.text
        assert client.get(f"/docs/{name}").status_code == 200


@pytest.mark.parametrize("name", ["redoc.standalone.js", "..%2F__init__.py", "%2Fetc%2Fpasswd"])
def test_docs_give_no_other_file(client: httpx.Client, name: str) -> None:
    assert client.get(f"/docs/{name}").status_code == 404


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Addresses that anything in the process connects to, other than the service under test."""
    asked: list[object] = []
    connect, look_up = socket.socket.connect, socket.getaddrinfo

    def watched_connect(self: socket.socket, address: tuple[str, int]) -> None:
        if self.family != socket.AF_UNIX and address[0] != "127.0.0.1":
            asked.append(address)
            raise OSError("no network in this test")
        connect(self, address)

    def watched_look_up(host: str | None, *rest: object, **more: object) -> object:
        if host not in (None, "127.0.0.1"):
            asked.append(host)
            raise socket.gaierror("no network in this test")
        return look_up(host, *rest, **more)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(socket.socket, "connect", watched_connect)
    monkeypatch.setattr(socket, "getaddrinfo", watched_look_up)
    return asked


FETCHERS = {
    "svg": b'<?xml version="1.0"?><!DOCTYPE svg [<!ENTITY e SYSTEM "http://192.0.2.1/e">]>'
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://192.0.2.1/x.png"/><text>&e;</text></svg>',
    "html": b'<html><img src="http://192.0.2.1/x.png"><script src="//192.0.2.1/x.js"></script></html>',
    "vrt": b'<VRTDataset rasterXSize="9" rasterYSize="9"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
    b"<SourceFilename>/vsicurl/http://192.0.2.1/x.tif</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
    "xml": b'<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]><a>&e;</a>',
    "url": b"http://192.0.2.1/picture.jpg",
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
}


@pytest.mark.parametrize("kind", FETCHERS)
@pytest.mark.parametrize("claimed", ["image/png", "image/svg+xml", "image/tiff"])
def test_a_file_that_names_others_is_refused_and_nothing_is_fetched(
    client: httpx.Client, no_network: list[object], kind: str, claimed: str
) -> None:
    answer = client.post("/detect", files={"file": (f"x.{kind}", FETCHERS[kind], claimed)})
    assert answer.status_code == 415
    assert no_network == []


ADDRESSES = ["http://192.0.2.1/x.png", "file:///etc/passwd", "//192.0.2.1/x", "/etc/passwd", "../../etc/passwd"]


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_in_a_parameter_is_only_text(
    client: httpx.Client, no_network: list[object], scene_png: bytes, address: str
) -> None:
    for name in ("classes", "format", "threshold"):
        assert client.post("/detect", params={name: address}, files={"file": scene_png}).status_code == 422
    assert client.get("/heatmap", params={"image_id": address}).status_code in (404, 422)
    assert client.post("/detect", files={"file": (None, address)}).status_code == 422
    assert client.get(f"/models/{address}").status_code == 404
    assert no_network == []


def test_nothing_is_written_under_a_name_from_outside(
    make_client: MakeClient, scene_png: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, scratch = tmp_path / "a" / "work", tmp_path / "scratch"
    work.mkdir(parents=True)
    scratch.mkdir()
    work.chmod(0o500)
    monkeypatch.chdir(work)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    client = make_client()
    before = sorted(tmp_path.rglob("*"))
    large = scene_png + os.urandom(3_000_000)  # over the size at which parsers of forms write to a disk
    for name in ("../../x", "/x", "..\\..\\x", "x\x00.png", "a/b"):
        client.post("/detect", files={"file": (name, large, "image/png")})
    assert sorted(tmp_path.rglob("*")) == before


def seconds_of(call: Callable[[], httpx.Response]) -> tuple[int, float]:
    begun = time.monotonic()
    return call().status_code, time.monotonic() - begun


def test_ten_thousand_form_parts_are_refused_soon(client: httpx.Client) -> None:
    parts = [b'--cut\r\nContent-Disposition: form-data; name="field-%d"\r\n\r\nx\r\n' % i for i in range(10_000)]
    body = b"".join([*parts, b"--cut--\r\n"])
    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    status, seconds = seconds_of(lambda: client.post("/detect", content=body, headers=headers))
    assert (status, seconds < 5) == (400, True)


def test_a_text_field_of_two_megabytes_is_refused_soon(client: httpx.Client) -> None:
    status, seconds = seconds_of(lambda: client.post("/detect", files={"note": (None, b"x" * 2_000_000)}))
    assert (status, seconds < 5) == (400, True)


DEEP = {
    "lists": b"[" * 200_000,
    "objects": b'{"a":' * 200_000,
    "closed lists": b"[" * 100_000 + b"]" * 100_000,
    "a large number": b'{"tasks": ' + b"9" * 100_000 + b"}",
    "a long list": json.dumps({"tasks": [{}] * 100_000}).encode(),
}


@pytest.mark.parametrize("path", ["/setup", "/predict", "/detect"])
@pytest.mark.parametrize("kind", DEEP)
def test_deep_json_is_refused_soon(client: httpx.Client, path: str, kind: str) -> None:
    headers = {"Content-Type": "application/json"}
    status, seconds = seconds_of(lambda: client.post(path, content=DEEP[kind], headers=headers))
    assert 400 <= status < 500
    assert seconds < 5
