"""Pictures of an evaluation: precision over recall, confusion of classes, AP by size, counts."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from training.evaluation.metrics import Metrics


def save(figure: Figure, folder: Path, name: str) -> str:
    """Write NAME.png and NAME.svg; returns the name of the first, to be shown in a report."""
    figure.savefig(folder / f"{name}.png", dpi=120)
    figure.savefig(folder / f"{name}.svg", metadata={"Date": None})  # the same figures give the same file
    return f"{name}.png"


def panel(figure: Figure, title: str, x: str, y: str, place: tuple[int, int, int] = (1, 1, 1)) -> Axes:
    """A plot with its words, in cell `place` of (rows, columns, number from 1)."""
    axes = figure.add_subplot(*place)
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
    return axes


def precision_recall(metrics: Metrics) -> Figure:
    """Precision over recall at IoU 0.5, a line per class; the area under a line is the class's AP50."""
    drawn = {name: row for name, row in metrics.by_class.items() if row.curve is not None}
    figure = Figure(figsize=(8.4, 5.2), layout="constrained")
    axes = panel(figure, "Precision over recall, IoU 0.5", "recall", "precision")
    curves = np.array([row.curve for row in drawn.values()])  # (C, 101)
    recall = np.linspace(0, 1, curves.shape[1])
    for place, (name, row) in enumerate(drawn.items()):
        label = f"{name} ({row.ap50:.2f})"
        colour = colormaps["tab20"]((2 * place + place // 10) % 20)  # the ten strong colours, then the ten pale ones
        axes.plot(recall, curves[place], color=colour, linewidth=1.5, label=label)
    if len(drawn) > 1:
        axes.plot(recall, curves.mean(axis=0), color="black", linewidth=2.5, label=f"mean ({metrics.ap50:.2f})")
    axes.plot(
        [metrics.recall], [metrics.precision], "k*", markersize=11, label=f"score > {metrics.operating_threshold:g}"
    )
    axes.set(xlim=(0, 1.01), ylim=(0, 1.02))
    figure.legend(loc="outside right upper", frameon=False, fontsize=9, title="class (AP50)")
    return figure


def confusion(metrics: Metrics) -> Figure:
    """Who is taken for whom; each row is coloured by its share of the boxes of that class."""
    names = [*metrics.by_class, "background"]
    matrix = np.array(metrics.confusion)  # (C + 1, C + 1)
    share = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    side = 3.2 + 0.52 * len(names)
    figure = Figure(figsize=(side + 1.2, side), layout="constrained")
    title = f"Confusion at score > {metrics.operating_threshold:g}, IoU 0.5"
    axes = panel(figure, title, "predicted (last column: missed)", "true (last row: false alarms)")
    axes.grid(visible=False)
    shown = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    for row, column in np.argwhere(matrix):
        colour = "white" if share[row, column] > 0.55 else "black"
        axes.text(column, row, str(matrix[row, column]), ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(shown, ax=axes, label="share of the row", shrink=0.8)
    return figure


def ap_by_size(metrics: Metrics) -> Figure:
    """AP of AI-TOD's size ranges as bars."""
    values = {"all": metrics.ap, **metrics.ap_by_size}
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    axes = panel(figure, "AP by size (root of the area, px)", "", "AP")
    heights = [value or 0.0 for value in values.values()]
    bars = axes.bar(range(len(values)), heights, color=["black", *["tab:blue"] * len(metrics.ap_by_size)], width=0.7)
    axes.bar_label(bars, ["no boxes" if value is None else f"{value:.3f}" for value in values.values()], padding=2)
    axes.set_xticks(range(len(values)), [name.replace(" (", "\n(") for name in values])
    axes.set_ylim(0, 1)
    axes.grid(axis="x", visible=False)
    return figure


def count_scatter(true: Sequence[int], estimated: Sequence[float], metrics: Metrics) -> Figure:
    """The estimated number of objects of each picture over the true one."""
    figure = Figure(figsize=(5.8, 5.8), layout="constrained")
    error = f"mean error {metrics.count_mae:.2f}, {metrics.count_relative_mae:.1%} of the boxes"
    axes = panel(figure, f"Objects per picture: {error}", "boxes there are", "estimate (sum of the density)")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(8, integer=True))
    limit = 1.05 * max(*true, *estimated, 1)
    axes.plot([0, limit], [0, limit], color="black", linewidth=1, label="right")
    axes.scatter(true, estimated, s=24, alpha=0.5, color="tab:blue", linewidths=0, label="a picture")
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")
    axes.legend(frameon=False)
    return figure
