"""What a real service process writes to stderr: one JSON object per line, whatever callers send."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

ROOT = Path(__file__).parents[2]
KEY = "a secret that no log may hold"


class Said(NamedTuple):
    """What a service wrote to stderr in its life."""

    text: str
    lines: list[dict[str, Any]]

    def request(self, request_id: str) -> dict[str, Any]:
        """The line of one request in the access log."""
        (line,) = [line for line in self.lines if line["event"] == "request" and line["request_id"] == request_id]
        return line


@pytest.fixture(scope="module")
def said(toy_models: Path, scene_png: bytes) -> Said:
    """Start a service, send it good and hostile calls, stop it."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0", "--models", str(toy_models)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "HEATQUERY_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        address = next(found[0] for line in process.stdout if (found := re.search(r"http://[\d.:]+", line)))
        with httpx.Client(base_url=address, timeout=60) as client:
            client.get("/livez", headers={"X-Request-ID": "probe"})
            picture = {"file": ("p.png", scene_png, "image/png")}
            client.post("/detect", files=picture, headers={"X-Request-ID": "good", "Authorization": KEY})
            client.get(f"/heatmap?image_id={KEY}", headers={"X-Request-ID": "unknown"})
            client.get('/x%0A{"level": "info", "event": "forged"}%1B[31m', headers={"X-Request-ID": "forging"})
            client.get("/livez", headers={"X-Request-ID": "not {harmless}"})
    finally:
        process.send_signal(signal.SIGTERM)
        _, text = process.communicate(timeout=60)
    return Said(text, [json.loads(line) for line in text.splitlines()])


def test_every_line_says_when_how_grave_what_and_who(said: Said) -> None:
    assert said.lines
    for line in said.lines:
        assert list(line)[:4] == ["timestamp", "level", "event", "logger"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["timestamp"])


def test_the_server_writes_the_same_way(said: Said) -> None:
    (line,) = [line for line in said.lines if line["event"].startswith("Started server process")]
    assert (line["logger"], line["level"]) == ("uvicorn.error", "info")
    assert "color_message" not in line


def test_a_request_is_one_line(said: Said, scene_png: bytes) -> None:
    line = said.request("good")
    fields = {name: line[name] for name in ("method", "route", "path", "status", "client")}
    assert fields == {
        "method": "POST",
        "route": "/detect",
        "path": "/detect",
        "status": 200,
        "client": "127.0.0.1",
    }
    assert line["bytes_in"] > len(scene_png)
    assert 0 < line["seconds"] < 60


def test_a_request_that_was_refused_says_why(said: Said) -> None:
    line = said.request("unknown")
    assert (line["status"], line["problem"]) == (404, "unknown-image")


def test_a_line_break_in_a_path_makes_no_line(said: Said) -> None:
    assert not [line for line in said.lines if line["event"] == "forged"]
    assert said.request("forging")["path"] == '/x\n{"level": "info", "event": "forged"}\x1b[31m'


def test_no_control_character_reaches_the_stream(said: Said) -> None:
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", said.text)


def test_probes_are_not_logged(said: Said) -> None:
    assert not [line for line in said.lines if line.get("route") == "/livez"]


def test_headers_query_strings_and_pictures_are_not_logged(said: Said) -> None:
    assert KEY not in said.text
    assert "secret" not in said.text
    assert "PNG" not in said.text
