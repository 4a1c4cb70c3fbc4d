"""What a load said, in figures: for a terminal, for Markdown, for a file."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil

from pydantic import BaseModel, Field

from service.bench.load import Arrivals, Call

STAGES = ("queue", "read_image", "preprocess", "encode", "decode", "postprocess")
LATE_SECONDS = 0.05
"""A generator that sends its calls later than this cannot be believed."""


class Spread(BaseModel):
    """Percentiles of times in milliseconds."""

    p50: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread | None":
        """Of milliseconds; None without any. A percentile is a value that occurred (nearest rank)."""
        ranked = sorted(values)
        if not ranked:
            return None
        p50, p95, p99, top = (round(ranked[ceil(share * len(ranked)) - 1], 2) for share in (0.5, 0.95, 0.99, 1.0))
        return cls(p50=p50, p95=p95, p99=p99, max=top)


class RateResult(BaseModel):
    """One rate."""

    rate: float = Field(description="Calls a second that were due.")
    seconds: float = Field(description="Until the last answer, or the end of the run.")
    sent: int
    throughput: float = Field(description="Answers 200 a second.")
    outcomes: dict[str, int] = Field(description="Calls by status, `timeout`, or `no answer`.")
    latency_ms: Spread | None = Field(description="Of answers 200, from when a call was due to its last byte.")
    refusal_ms: Spread | None = Field(description="The same of all other answers.")
    stages_ms: dict[str, Spread] = Field(description="Of answers 200, as the service measured them.")
    late_ms: Spread | None = Field(description="How long after they were due calls were sent.")

    @classmethod
    def of(cls, rate: float, seconds: float, calls: Sequence[Call]) -> "RateResult":
        """Sum up the calls of one rate, which were due within so many seconds."""
        good = [call for call in calls if call.outcome == "200"]
        refused = [call for call in calls if call.outcome.isdigit() and call.outcome != "200"]
        lasted = max([seconds, *(call.due + call.seconds for call in calls)])
        stages = {name: Spread.of(call.stages[name] for call in good if name in call.stages) for name in STAGES}
        return cls(
            rate=rate,
            seconds=round(lasted, 3),
            sent=len(calls),
            throughput=round(len(good) / lasted, 2),
            outcomes=dict(sorted(Counter(call.outcome for call in calls).items())),
            latency_ms=Spread.of(call.seconds * 1e3 for call in good),
            refusal_ms=Spread.of(call.seconds * 1e3 for call in refused),
            stages_ms={name: spread for name, spread in stages.items() if spread},
            late_ms=Spread.of(call.late * 1e3 for call in calls),
        )

    @property
    def kept_schedule(self) -> bool:
        """Whether the generator sent its calls when they were due."""
        return self.late_ms is None or self.late_ms.p99 <= LATE_SECONDS * 1e3


class Report(BaseModel):
    """A whole run."""

    url: str
    model: dict[str, str]
    pictures: int
    arrivals: Arrivals
    seed: int
    begun: str = Field(description="UTC.")
    results: list[RateResult]

    def to_markdown(self) -> str:
        """Two tables, aligned so that they read in a terminal too."""
        totals = [["calls/s", "sent", "200/s", "p50 ms", "p95 ms", "p99 ms", "max ms", "outcomes"]]
        stages = [["calls/s", *(f"{name} p50 / p99" for name in STAGES)]]
        for result in self.results:
            outcomes = ", ".join(f"{outcome}: {number}" for outcome, number in result.outcomes.items())
            late = "" if result.kept_schedule else " (generator late)"
            numbers = [f"{result.rate:g}", str(result.sent), f"{result.throughput:g}"]
            totals.append([*numbers, *_figures(result.latency_ms), outcomes + late])
            stages.append([f"{result.rate:g}", *(_pair(result.stages_ms.get(name)) for name in STAGES)])
        model = " ".join(self.model.values())
        head = f"{model} at {self.url}, {self.pictures} pictures, {self.arrivals} arrivals, {self.begun}"
        lines = [head, "", *_table(totals), "", "Milliseconds by stage, as the service says:", "", *_table(stages)]
        return "\n".join(lines)


def _figures(spread: Spread | None) -> list[str]:
    return [f"{value:.0f}" for value in (spread.p50, spread.p95, spread.p99, spread.max)] if spread else ["-"] * 4


def _pair(spread: Spread | None) -> str:
    return f"{spread.p50:.1f} / {spread.p99:.1f}" if spread else "-"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    aligned = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    rule = [f"{'-' * (width - 1)}:" for width in widths]
    return [f"| {' | '.join(row)} |" for row in (aligned[0], rule, *aligned[1:])]
