"""Pictures of the benchmark book: bars with their spread, and a mark where each was to end."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.book_result import Result, Row

FEWEST = 3
"""Rows of one unit that are worth a picture."""
COLOURS = {True: "#3a7d44", False: "#b23a48", None: "#5b7c99"}
"""Aim reached, missed, no aim."""


def plotted(results: Mapping[str, Result]) -> dict[str, list[tuple[str, Row]]]:
    """Rows of a table with what is written beside them, by unit, where there are enough of them."""
    units: dict[str, list[tuple[str, Row]]] = {}
    for name, result in results.items():
        label = name.partition(".")[2]
        for row in result.rows:
            units.setdefault(row.unit, []).append((f"{row.claim} [{label}]" if label else row.claim, row))
    return {unit: rows for unit, rows in units.items() if len(rows) >= FEWEST}


def draw(results: Mapping[str, Result], file: Path) -> None:
    """Write the picture of a table: one panel for each unit."""
    panels = plotted(results)
    heights = [len(rows) + 2 for rows in panels.values()]
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc("svg", hashsalt="heatquery", fonttype="none")  # the same rows make the same bytes
        mpl.rc("font", size=8)
        figure = Figure(figsize=(10, 0.2 * sum(heights)), layout="constrained")
        axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, (unit, rows) in zip(axes, panels.items(), strict=True):
            _bars(panel, unit, rows)
        figure.savefig(file, format="svg", metadata={"Date": None})


def _bars(axes: Axes, unit: str, told: Sequence[tuple[str, Row]]) -> None:
    names, rows = zip(*told, strict=True)
    places = range(len(rows))
    axes.barh(places, [row.value for row in rows], color=[COLOURS[row.reached] for row in rows], height=0.6)
    for place, row in zip(places, rows, strict=True):
        if row.low is not None and row.high is not None:
            axes.plot([row.low, row.high], [place, place], color="black", linewidth=1)
        aim = row.at_least if row.at_most is None else row.at_most
        if aim is not None:
            axes.plot([aim, aim], [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.set_yticks(places, names)
    axes.set_xlabel(f"{unit}; a black bar across is the aim" if any(row.aim for row in rows) else unit)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
