"""`python -m training evaluate`: measures a checkpoint, and writes tables and pictures of what it found."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from model.checkpoint import load_detector
from training.config import Recipe
from training.data.datasets import CocoDataset
from training.evaluation import curves
from training.evaluation.evaluate import Findings
from training.evaluation.matches import match
from training.evaluation.metrics import Metrics, shown
from training.loop import best_device, look_at, matching_val_set
from training.pictures.sheets import Colour, Tile, sheet

GREEN, RED, YELLOW = (60, 230, 90), (255, 60, 50), (255, 225, 0)
LEGEND: dict[str, Colour] = {"box that was found": GREEN, "false detection": RED, "box that was missed": YELLOW}

WORST = 12
"""Pictures on the sheet of the worst."""


def evaluate_checkpoint(checkpoint: Path, recipe_path: Path, out: Path | None, every_layer: bool) -> str:
    """Measure a checkpoint on the val pictures of a recipe; returns the tables as Markdown.

    Args:
        checkpoint: folder RUN/checkpoints/step-*.
        recipe_path: its [data] section names the pictures.
        out: folder for metrics.json, report.md and pictures; None writes nothing.
        every_layer: measure the proposals and every decoder layer too.
    Raises:
        ValueError: the recipe names no val pictures, or the detector knows other classes.
    """
    detector, recipe = load_detector(checkpoint).to(best_device()), Recipe.from_toml(recipe_path)
    pictures = matching_val_set(detector, recipe)
    findings = look_at(pictures, detector, recipe, every_layer)
    layers = findings.layer_metrics()
    tables = layers[-1].table() + (f"\n\n{layer_table(layers)}" if every_layer else "")
    if out is not None:
        title = f"{checkpoint.name} on {len(pictures)} val pictures of {recipe_path.name}"
        write_report(out, title, tables, findings, layers, pictures)
    return tables


def layer_table(layers: Sequence[Metrics]) -> str:
    """Markdown: what each decoder layer would give if it were the last (HMPE, Table 4); Det0 are the proposals."""
    sizes = [name.split(" (")[0] for name in layers[0].ap_by_size]
    names = ["", "AP", "AP50", "AP75", *(f"AP {size}" for size in sizes), "AR", "best F1"]
    lines = [f"| {' | '.join(names)} |", "|---" + "|---:" * (len(names) - 1) + "|"]
    for layer, metrics in enumerate(layers):
        figures = [metrics.ap, metrics.ap50, metrics.ap75, *metrics.ap_by_size.values(), metrics.ar, metrics.best_f1]
        lines.append(f"| Det{layer} | {' | '.join(shown(value) for value in figures)} |")
    return "\n".join(lines)


def write_report(
    out: Path, title: str, tables: str, findings: Findings, layers: Sequence[Metrics], pictures: CocoDataset
) -> None:
    """Write metrics.json, report.md and the pictures into a folder, which is made if it is missing."""
    out.mkdir(parents=True, exist_ok=True)
    metrics = layers[-1]
    figures = asdict(metrics) | ({"layers": [asdict(layer) for layer in layers]} if len(layers) > 1 else {})
    (out / "metrics.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    drawn = {
        "precision-recall": curves.precision_recall(metrics),
        "confusion": curves.confusion(metrics),
        "ap-by-size": curves.ap_by_size(metrics),
    }
    if findings.counts:
        true = [len(truth.labels) for truth in findings.truths]
        drawn["counts"] = curves.count_scatter(true, findings.counts, metrics)
    names = [curves.save(figure, out, name) for name, figure in drawn.items()]
    worst_sheet(findings, pictures, metrics.operating_threshold).save(out / "worst.png")
    shown_pictures = "\n\n".join(f"![{Path(name).stem}]({name})" for name in [*names, "worst.png"])
    (out / "report.md").write_text(f"# {title}\n\n{tables}\n\n{shown_pictures}\n", encoding="utf-8")


def worst_sheet(findings: Findings, pictures: CocoDataset, threshold: float) -> Image.Image:
    """The pictures with the most false and missed boxes among what is told above the threshold."""
    faults: list[tuple[int, int]] = []  # (false, missed) per picture
    for truth, found in zip(findings.truths, findings.by_layer[-1], strict=True):
        right = int((match(truth, found.above(threshold)) >= 0).sum())
        faults.append((len(found.above(threshold).scores) - right, len(truth.labels) - right))
    order = np.argsort([-sum(fault) for fault in faults], kind="stable")[:WORST]
    tiles = [_worst_tile(findings, pictures, place, threshold) for place in order.tolist() if sum(faults[place])]
    title = f"The {len(tiles)} pictures with the most false and missed boxes (score > {threshold:g}, IoU 0.5)"
    return sheet(tiles or [_nothing_wrong()], columns=4, side=480, title=title, legend=LEGEND)


def _worst_tile(findings: Findings, pictures: CocoDataset, place: int, threshold: float) -> Tile:
    """One picture with its found, missed and false boxes."""
    index, truth = findings.indices[place], findings.truths[place]
    told = findings.by_layer[-1][place].above(threshold)
    matched = match(truth, told)
    found = np.isin(np.arange(len(truth.labels)), matched)  # (G,)
    false = told.boxes[matched < 0]
    boxes = np.concatenate([truth.boxes[found], truth.boxes[~found], false])
    colours = [GREEN] * int(found.sum()) + [YELLOW] * int((~found).sum()) + [RED] * len(false)
    caption = f"{pictures.paths[index].name}: {len(false)} false, {int((~found).sum())} of {len(truth.labels)} missed"
    return Tile(pictures[index].image, boxes, colours, caption)


def _nothing_wrong() -> Tile:
    blank = np.full((1, 1, 3), 255, dtype=np.uint8)
    return Tile(blank, np.zeros((0, 4), np.float32), [], "nothing is wrong on any picture")
