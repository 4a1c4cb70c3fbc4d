"""A picture of a run's figures over its steps: what `fit` leaves behind as RUN/curves.png."""

import json
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.evaluation.curves import panel

SMOOTHED_OVER = 100
"""A curve of more points is drawn as means of this many stretches, over a pale line of all."""
Curve = tuple[list[int], list[float]]
"""Steps and values."""


def draw_history(run: Path) -> Path:
    """Draw `metrics.jsonl` of a run as `curves.png` beside it; returns its path."""
    curves = read_curves(run / "metrics.jsonl")
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    _lines(panel(figure, "Loss", "step", "loss", (2, 2, 1)), {"loss": curves.get("loss", ([], []))})
    terms = {name.removeprefix("loss/"): curve for name, curve in curves.items() if name.startswith("loss/")}
    axes = panel(figure, "Terms of the loss, weighted", "step", "loss", (2, 2, 2))
    _lines(axes, terms)
    axes.set_yscale("log")
    axes = panel(figure, "Learning rate and norm of the gradient", "step", "learning rate", (2, 2, 3))
    _rate_and_norm(axes, curves)
    axes = panel(figure, "Average precision on val", "step", "AP", (2, 2, 4))
    _precision(axes, {name: curves[f"val/{name}"] for name in ("ap", "ap50", "ap75") if f"val/{name}" in curves})
    path = run / "curves.png"
    figure.savefig(path, dpi=110)
    return path


def read_curves(log: Path) -> dict[str, Curve]:
    """Every figure of a log, without the steps at which it was not finite."""
    curves: dict[str, Curve] = {}
    for line in log.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        for name, value in entry.items():
            if name != "step" and value is not None:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(entry["step"])
                values.append(value)
    return curves


def smoothed(curve: Curve) -> Curve:
    """Means over stretches, at the mean of their steps; a curve of few points stays as it is."""
    if len(curve[0]) <= SMOOTHED_OVER:
        return curve
    steps, values = (np.array_split(np.array(side, dtype=float), SMOOTHED_OVER) for side in curve)
    return [int(stretch.mean()) for stretch in steps], [float(stretch.mean()) for stretch in values]


def _lines(axes: Axes, curves: dict[str, Curve]) -> None:
    for place, (name, curve) in enumerate(curves.items()):
        colour = colormaps["tab20"]((2 * place + place // 10) % 20)  # the ten strong colours, then the ten pale ones
        if len(curve[0]) > SMOOTHED_OVER:
            axes.plot(*curve, color=colour, alpha=0.25, linewidth=0.6)
        axes.plot(*smoothed(curve), color=colour, linewidth=1.6, label=name)
    if len(curves) > 1:
        axes.legend(frameon=False, fontsize=8, ncols=2)


def _rate_and_norm(axes: Axes, curves: dict[str, Curve]) -> None:
    axes.plot(*curves.get("learning_rate", ([], [])), color="black", linewidth=1.6, label="learning rate")
    norms = axes.twinx()
    norms.plot(*smoothed(curves.get("gradient_norm", ([], []))), color="tab:orange", linewidth=1.2)
    norms.set_ylabel("norm, before clipping", color="tab:orange")
    norms.set_ylim(bottom=0)


def _precision(axes: Axes, curves: dict[str, Curve]) -> None:
    for name, curve in curves.items():
        axes.plot(*curve, marker="o", markersize=4, linewidth=1.6, label=name.upper())
    axes.set_ylim(0, 1)
    if curves:
        axes.legend(frameon=False)
    else:
        axes.text(0.5, 0.5, "not evaluated", transform=axes.transAxes, ha="center", va="center", color="grey")
