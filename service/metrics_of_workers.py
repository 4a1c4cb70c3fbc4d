"""Metrics of several processes behind one port: each writes its numbers to files, any of them adds them up."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_OF_EACH_PROCESS = {"process_start_time_seconds": min, "process_max_fds": min}
"""How the numbers of several processes become one, where they are not added."""


@contextmanager
def share_metrics() -> Iterator[None]:
    """Make the processes that are spawned inside write their metrics to one folder, which goes at the end.

    prometheus-client reads the variable when it is first imported, so the processes must be spawned, not forked.
    A folder that the environment already names is taken, and left.
    """
    if os.environ.get(FOLDER_VARIABLE):
        yield
        return
    with TemporaryDirectory(prefix="heatquery-metrics-", ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER_VARIABLE] = folder
        try:
            yield
        finally:
            del os.environ[FOLDER_VARIABLE]


class WorkersCollector(Collector):
    """Numbers of all processes that share a folder, and what the system says of those that live."""

    def __init__(self, folder: Path, registry: CollectorRegistry) -> None:
        self._folder = folder
        self._files = MultiProcessCollector(None, str(folder))
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Counters of all processes since the start, gauges and memory of those that live."""
        living = []
        for pid in self._pids():
            if Path("/proc", str(pid)).exists():
                living.append(pid)
            else:  # it crashed or was replaced: its counters stay, its gauges must not
                with suppress(FileNotFoundError):  # another process, asked at the same time, was faster
                    mark_process_dead(pid, str(self._folder))
        yield from self._files.collect()
        yield from _processes(living)

    def _pids(self) -> set[int]:
        return {int(path.stem.rpartition("_")[2]) for path in self._folder.glob("gauge_live*.db")}


def _processes(pids: list[int]) -> Iterable[Metric]:
    """`process_*` of several processes as if they were one."""
    found: dict[str, list[Metric]] = {}
    for pid in pids:
        for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():
            found.setdefault(metric.name, []).append(metric)
    for name, metrics in found.items():
        first = metrics[0]
        values = [metric.samples[0].value for metric in metrics]
        total = Metric(name, first.documentation, first.type)
        total.add_sample(first.samples[0].name, {}, _OF_EACH_PROCESS.get(name, sum)(values))
        yield total
