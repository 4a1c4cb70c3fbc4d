"""What benchmarks/peers.py found, as the tables of docs/performance.md."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BEGIN, END = "<!-- peers: begin -->", "<!-- peers: end -->"


@dataclass(frozen=True)
class Size:
    """What a model holds, and what a picture costs: two operations per multiply-accumulate."""

    parameters: int
    gflops: float


@dataclass(frozen=True)
class Spread:
    """A median and the middle half around it."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Spread":
        """Of any number of values."""
        return cls(*np.percentile(values, (25, 50, 75)).tolist())

    def told(self, digits: int) -> str:
        """As "median (low - high)"."""
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} - {self.high:.{digits}f})"


def report(figures: dict, unit: str) -> list[str]:
    """The figures as Markdown: where they come from, then a table for each size and number of threads.

    Args:
        figures: see `benchmarks.peers.main`.
        unit: the model whose time the others are told in.
    """
    lines = [
        f"{figures['machine']}; {figures['runtime']}; {figures['date']}, commit {short_commit(figures['commit'])}; "
        f"`{figures['model']}`, K = {figures['queries']} where nothing else is said; {figures['rounds']} rounds; "
        "medians, with the middle half in brackets.",
    ]
    for run in figures["runs"]:
        times = {name: np.array(samples) for name, samples in run["samples"].items()}  # each (rounds, 2)
        threads = "one thread" if run["threads"] == 1 else f"{run['threads']} threads"
        lines += ["", f"### {run['side']} x {run['side']} px, {threads}", ""]
        lines += _times_table(times, run["sizes"], unit)
    return lines


def short_commit(commit: str) -> str:
    """Twelve digits are enough; whether there are changes on top must stay."""
    digits, dash, dirty = commit.partition("-")
    return f"`{digits[:12]}{dash}{dirty}`"


def _times_table(times: dict[str, NDArray[np.float64]], sizes: dict[str, Size | None], unit: str) -> Iterator[str]:
    yield f"| model | params M | GFLOPs | CPU ms | clock ms | CPU time as a multiple of {unit}'s |"
    yield "|---|--:|--:|--:|--:|--:|"
    for name, milliseconds in times.items():
        cpu, clock = (Spread.of(column) for column in milliseconds.T)
        held = sizes[name]
        weight = f"{held.parameters / 1e6:.1f} | {held.gflops:.1f}" if held else "- | -"
        multiple = ratio(times, name, unit).told(2)
        yield f"| {name} | {weight} | {cpu.told(0)} | {clock.told(0)} | {multiple} |"


def ratio(times: dict[str, NDArray[np.float64]], name: str, beside: str) -> Spread:
    """Process-CPU time of one model by that of another, round by round."""
    return Spread.of(times[name][:, 0] / times[beside][:, 0])


def write_page(page: Path, lines: Sequence[str], begin: str = BEGIN, end: str = END) -> None:
    """Put lines between the markers of a document. Raises ValueError if it has none."""
    before, found_begin, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise ValueError(f"{page} needs the lines {begin!r} and {end!r}, between which the tables go")
    page.write_text("\n".join([before + begin, *lines, end + after]), encoding="utf-8")
