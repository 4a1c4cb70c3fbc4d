"""A picture of how long callers wait, over the load."""

from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.serving_figures import Curve


def plot(curve: Curve, file: Path) -> None:
    """p50 and p99 of every server; both axes begin at 0."""
    figure = Figure(figsize=(9, 4), layout="constrained")
    for axes, name in zip(figure.subplots(1, 2), ("p50", "p99"), strict=True):
        for server, waits in curve.waits.items():
            rates = [curve.rates[load] for load in waits]
            axes.plot(rates, [getattr(found, name) for found in waits.values()], marker="o", label=server)
        axes.set(title=name, xlabel="calls a second", ylabel="milliseconds", xlim=(0, None), ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(file, format="svg", metadata={"Date": None})
