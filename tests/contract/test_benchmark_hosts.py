"""The benchmark of D3Q's hosts, run as a person runs it, on pictures of 64 pixels."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_a_host_is_timed_with_the_queries_of_each_picture(tmp_path: Path) -> None:
    asked = ["dino_d3q_r50", "--size", "64", "--most", "220", "--denoising", "4", "--threads", "1", "--json"]
    command = [sys.executable, str(ROOT / "benchmarks" / "hosts.py"), *asked, str(tmp_path / "host.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    finished = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    figures = json.loads((tmp_path / "host.json").read_text(encoding="utf-8"))
    assert figures["true_counts"] == [20, 220]
    assert figures["steps"][0]["queries"] == [300, 330]  # k_min, and 1.5 for each true object
    assert figures["steps"][0]["gradient_norm"] > 0
    assert "300, 330" in finished.stdout
