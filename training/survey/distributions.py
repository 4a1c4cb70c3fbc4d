"""Charts of annotated pictures: how large, how many, which classes."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from training.evaluation.curves import panel
from training.survey.measure import Survey

COLOURS = ("tab:blue", "tab:orange")
RANGES = {"very tiny": (2, 8), "tiny": (8, 16), "small": (16, 32), "medium": (32, 64)}
"""AI-TOD's sizes, in pixels of the root of the area."""


def distributions(surveys: Sequence[Survey], longest: int | None) -> Figure:
    """Six plots on one page; of two surveys, each is drawn as shares of its own.

    Args:
        longest: the side to which training resizes pictures; None leaves out the plot of it.
    """
    figure = Figure(figsize=(15, 8.4 + 0.16 * len(surveys[0].classes)), layout="constrained")
    places = iter((2, 3, number) for number in range(1, 7))
    share = "share of the boxes"
    _sizes(panel(figure, "Object size as stored", "root of the area, px", share, next(places)), surveys, None)
    if longest:
        title = f"Object size with pictures at {longest} px"
        _sizes(panel(figure, title, "root of the area, px", share, next(places)), surveys, longest)
    _boxes_per_picture(panel(figure, "Boxes per picture", "boxes", "share of the pictures", next(places)), surveys)
    _boxes_per_class(panel(figure, "Boxes per class", "boxes", "", next(places)), surveys)
    _aspect_ratios(panel(figure, "Shape of the boxes", "width / height", share, next(places)), surveys)
    _picture_sizes(panel(figure, "Size of the pictures", "width, px", "height, px", next(places)), surveys)
    return figure


def _sizes(axes: Axes, surveys: Sequence[Survey], longest: int | None) -> None:
    """Root of the area on a logarithmic axis, four bars to a doubling, over AI-TOD's ranges."""
    sizes = [np.sqrt(survey.sides(longest).prod(axis=1)) for survey in surveys]
    largest = max(128.0, *(size.max(initial=1) for size in sizes))
    bins = 2 ** np.arange(1, np.log2(largest) + 0.25, 0.25)
    for place, (name, (low, high)) in enumerate(RANGES.items()):
        axes.axvspan(low, high, color="black", alpha=0.10 - 0.02 * place, linewidth=0)
        middle = float(np.sqrt(low * high))
        axes.text(middle, 0.995, name, transform=axes.get_xaxis_transform(), ha="center", va="top", fontsize=8)
    for place, (survey, size) in enumerate(zip(surveys, sizes, strict=True)):
        _outline(axes, np.clip(size, 2, None), bins, survey.name, place)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.margins(y=0.12)


def _boxes_per_picture(axes: Axes, surveys: Sequence[Survey]) -> None:
    most = max(survey.box_counts.max() for survey in surveys)
    bins = np.linspace(-0.5, most + 0.5, min(int(most) + 2, 41))
    for place, survey in enumerate(surveys):
        _outline(axes, survey.box_counts, bins, survey.name, place)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, loc="upper right")  # where there is room: few pictures are full


def _boxes_per_class(axes: Axes, surveys: Sequence[Survey]) -> None:
    classes = surveys[0].classes
    height = 0.8 / len(surveys)
    for place, survey in enumerate(surveys):
        counts = np.bincount(survey.labels, minlength=len(classes))
        where = np.arange(len(classes)) + (place - (len(surveys) - 1) / 2) * height
        bars = axes.barh(where, counts, height=height, color=COLOURS[place], label=survey.name)
        axes.bar_label(bars, padding=2, fontsize=8)
    axes.set_yticks(range(len(classes)), list(classes))
    axes.set_ylim(max(len(classes), 4) - 0.5, -0.5)  # the first class on top; no bar fills the page
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)


def _aspect_ratios(axes: Axes, surveys: Sequence[Survey]) -> None:
    bins = 2 ** np.linspace(-4, 4, 41)
    for place, survey in enumerate(surveys):
        sides = survey.sides()
        _outline(axes, np.clip(sides[:, 0] / sides[:, 1], bins[0], bins[-1]), bins, survey.name, place)
    axes.set_xscale("log", base=2)
    axes.set_xticks([1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8], ["1/8", "1/4", "1/2", "1", "2", "4", "8"])


def _picture_sizes(axes: Axes, surveys: Sequence[Survey]) -> None:
    """A dot per size, as large as it is frequent."""
    for place, survey in enumerate(surveys):
        sizes, counts = np.unique([facts.size for facts in survey.pictures], axis=0, return_counts=True)
        area = 20 + 400 * counts / counts.sum()
        axes.scatter(sizes[:, 0], sizes[:, 1], s=area, alpha=0.45, color=COLOURS[place], linewidths=0)
    limit = 1.08 * max(max(facts.size) for survey in surveys for facts in survey.pictures)
    axes.set(xlim=(0, limit), ylim=(0, limit), aspect="equal")


def _outline(axes: Axes, values: NDArray[np.number], bins: NDArray[np.float64], label: str, place: int) -> None:
    """A histogram as shares of its values."""
    counts, _ = np.histogram(values, bins)
    shares = counts / max(len(values), 1)
    axes.stairs(shares, bins, fill=True, color=COLOURS[place], alpha=0.35 if place == 0 else 0.25)
    axes.stairs(shares, bins, color=COLOURS[place], linewidth=1.8, label=label)
