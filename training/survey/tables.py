"""What is in the data as Markdown tables, and what follows from it for a recipe."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from training.config import Recipe
from training.data.canvas import fitted_size
from training.evaluation.metrics import SIZES
from training.survey.measure import Survey, Twins

RARE = 20
"""Boxes below which a class is hard to learn."""
UNEVEN = 20
"""Times that the most frequent class may outnumber the rarest."""
CROWDED = 0.01
"""Share of the boxes that may lose their place in the density map because they share a cell."""

LARGEST = 95
"""Percentile of the longer side of the boxes that tiles overlap by. The few that are larger are joined from parts."""


def overview(surveys: Sequence[Survey], longest: int | None) -> str:
    def quantiles(values: NDArray[np.number], digits: int = 0) -> str:
        if not len(values):
            return "-"
        low, middle, high = np.percentile(values, [5, 50, 95])
        return f"{low:.{digits}f} / {middle:.{digits}f} / {high:.{digits}f}"

    rows: dict[str, list[str]] = {
        "pictures": [str(len(seen.pictures)) for seen in surveys],
        "of these without boxes": [str(int((seen.box_counts == 0).sum())) for seen in surveys],
        "broken": [str(len(seen.problems)) for seen in surveys],
        "boxes": [str(seen.report.boxes) for seen in surveys],
        "boxes cut at the border of the picture": [str(seen.report.clipped) for seen in surveys],
        "boxes without area, left out": [str(seen.report.degenerate) for seen in surveys],
        "crowd boxes, left out": [str(seen.report.crowd) for seen in surveys],
        "boxes per picture, 5 / 50 / 95 %": [quantiles(seen.box_counts) for seen in surveys],
        "most boxes in a picture": [str(seen.box_counts.max()) for seen in surveys],
        "root of the area, px, 5 / 50 / 95 %": [quantiles(roots(seen, None), 1) for seen in surveys],
        "width / height, 5 / 50 / 95 %": [quantiles(aspects(seen), 2) for seen in surveys],
        "longest side of a picture, px, 5 / 50 / 95 %": [
            quantiles(np.array([max(facts.size) for facts in seen.pictures])) for seen in surveys
        ],
    }
    if longest:
        rows[f"the root with pictures at {longest} px"] = [quantiles(roots(seen, longest), 1) for seen in surveys]
    return markdown(["", *(seen.name for seen in surveys)], [[name, *values] for name, values in rows.items()])


def class_table(surveys: Sequence[Survey]) -> str:
    header = ["class"]
    for seen in surveys:
        header += [f"{seen.name} boxes", "share", "pictures", "median px"]
    rows = []
    for label, name in enumerate(surveys[0].classes):
        row = [name]
        for seen in surveys:
            mine = seen.labels == label
            pictures = sum(int((facts.labels == label).any()) for facts in seen.pictures)
            median = f"{np.median(roots(seen, None)[mine]):.1f}" if mine.any() else "-"
            row += [str(mine.sum()), f"{mine.sum() / max(len(mine), 1):.1%}", str(pictures), median]
        rows.append(row)
    return markdown(header, rows)


def size_table(surveys: Sequence[Survey], longest: int | None) -> str:
    header, columns = ["root of the area"], []
    for seen in surveys:
        for side in (None, longest) if longest else (None,):
            header.append(f"{seen.name} at {side} px" if side else f"{seen.name} as stored")
            columns.append(roots(seen, side) ** 2)
    rows = []
    for name, (low, high) in SIZES.items():
        counts = [int(((areas >= low) & (areas < high)).sum()) for areas in columns]
        rows.append([name, *(f"{n} ({n / max(len(a), 1):.0%})" for n, a in zip(counts, columns, strict=True))])
    return markdown(header, rows)


def cell_table(surveys: Sequence[Survey], longest: int | None) -> str:
    where = f"with pictures at {longest} px" if longest else "with pictures as stored"
    header = ["stride", *(f"{seen.name}: boxes that share a cell" for seen in surveys)]
    rows = []
    for stride in (4, 8, 16, 32):
        shared = [(shared_cells(seen, longest, stride), max(seen.report.boxes, 1)) for seen in surveys]
        rows.append([str(stride), *(f"{n} ({n / of:.1%})" for n, of in shared)])
    words = f"How many boxes have their centre in a cell with that of another, {where}: a density cell holds at most 1."
    return f"{words}\n\n{markdown(header, rows)}"


def suggestions(surveys: Sequence[Survey], recipe: Recipe | None, across: Sequence[Twins]) -> list[str]:
    """What the data ask of a recipe, one sentence each, with the figures that say so."""
    longest = recipe.data.train_size if recipe else None
    lines = [_strides(surveys[0], recipe, longest), _queries(surveys, recipe)]
    small = float((roots(surveys[0], longest) < 4).mean()) if surveys[0].report.boxes else 0.0
    if small > 0.05:
        way = "raise data.train_size, or cut the pictures into chips"
        lines.append(f"{small:.0%} of the boxes are below 4 px {_at(longest)}, too small to be seen: {way}.")
    if recipe and (lost := _too_small(surveys[0], recipe)):
        lines.append(f"data.min_box_px {recipe.data.min_box_px:g} leaves out {lost} of the train boxes.")
    if recipe and surveys[0].report.boxes:
        lines.append(_largest(surveys[0], recipe.data.val_size))
    lines += _balance(surveys)
    if across:
        lines.append(f"{len(across)} pairs of train and val pictures look alike (below): val figures would flatter.")
    broken = sum(len(seen.problems) for seen in surveys)
    if broken:
        lines.append(f"{broken} pictures are broken (below): repair them, or take them out of the annotations.")
    return lines


def _strides(train: Survey, recipe: Recipe | None, longest: int | None) -> str:
    """Finest: nine boxes of ten span two cells, and few share one. Coarsest: nineteen of twenty span at most four."""
    sides = roots(train, longest)
    if not len(sides):
        return "There is no box in the train pictures: there is nothing to learn."
    low, high = np.percentile(sides, [10, 95])
    crowded = {stride: shared_cells(train, longest, stride) / len(sides) for stride in (4, 8, 16)}
    finest = max((stride for stride in crowded if low >= 2 * stride and crowded[stride] <= CROWDED), default=4)
    coarsest = next((stride for stride in (16, 32) if stride > finest and high <= 4 * stride), 64)
    why = f"10 % of the boxes are below {low:.0f} px and 5 % above {high:.0f} px {_at(longest)}"
    line = f"Strides {finest} to {coarsest}: {why}; {crowded[finest]:.1%} share a cell at stride {finest}."
    if recipe:
        line += f" The recipe has {', '.join(map(str, recipe.model.detector(recipe.data.classes).strides))}."
    return line


def _queries(surveys: Sequence[Survey], recipe: Recipe | None) -> str:
    """Training asks for 1.5 queries per true object, so k_max must allow that on the fullest picture."""
    most = max(int(seen.box_counts.max()) for seen in surveys)
    wanted = max(100, 50 * math.ceil(1.5 * most / 50))
    line = f"query.k_max of {wanted} or more: the fullest picture has {most} boxes, and each takes 1.5 queries."
    if recipe is None:
        return line
    has = recipe.model.detector(recipe.data.classes).query.k_max
    return f"{line} The recipe has {has}{', which is too few' if has < wanted else ''}."


def _too_small(train: Survey, recipe: Recipe) -> int:
    """Boxes that training drops."""
    return int((train.sides(recipe.data.train_size) < recipe.data.min_box_px).any(axis=1).sum())


def _largest(train: Survey, canvas: int) -> str:
    """How far the tiles of a scene should overlap."""
    side = np.percentile(train.sides(canvas).max(axis=1), LARGEST)
    why = f"on a canvas of {canvas} px, {LARGEST} % of the train boxes are no longer than that"
    return f"largest_object_px = {side:.1f} in the model's card: {why}."


def _balance(surveys: Sequence[Survey]) -> list[str]:
    """Rare and missing classes."""
    lines = []
    for seen in surveys:
        counts = np.bincount(seen.labels, minlength=len(seen.classes))
        if missing := [name for name, count in zip(seen.classes, counts, strict=True) if count == 0]:
            lines.append(f"{seen.name} has no box of {', '.join(missing)}.")
    counts = np.bincount(surveys[0].labels, minlength=len(surveys[0].classes))
    present = counts[counts > 0]
    if len(present) and present.max() > UNEVEN * present.min():
        rarest = surveys[0].classes[int(np.flatnonzero(counts == present.min())[0])]
        commonest = surveys[0].classes[int(counts.argmax())]
        ratio = present.max() / present.min()
        lines.append(f"{commonest} has {ratio:.0f} times the boxes of {rarest}: its AP will be the hardest to raise.")
    if few := [f"{n} ({c})" for n, c in zip(surveys[0].classes, counts, strict=True) if 0 < c < RARE]:
        lines.append(f"Fewer than {RARE} boxes to learn from: {', '.join(few)}.")
    return lines


def shared_cells(seen: Survey, longest: int | None, stride: int) -> int:
    """Boxes whose centre lies in a cell of `stride` pixels with the centre of another box."""
    shared = 0
    for facts in seen.pictures:
        if not len(facts.labels):
            continue
        size = fitted_size(facts.size, longest) if longest else facts.size
        centres = (facts.boxes[:, :2] + facts.boxes[:, 2:]) / 2 * np.array(size) / np.array(facts.size)
        _, counts = np.unique(np.floor(centres / stride), axis=0, return_counts=True)
        shared += int(counts[counts > 1].sum())
    return shared


def roots(seen: Survey, longest: int | None) -> NDArray[np.float64]:
    """(boxes,), root of the area in pixels, once the longest side of each picture is `longest`."""
    return np.sqrt(seen.sides(longest).prod(axis=1))


def aspects(seen: Survey) -> NDArray[np.float64]:
    """(boxes,), width over height."""
    sides = seen.sides()
    return sides[:, 0] / sides[:, 1]


def _at(longest: int | None) -> str:
    return f"with pictures at {longest} px" if longest else "as stored"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is words and whose others are figures."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
