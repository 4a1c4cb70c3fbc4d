"""What Metrics counts, alone and over several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from metrics_page import samples
from service.metrics import Metrics
from service.metrics_of_workers import FOLDER_VARIABLE, share_metrics

ROOT = Path(__file__).parents[2]
WORKER = """
import sys
from service.metrics import Metrics
metrics = Metrics()
metrics.rejected("queue-full")
metrics.stage("encode", 0.02)
metrics.queue_depth["encode"].set(3)
if "ready" in sys.argv:
    metrics.ready("toy", "1", "fp32", "cpu", "f")
print(metrics.render("")[0].decode(), flush=True)
sys.stdin.read()
"""


def start_worker(*arguments: str) -> "subprocess.Popen[str]":
    """A process with metrics of its own, which ends when its standard input is closed."""
    command = [sys.executable, "-c", WORKER, *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def read_page(worker: "subprocess.Popen[str]") -> dict[str, float]:
    """What a worker says once its numbers are in place."""
    assert worker.stdout is not None
    lines: list[str] = []
    for line in worker.stdout:
        if line == "\n":
            break
        lines.append(line)
    return samples("".join(lines))


def test_two_apps_in_one_process_count_apart() -> None:
    first, second = Metrics(), Metrics()
    first.rejected("queue-full")
    assert "heatquery_rejected_total{reason=queue-full}" not in samples(second.render("")[0])


def test_a_batch_of_eight_is_counted_at_eight() -> None:
    metrics = Metrics()
    metrics.batch("encode", 8)
    page = samples(metrics.render("")[0])
    assert page["heatquery_batch_size_bucket{le=8.0}{stage=encode}"] == 1
    assert page["heatquery_batch_size_bucket{le=6.0}{stage=encode}"] == 0


def test_an_unknown_stage_is_an_error() -> None:
    with pytest.raises(KeyError):
        Metrics().stage("encoding", 0.1)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=abc", "text/plain; version=0.0.4; charset=utf-8"),
        ('text/plain;version="1.0.0"', "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_accept_header_chooses_the_format(accept: str, content_type: str) -> None:
    assert Metrics().render(accept)[1].startswith(content_type)


def test_processes_that_share_a_folder_are_added_up() -> None:
    with share_metrics():
        first = start_worker("ready")
        alone = read_page(first)
        second = start_worker()
        both = read_page(second)
        for worker in (first, second):
            worker.communicate()
    assert (both["heatquery_rejected_total{reason=queue-full}"], both["heatquery_queue_depth{stage=encode}"]) == (2, 6)
    assert both["heatquery_stage_seconds_count{stage=encode}"] == 2
    assert (alone["heatquery_ready"], both["heatquery_ready"]) == (1, 0)  # ready: every process is
    assert both["process_resident_memory_bytes"] > 1.5 * alone["process_resident_memory_bytes"]


def test_a_process_that_died_leaves_its_counters_and_not_its_gauges() -> None:
    with share_metrics():
        first = start_worker()
        read_page(first)
        first.communicate()
        second = start_worker()
        page = read_page(second)
        second.communicate()
    assert (page["heatquery_rejected_total{reason=queue-full}"], page["heatquery_queue_depth{stage=encode}"]) == (2, 3)


def test_the_shared_folder_goes_at_the_end() -> None:
    with share_metrics():
        folder = Path(os.environ[FOLDER_VARIABLE])
        assert folder.is_dir()
    assert not folder.exists()
    assert FOLDER_VARIABLE not in os.environ
