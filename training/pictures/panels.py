"""Draws what the detector sees in a picture as one panel of tiles, each the picture with something over it."""

from collections.abc import Callable
from functools import partial
from math import ceil

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PolyCollection
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from training.pictures.seeing import Floats, Seen
from training.pictures.sheets import class_colours

DPI = 110
COLUMNS = 3
SIDE, BAR, CAPTION = 5.0, 0.8, 0.4
"""Inches: longest side of a tile, room for the heat bar beside it, for the caption above it."""
LEAST_DENSITY = 0.01
"""Objects per cell; a map that is nowhere above this is noise and must not be stretched to look hot."""

Draw = Callable[[Axes], None]


def draw_panel(seen: Seen, title: str) -> Figure:
    """The panel; a detector without a part (heat, density, LSConv) has no tile for it."""
    tiles = _tiles(seen)
    height, width = (SIDE * side / max(seen.picture.shape[:2]) for side in seen.picture.shape[:2])
    columns, rows = min(COLUMNS, len(tiles)), ceil(len(tiles) / COLUMNS)
    total = columns * (width + BAR) + 0.2, rows * (height + CAPTION) + CAPTION + 0.2
    figure = Figure(figsize=total, dpi=DPI)
    figure.text(0.1 / total[0], 1 - 0.3 / total[1], title, fontsize=15, weight="bold")
    for place, (caption, draw) in enumerate(tiles.items()):
        left = 0.1 + place % columns * (width + BAR)
        bottom = total[1] - CAPTION - (place // columns + 1) * (height + CAPTION)
        axes = figure.add_axes((left / total[0], bottom / total[1], width / total[0], height / total[1]))
        axes.imshow(seen.picture, extent=_extent(seen.picture))
        axes.set_title(caption, loc="left", fontsize=13)
        axes.set_axis_off()
        draw(axes)
    return figure


def _tiles(seen: Seen) -> dict[str, Draw]:
    """Caption to what is drawn over the picture."""
    height, width = seen.picture.shape[:2]
    tiles: dict[str, Draw] = {f"picture, {width} x {height} px": partial(_mark_cell, seen=seen)}
    for name, values in seen.maps.items():
        tiles[name] = partial(_mask, mask=values) if name == "mask" else partial(_heat, heat=values, top=1)
    if seen.density is not None:
        top = max(float(seen.density.max()), LEAST_DENSITY)
        tiles[f"density, estimated count {seen.count:.1f}"] = partial(_heat, heat=seen.density, top=top)
    tiles[f"queries by score, K = {len(seen.queries.scores)}"] = partial(_queries, seen=seen)
    tiles[f"detections: {len(seen.detections.scores)}"] = partial(_detections, seen=seen)
    if seen.snakes:
        tiles["snake paths of the marked cell"] = partial(_snakes, seen=seen)
    return tiles


def _extent(image: NDArray[np.generic]) -> tuple[float, float, float, float]:
    """Places an image so that pixel (row, column) covers column..column + 1 and row..row + 1."""
    return 0, image.shape[1], image.shape[0], 0


def _bar(axes: Axes, colours: Colormap, top: float) -> None:
    """A heat bar beside a tile."""
    beside = axes.inset_axes((1.015, 0, 0.035, 1))
    axes.figure.colorbar(ScalarMappable(Normalize(0, top), colours), cax=beside)
    beside.tick_params(labelsize=10)


def _heat(axes: Axes, heat: Floats, top: float) -> None:
    """Heat over the picture; colour fades in up to half heat, so that cold places stay clear."""
    colours = colormaps["turbo"]
    share = np.clip(heat / top, 0, 1)
    layer = colours(share)  # (H, W, 4)
    layer[..., 3] = 0.65 * np.minimum(1, 2 * share)
    axes.imshow(layer, extent=_extent(heat))
    _bar(axes, colours, top)


def _mask(axes: Axes, mask: Floats) -> None:
    """Cold places go dark."""
    layer = np.zeros((*mask.shape, 4))
    layer[..., 3] = 0.85 * (1 - np.clip(mask, 0, 1))
    axes.imshow(layer, extent=_extent(mask))
    _bar(axes, colormaps["gray"], 1)


def _rectangles(boxes: Floats) -> list[Floats]:
    """(M, 4) xyxy to the corners (4, 2) of each."""
    return list(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))


def _queries(axes: Axes, seen: Seen) -> None:
    """Boxes and centres of the queries, the best on top."""
    colours = colormaps["turbo"]
    boxes, scores = seen.queries.boxes[::-1], seen.queries.scores[::-1]
    top = max(float(scores.max(initial=0)), 1e-3)
    shades = colours(scores / top)
    axes.add_collection(PolyCollection(_rectangles(boxes), facecolors="none", edgecolors=shades, linewidths=1))
    axes.scatter(*((boxes[:, :2] + boxes[:, 2:]) / 2).T, c=shades, s=5, linewidths=0)
    _keep_limits(axes, seen)
    _bar(axes, colours, top)


def _detections(axes: Axes, seen: Seen) -> None:
    """Boxes of the detections, a colour per class."""
    colours = np.array(class_colours(len(seen.classes))) / 255
    found = seen.detections
    axes.add_collection(
        PolyCollection(_rectangles(found.boxes), facecolors="none", edgecolors=colours[found.labels], linewidths=1.6)
    )
    counts = np.bincount(found.labels, minlength=len(seen.classes))
    handles = [
        Patch(color=colours[label], label=f"{seen.classes[label]}: {counts[label]}") for label in counts.nonzero()[0]
    ]
    if handles:
        axes.legend(handles=handles, loc="lower right", fontsize=10, framealpha=0.6)
    _keep_limits(axes, seen)


def _mark_cell(axes: Axes, seen: Seen) -> None:
    if seen.snakes:
        axes.plot(*seen.cell, marker="+", markersize=14, markeredgewidth=2.5, color="white")
        axes.plot(*seen.cell, marker="+", markersize=12, markeredgewidth=1.2, color="black")
        _keep_limits(axes, seen)


def _snakes(axes: Axes, seen: Seen) -> None:
    """The two bent strips, close up."""
    for path, colour, name in zip(seen.snakes, ("cyan", "yellow"), ("along x", "along y"), strict=True):
        axes.plot(*path.T, color="black", linewidth=3.5)
        axes.plot(*path.T, color=colour, linewidth=1.8, marker="o", markersize=5, markeredgecolor="black", label=name)
    reach = 1.3 * max(float(np.abs(path - np.array(seen.cell)).max()) for path in seen.snakes)
    axes.set(xlim=(seen.cell[0] - reach, seen.cell[0] + reach), ylim=(seen.cell[1] + reach, seen.cell[1] - reach))
    axes.set_aspect("equal", adjustable="box")
    axes.legend(loc="lower right", fontsize=10)


def _keep_limits(axes: Axes, seen: Seen) -> None:
    """Show the whole picture and nothing around it, whatever was drawn."""
    height, width = seen.picture.shape[:2]
    axes.set(xlim=(0, width), ylim=(height, 0))
