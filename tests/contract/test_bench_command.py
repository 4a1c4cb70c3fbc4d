"""`python -m service bench` against a running toy service."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from service.__main__ import main

MakeClient = Callable[..., httpx.Client]


@pytest.fixture
def pictures(tmp_path: Path, scene_png: bytes) -> Path:
    """A folder with one picture."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "scene.png").write_bytes(scene_png)
    return folder


def bench(client: httpx.Client, pictures: Path, *options: str) -> int:
    """Run the command with short runs."""
    short = ["--rates", "20", "--seconds", "1", "--warm-up", "0.5"]
    return main(["bench", str(client.base_url), "--images", str(pictures), *short, *options])


def test_it_prints_a_table_and_writes_every_figure(
    client: httpx.Client, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(client, pictures, "--arrivals", "uniform", "--json", str(tmp_path / "r.json")) == 0
    assert "| calls/s | sent |" in capsys.readouterr().out
    report = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    (result,) = report["results"]
    assert (result["sent"], result["outcomes"]) == (20, {"200": 20})
    assert result["latency_ms"]["p50"] >= result["stages_ms"]["encode"]["p50"] > 0
    assert report["model"] == {"name": "toy", "version": "1"}


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_it_draws_latency_over_load(
    client: httpx.Client, pictures: Path, tmp_path: Path, ending: str, start: bytes
) -> None:
    assert bench(client, pictures, "--plot", str(tmp_path / f"load.{ending}")) == 0
    assert (tmp_path / f"load.{ending}").read_bytes().startswith(start)


def test_a_parameter_of_detect_is_sent(
    client: httpx.Client, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(client, pictures, "--query", "threshold=2") == 1
    assert "the warm-up got 422 and no 200" in capsys.readouterr().err


def test_refusals_of_an_overload_are_counted(make_client: MakeClient, pictures: Path, tmp_path: Path) -> None:
    client = make_client(queue=1)
    assert bench(client, pictures, "--rates", "200", "--json", str(tmp_path / "r.json")) == 0
    (result,) = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["results"]
    assert result["outcomes"].keys() == {"200", "429"}
    assert sum(result["outcomes"].values()) == result["sent"]


def test_a_service_that_is_not_there_is_named(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "http://127.0.0.1:9", "--images", str(pictures)]) == 1
    assert "cannot reach http://127.0.0.1:9" in capsys.readouterr().err


def test_a_service_that_is_not_ready_says_why(
    make_client: MakeClient, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(make_client(model="absent"), pictures) == 1
    assert "is not ready: " in capsys.readouterr().err


def test_a_folder_without_pictures_is_named(
    client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(client, tmp_path) == 1
    assert f"no pictures in {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--rates", "0"], ["--seconds", "x"], ["--query", "threshold"]])
def test_a_wrong_option_is_refused(client: httpx.Client, pictures: Path, wrong: list[str]) -> None:
    with pytest.raises(SystemExit):
        bench(client, pictures, *wrong)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1", "127.0.0.1:8000", "http://", "http://127.0.0.1:99999"])
def test_what_is_no_address_is_refused(pictures: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", url, "--images", str(pictures)])
    assert "is no address" in capsys.readouterr().err


def test_without_matplotlib_a_picture_is_refused_before_the_load(
    client: httpx.Client, pictures: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "service.bench.chart", raising=False)
    assert bench(client, pictures, "--plot", "load.svg") == 1
    assert "pip install 'heatquery[client]'" in capsys.readouterr().err


def test_a_picture_of_another_format_is_refused_before_the_load(
    client: httpx.Client, pictures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(client, pictures, "--plot", "load.pdf") == 1
    assert "must be .svg or .png" in capsys.readouterr().err
