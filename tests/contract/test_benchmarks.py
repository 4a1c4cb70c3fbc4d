"""The benchmark scripts, run as a person runs them, on a model and pictures whose figures are known."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from benchmarks import book_rows
from benchmarks.book_result import read_rows

ROOT = Path(__file__).parents[2]


def run(script: str, *arguments: object) -> str:
    """Run one script; returns what it printed."""
    command = [sys.executable, str(ROOT / "benchmarks" / script), *(str(argument) for argument in arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.fixture
def data_set(tmp_path: Path, draw_scene: Callable[..., Image.Image]) -> Path:
    """Two pictures with three squares; one square is marked as blue that is red, so one of three is missed."""
    (tmp_path / "images").mkdir()
    draw_scene(320, 240, (64, 64, 64, "red"), (192, 128, 64, "red")).save(tmp_path / "images" / "a.png")
    draw_scene(160, 160, (32, 0, 32, "blue")).save(tmp_path / "images" / "b.png")
    boxes = [(1, 2, [64, 64, 64, 64]), (1, 4, [192, 128, 64, 64]), (2, 4, [32, 0, 32, 32])]
    truth = {
        "categories": [{"id": 2, "name": "red square"}, {"id": 4, "name": "blue square"}],
        "images": [
            {"id": 1, "file_name": "a.png", "width": 320, "height": 240},
            {"id": 2, "file_name": "b.png", "width": 160, "height": 160},
        ],
        "annotations": [
            {
                "id": number + 1,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, (image, category, box) in enumerate(boxes)
        ],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(truth), encoding="utf-8")
    return tmp_path


def test_accuracy_gives_the_known_figures(toy_models: Path, data_set: Path, tmp_path: Path) -> None:
    printed = run("accuracy.py", toy_models / "toy" / "1", "--data", data_set, "--json", tmp_path / "out.json")
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    red, blue = (figures["by_class"][f"{colour} square"] for colour in ("red", "blue"))
    assert (red["boxes"], red["ap"], red["ap50"], red["recall"]) == (1, pytest.approx(1), pytest.approx(1), 1)
    assert blue["ap"] == pytest.approx(0.505, abs=0.01)
    assert (figures["precision"], figures["recall"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert figures["count_mae"] == pytest.approx(0, abs=0.1)
    assert figures["count_correlation"] == pytest.approx(1)
    assert figures["ap_by_size"]["very tiny (2-8)"] is None
    told = {row.claim: row.value for row in book_rows.accuracy("toy", {})(tmp_path / "out.json")}
    assert told[f"toy: recall at score {figures['operating_threshold']:g}"] == figures["recall"]
    assert "| AP50 |" in printed
    assert "| red square | 1 |" in printed


def test_latency_times_each_variant_and_weighs_the_service(toy_models: Path, tmp_path: Path) -> None:
    options = ["--side", 160, "--rounds", 2, "--queries", 4, 8, "--threads", 1, "--json", tmp_path / "out.json"]
    options += ["--pictures", "160x160", "800x600"]
    printed = run("latency.py", toy_models / "toy" / "1", *options)
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [(row["threads"], row["queries"]) for row in figures["variants"]] == [(1, 4), (1, 8)]
    assert 20 < figures["memory"]["ready_mb"] < 600
    weighed = figures["memory"]["pictures"]
    assert [(row["width"], row["height"]) for row in weighed] == [(160, 160), (800, 600)]
    assert all(row["after_mb"] <= row["peak_mb"] for row in weighed)
    assert "pictures of 800 x 600 px" in printed
    assert book_rows.queries(tmp_path / "out.json")[0].claim == "time of the decoder at K = 4, by that at K = 8"
    assert book_rows.memory(tmp_path / "out.json")[0].value == figures["memory"]["ready_mb"]


def test_serving_weighs_a_call_over_http_against_the_bare_graphs(
    toy_models: Path, data_set: Path, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- serving: begin -->\n<!-- serving: end -->\n", encoding="utf-8")
    options = ["--data", data_set, "--json", tmp_path / "out.json", "--page", page]
    run("serving.py", toy_models / "toy" / "1", *options, "--only", "overhead", "--scale", 0.05)
    figures = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert len(figures["overhead"]["bare_ms"]) == len(figures["overhead"]["served_ms"]) == 6
    assert "### Overhead over the bare graphs" in page.read_text(encoding="utf-8")


def test_the_cost_of_keeping_a_result_is_measured(model_folder: Path, data_set: Path, tmp_path: Path) -> None:
    options = ["--images", data_set / "images", "--rounds", 1, "--json", tmp_path / "out.json"]
    printed = run("store.py", model_folder, *options)
    claims = [row.claim for row in read_rows(tmp_path / "out.json")]
    assert {"a kept result: packed", "a kept result: unpack"} <= set(claims)
    assert {"packed", "drawn from it", "unpack"} <= {line.partition(":")[0].strip() for line in printed.splitlines()}
