"""What benchmarks/serving.py finds, typed, so that a run can be interrupted and gone on with from its JSON file."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict

from benchmarks.load import Answer
from benchmarks.peer_report import Spread

OK, BUSY = 200, 429


class Provenance(BaseModel):
    """Where and when a part was measured, and of what."""

    model_config = ConfigDict(frozen=True)

    machine: str
    runtime: str
    model: str
    date: str
    commit: str


class Part(BaseModel):
    """One part of the measurement."""

    model_config = ConfigDict(frozen=True)

    provenance: Provenance


class Waits(BaseModel):
    """How long callers waited in one round, in milliseconds from when their call was due."""

    model_config = ConfigDict(frozen=True)

    answers: int
    refused: int
    p50: float
    p95: float
    p99: float
    late_p99: float
    """How late the generator itself sent its calls."""

    @classmethod
    def of(cls, answers: Sequence[Answer], kind: str | None = None) -> "Waits":
        """Of the calls of a kind; refused are all that are not 200.

        Raises:
            ValueError: not one was answered.
        """
        counted = [answer for answer in answers if kind in (None, answer.kind)]
        good = [answer.milliseconds for answer in counted if answer.status == OK]
        if not good:
            raise ValueError(f"no call was answered with 200; statuses: {dict(statuses(answers))}")
        late = np.percentile([(answer.sent - answer.due) * 1e3 for answer in counted], 99)
        p50, p95, p99 = np.percentile(good, (50, 95, 99)).tolist()
        return cls(answers=len(good), refused=len(counted) - len(good), p50=p50, p95=p95, p99=p99, late_p99=float(late))


class Throughput(BaseModel):
    """One round in closed loop."""

    model_config = ConfigDict(frozen=True)

    calls_a_second: float
    cpu_ms_a_call: float
    """Of all processes of the server; what other work on the machine disturbs least."""
    refused: int


class Choice(Part):
    """What was tried of each peer before the comparison: calls a second in each round, by settings."""

    tried: dict[str, dict[str, list[float]]]

    def best(self, peer: str) -> str:
        """Settings of the fastest."""
        return max(self.tried[peer], key=lambda settings: float(np.median(self.tried[peer][settings])))


class Saturation(Part):
    """Closed loop, as many callers as each server likes best."""

    settings: dict[str, str]
    by_callers: dict[str, dict[int, float]]
    rounds: dict[str, list[Throughput]]

    def callers(self, server: str) -> int:
        """How many callers the server is fastest with; the fewest that come within 2 % of the best."""
        found = self.by_callers[server]
        return min(number for number, rate in found.items() if rate >= 0.98 * max(found.values()))

    def rates(self, server: str) -> list[float]:
        """Calls a second in each round."""
        return [round.calls_a_second for round in self.rounds[server]]


class Latency(Part):
    """Open loop at one rate for all: the load of the best peer."""

    load: float
    rate: float
    seconds: float
    settings: dict[str, str]
    rounds: dict[str, list[Waits]]

    def p99(self, server: str) -> list[float]:
        """In each round."""
        return [round.p99 for round in self.rounds[server]]


class Curve(Part):
    """Open loop at several loads of the best peer: server, to load, to waits."""

    waits: dict[str, dict[float, Waits]]
    rates: dict[float, float]


class Overhead(Part):
    """The same pictures by turns in this process and over HTTP, one at a time, in milliseconds."""

    settings: str
    bare_ms: list[float]
    served_ms: list[float]
    bare_cpu_ms: float
    """CPU time of a call, on average."""
    served_cpu_ms: float
    """The same, of the server's processes."""


class Mixed(Part):
    """Waits of sparse pictures in each round.

    Attributes:
        alone: at the rate that they have in the mix, and nothing else.
        as_many: sparse ones in place of the crowded.
        mixed: next to crowded ones.
        busy: share of the machine's cores that the service used, by arm.
    """

    rate: float
    load: float
    alone: list[Waits]
    as_many: list[Waits]
    mixed: list[Waits]
    busy: dict[str, float]


class Overload(Part):
    """Many times what the service can do."""

    times: float
    seconds: float
    deadline_seconds: float
    before: float
    """Calls a second at saturation."""
    during: float
    """Answered with 200, a second."""
    after: float
    """From two seconds after the end on."""
    statuses: dict[int, int]
    accepted: Waits
    refusal_p99_ms: float
    resident_mb: list[float]
    """Every second."""
    slope_mb_a_minute: float


class Soak(Part):
    """Half an hour of everything."""

    minutes: float
    calls: dict[str, int]
    surprises: list[str]
    """Answers that are not what the call must get, at most a few."""
    resident_mb: list[float]
    """Every second."""
    begin_mb: float
    end_mb: float
    open_files: tuple[int, int]
    threads: tuple[int, int]


class Start(Part):
    """Seconds from the start of the process."""

    ready: list[float]
    first_answer: list[float]


class Figures(BaseModel):
    """All parts that have been measured so far."""

    choice: Choice | None = None
    saturation: Saturation | None = None
    latency: Latency | None = None
    curve: Curve | None = None
    overhead: Overhead | None = None
    mixed: Mixed | None = None
    overload: Overload | None = None
    start: Start | None = None
    soak: Soak | None = None

    @classmethod
    def read(cls, file: Path) -> "Figures":
        """What an earlier run has left; nothing where there is no such file."""
        return cls.model_validate_json(file.read_bytes()) if file.is_file() else cls()

    def write(self, file: Path) -> None:
        """Keep it for a later run, and for scripts."""
        file.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def statuses(answers: Sequence[Answer]) -> Counter[int]:
    """How many answers had which status."""
    return Counter(answer.status for answer in answers)


def calls_a_second(answers: Sequence[Answer], lead_in: float) -> float:
    """Answers with 200 between the lead-in and the moment from which callers no longer send."""
    last_sent = max(answer.sent for answer in answers)
    counted = [answer for answer in answers if answer.status == OK and lead_in <= answer.done <= last_sent]
    return len(counted) / (last_sent - lead_in) if last_sent > lead_in else 0.0


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Round by round, so that a slow spell of the machine falls on both."""
    return Spread.of(np.divide(ours, theirs))


class Best(NamedTuple):
    """The peer to beat, and its value in each round."""

    peer: str
    values: list[float]


def best_peer(values: dict[str, list[float]], ours: str, highest: bool) -> Best:
    """The peer whose median is highest or lowest."""
    medians = {name: float(np.median(rounds)) for name, rounds in values.items() if name != ours}
    name = (max if highest else min)(medians, key=medians.__getitem__)
    return Best(name, values[name])


def slope(seconds: Sequence[float], values: Sequence[float]) -> float:
    """Of the line of least squares through the points, a minute."""
    return float(np.polyfit(seconds, values, 1)[0] * 60)
