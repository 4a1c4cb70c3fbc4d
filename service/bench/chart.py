"""Latency over load, as a picture."""

from pathlib import Path

from matplotlib.figure import Figure

from service.bench.report import Report


def draw(report: Report, path: Path) -> None:
    """Write latency over the rate of arrival, above the answers a second; the ending of the path says the format."""
    figure = Figure(figsize=(8, 7), layout="constrained")
    latency, answers = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    measured = [(result.rate, result.latency_ms) for result in report.results if result.latency_ms]
    for name, style in (("p50", "o-"), ("p95", "s-"), ("p99", "^-"), ("max", "x:")):
        values = [getattr(spread, name) for _, spread in measured]
        latency.plot([rate for rate, _ in measured], values, style, label=name)
    if measured:
        latency.set_yscale("log")
        latency.yaxis.set_major_formatter("{x:g}")
        latency.yaxis.set_minor_formatter("{x:g}")
        latency.legend(title="answers 200")
    latency.set_ylabel("milliseconds from when due")
    rates = [result.rate for result in report.results]
    answers.plot(rates, [result.throughput for result in report.results], "o-", label="200")
    others = [(result.sent - result.outcomes.get("200", 0)) / result.seconds for result in report.results]
    answers.plot(rates, others, "x--", label="all others")
    answers.plot(rates, rates, color="grey", linewidth=0.8, label="due")
    answers.set_xlabel("calls due a second")
    answers.set_ylabel("answers a second")
    answers.legend()
    for axes in (latency, answers):
        axes.grid(alpha=0.3)
    latency.set_title(f"{' '.join(report.model.values())}, {report.arrivals} arrivals, {report.begun[:10]}")
    figure.savefig(path)
