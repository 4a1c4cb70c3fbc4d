"""One run of an ablation, in a process of its own: `python -m training.ablation.run RUN_FOLDER`.

The folder holds `recipe.toml`. The run is trained or resumed there, measured on val, and described in `figures.json`.
"""

import json
import os
import platform
import sys
import time
from pathlib import Path

import torch

from model.checkpoint import load_detector
from training.ablation.results import Figures
from training.config import Recipe
from training.evaluation.metrics import Metrics
from training.loop import best_device, fit, look_at, matching_val_set
from training.tracking import RunFolder, steps_done, write_whole

COST = "cost.json"
"""Written when training is done, so that the cost is not lost if the measurement is interrupted."""
CURVE_POINTS = 50


def run(folder: Path) -> None:
    """Train or resume, measure, and write `figures.json`.

    Raises:
        ValueError: a bad recipe or bad data.
        FloatingPointError: the loss stayed infinite or NaN.
    """
    recipe = Recipe.from_toml(folder / "recipe.toml")
    before = RunFolder(folder).latest()
    first = 0 if before is None else steps_done(before)
    wall, cpu = time.perf_counter(), _cpu_seconds()
    checkpoint = fit(folder / "recipe.toml", folder, resume=True)
    if first < recipe.run.steps:
        whole = recipe.run.steps / (recipe.run.steps - first)  # a resumed run has timed a part of its steps
        cost = {"seconds": whole * (time.perf_counter() - wall), "cpu_seconds": whole * (_cpu_seconds() - cpu)}
        write_whole(folder / COST, json.dumps(cost))
    detector = load_detector(checkpoint).to(best_device())
    layers = look_at(matching_val_set(detector, recipe), detector, recipe, every_layer=True).layer_metrics()
    figures = Figures(
        metrics=numbers(layers[-1]),
        layers=[layer.ap for layer in layers],
        parameters=sum(parameter.numel() for parameter in detector.parameters()),
        device=_device_name(),
        loss_curve=thinned(_curve(folder, "loss")),
        ap_curve=_curve(folder, "val/ap"),
        **read_cost(folder / COST),
    )
    write_whole(folder / "figures.json", figures.model_dump_json())


def numbers(metrics: Metrics) -> dict[str, float | None]:
    """The figures over all classes, by field; AP by size as ap_very_tiny, ap_tiny and so on."""
    names = ("ap", "ap50", "ap75", "ar", "precision", "recall", "best_f1")
    names += ("count_mae", "count_relative_mae", "count_correlation", "mean_queries")
    sizes = {f"ap_{name.split(' (')[0].replace(' ', '_')}": value for name, value in metrics.ap_by_size.items()}
    return {name: getattr(metrics, name) for name in names} | sizes


def thinned(curve: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most CURVE_POINTS points of a curve, each the mean of a stretch, told at its last step."""
    size = -(-len(curve) // CURVE_POINTS)
    stretches = [curve[first : first + size] for first in range(0, len(curve), size)] if curve else []
    return [(stretch[-1][0], sum(value for _, value in stretch) / len(stretch)) for stretch in stretches]


def _curve(folder: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of a figure in the run's log; steps at which it was not finite are left out."""
    entries = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(entry["step"], entry[name]) for entry in entries if entry.get(name) is not None]


def read_cost(path: Path) -> dict[str, float | None]:
    """What was written of the time; nothing is known of a run that died between its last checkpoint and that."""
    if not path.exists():
        return {"seconds": None, "cpu_seconds": None}
    return json.loads(path.read_text(encoding="utf-8"))


def _cpu_seconds() -> float:
    """CPU time of this process and of the loader processes that have ended."""
    return sum(os.times()[:4])


def _device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"{platform.machine()} CPU, {threads} {'thread' if threads == 1 else 'threads'}"


if __name__ == "__main__":
    try:
        run(Path(sys.argv[1]))
    except (OSError, FloatingPointError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
