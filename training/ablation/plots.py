"""Pictures of an ablation: AP of every variant with a dot per seed, and how training went."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training.ablation.grid import Variant
from training.ablation.results import Figures, Result
from training.ablation.table import by_seed, metric

Curve = list[tuple[int, float]]
"""(step, value)."""


def draw_plots(folder: Path, variants: Sequence[Variant], results: Sequence[Result]) -> None:
    """Write `ap.svg` and `curves.svg` into a folder; the same results give the same files."""
    folder.mkdir(parents=True, exist_ok=True)
    present = [variant for variant in variants if any(result.variant == variant.name for result in results)]
    with rc_context({"font.size": 11, "svg.hashsalt": "heatquery"}):
        for name, figure in (("ap", _ap_figure(present, results)), ("curves", _curves_figure(present, results))):
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def _ap_figure(variants: Sequence[Variant], results: Sequence[Result]) -> Figure:
    """One row per variant: a dot per seed, a tick for the mean; the baseline's mean is a dashed line."""
    figure = Figure(figsize=(12, 1.6 + 0.36 * len(variants)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (name, title) in zip(panels, (("ap", "AP"), ("ap50", "AP50")), strict=True):
        for row, variant in enumerate(variants):
            values = [100 * value for value in by_seed(results, variant.name, metric(name)).values()]
            colour = "black" if row == 0 else "tab:blue"
            axes.scatter(values, [row] * len(values), s=30, color=colour, alpha=0.6, linewidths=0)
            axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=colour, linewidth=2)
            if row == 0:
                axes.axvline(float(np.mean(values)), color="black", linewidth=1, linestyle=(0, (4, 4)))
        axes.set(xlabel=f"{title} on val, per cent")
        axes.grid(axis="x", alpha=0.3)
    figure.suptitle("A dot per seed, a tick at the mean; dashed: the mean of the baseline", fontsize=11)
    panels[0].set_yticks(range(len(variants)), [variant.name for variant in variants])
    panels[0].invert_yaxis()
    return figure


def _curves_figure(variants: Sequence[Variant], results: Sequence[Result]) -> Figure:
    """Loss, and AP if it was measured on the way, over steps: the mean of the seeds."""
    columns: list[tuple[str, Callable[[Figures], Curve]]] = [("loss, summed over layers", lambda f: f.loss_curve)]
    if any(len(result.figures.ap_curve) > 1 for result in results):
        columns.append(("AP on val, per cent", lambda f: [(step, 100 * ap) for step, ap in f.ap_curve]))
    figure = Figure(figsize=(6.5 * len(columns) + 2.5, 5.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(columns)))
    for axes, (title, curve) in zip(panels, columns, strict=True):
        for place, variant in enumerate(variants):
            curves = [curve(result.figures) for result in results if result.variant == variant.name]
            _line(axes, place, variant.name, [c for c in curves if c])
        axes.set(xlabel="step", ylabel=title)
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", fontsize=9)
    return figure


def _line(axes: Axes, place: int, name: str, curves: list[Curve]) -> None:
    """The mean of some curves of (step, value), at the steps that all of them have."""
    steps = sorted(set.intersection(*({step for step, _ in curve} for curve in curves))) if curves else []
    values: NDArray[np.float64] = np.array([[dict(curve)[step] for step in steps] for curve in curves])
    colour = "black" if place == 0 else colormaps["tab20"]((place - 1) % 20)
    mean = values.mean(axis=0) if curves else []
    axes.plot(steps, mean, color=colour, linewidth=2.2 if place == 0 else 1.3, label=name)
