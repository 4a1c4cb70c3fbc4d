"""What the book tells of the JSON files that benchmarks write: one function for each kind of file."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks import scene_report, serving_report
from benchmarks.book_result import Number, Row
from benchmarks.peer_report import Spread, ratio
from benchmarks.scene_figures import SceneFigures
from benchmarks.serving_figures import Figures

ReadRows: TypeAlias = Callable[[Path], list[Row]]
ACCURACY = {
    "ap50": ("AP50", ""),
    "ap": ("AP", ""),
    "ap75": ("AP75", ""),
    "precision": ("precision at score {operating_threshold:g}", ""),
    "recall": ("recall at score {operating_threshold:g}", ""),
    "count_mae": ("estimated against true count, mean difference", "objects"),
    "count_relative_mae": ("estimated against true count, mean difference as a share of the objects", ""),
    "count_correlation": ("estimated against true count, correlation", ""),
}
"""Field of an evaluation to its claim, with other fields in braces, and unit."""
SIZES = {
    "very tiny (2-8)": "AP of objects of 2 to 8 px",
    "tiny (8-16)": "AP of objects of 8 to 16 px",
    "small (16-32)": "AP of objects of 16 to 32 px",
}
PEERS: tuple[tuple[str, str, dict[str, Number]], ...] = (
    ("nano", "yolo11n", {"at_most": 0.8}),
    ("nano", "d-fine-n", {"at_most": 0.7}),
    ("nano int8", "yolo11n", {"at_most": 0.45}),
    ("small", "d-fine-s", {"at_most": 1}),
    ("base", "rt-detr-r18", {"at_most": 1}),
    ("decoder of nano, K = 100", "decoder of nano, K = 600", {"at_most": 0.5}),
    ("nano, K = 100", "nano, K = 600", {}),
    ("nano int8", "nano", {}),
    ("nano fp16", "nano", {}),
    ("nano, 6 layers", "nano", {}),
    ("small, 6 layers", "small", {}),
    ("base, 6 layers", "base", {}),
)
"""Two models whose times are told as a ratio, and what it is to be."""


def accuracy(what: str, aims: Mapping[str, dict[str, Number]], by_size: bool = False) -> ReadRows:
    """Of benchmarks/accuracy.py and `python -m training evaluate`.

    Args:
        what: was evaluated.
        aims: fields of an evaluation, or sizes, to `at_least` or `at_most`.
        by_size: tell the AP of small sizes, too.
    """

    def rows(path: Path) -> list[Row]:
        found = json.loads(path.read_bytes())
        told = [(field, claim.format_map(found), unit, found[field]) for field, (claim, unit) in ACCURACY.items()]
        if by_size:
            told += [(size, claim, "", found["ap_by_size"][size]) for size, claim in SIZES.items()]
        return [
            Row(claim=f"{what}: {claim}", value=value, unit=unit, **aims.get(field, {}))
            for field, claim, unit, value in told
            if value is not None
        ]

    return rows


def depth(what: str) -> ReadRows:
    """Of `python -m export depth`."""

    def rows(path: Path) -> list[Row]:
        found = []
        for row in json.loads(path.read_bytes()):
            name = f"{what}, {row['layers']} decoder layer{'' if row['layers'] == 1 else 's'}"
            found += [Row(claim=f"{name}: {figure.upper()}", value=value) for figure, value in row["accuracy"].items()]
            times = {"decoder": row["decoder_ms"], "encoder and decoder": row["whole_ms"]}
            found += [Row(claim=f"{name}: {part}", value=value, unit="ms") for part, value in times.items()]
        return found

    return rows


def peers(path: Path) -> list[Row]:
    """Of benchmarks/peers.py, its first run: times of the process, and ratios that were aimed at."""
    run = json.loads(path.read_bytes())["runs"][0]
    times = {name: np.array(samples) for name, samples in run["samples"].items()}
    rows = [
        Row.of(f"CPU time of {model}, by that of {beside}", ratio(times, model, beside), "x", **aim)
        for model, beside, aim in PEERS
        if model in times and beside in times
    ]
    return rows + [Row.of(f"{name}: CPU time", Spread.of(both[:, 0]), "ms") for name, both in times.items()]


def queries(path: Path) -> list[Row]:
    """Of benchmarks/latency.py: what the fewest queries cost by the most, and milliseconds; on one thread."""
    variants = [row for row in json.loads(path.read_bytes())["variants"] if row["threads"] == 1]
    fewest, most = (choose(variants, key=lambda row: row["queries"]) for choose in (min, max))
    rows = []
    for part, name, aim in (("decoder", "decoder", {"at_most": 0.5}), ("both", "encoder and decoder", {})):
        claim = f"time of the {name} at K = {fewest['queries']}, by that at K = {most['queries']}"
        rows.append(Row.of(claim, Spread(**fewest[f"{part}_by_most"]), "x", **aim))
        rows += [Row.of(f"{name} at K = {row['queries']}", Spread(**row[f"{part}_ms"]), "ms") for row in variants]
    return rows


def memory(path: Path) -> list[Row]:
    """Of benchmarks/latency.py: what a serving process weighs."""
    found = json.loads(path.read_bytes())["memory"]
    rows = [Row(claim="memory of a serving process when ready", value=found["ready_mb"], unit="MB")]
    for row in found["pictures"]:
        what = f"{found['workers']} calls at once with {row['width']} x {row['height']} px"
        rows.append(Row(claim=f"memory after {what}", value=row["after_mb"], unit="MB"))
        rows.append(Row(claim=f"memory at most, in {what}", value=row["peak_mb"], unit="MB"))
    return rows


def hosts(path: Path) -> list[Row]:
    """Of benchmarks/hosts.py: the last step, and the most memory."""
    found = json.loads(path.read_bytes())
    step, name = found["steps"][-1], f"{found['preset']}, {found['batch']} pictures of {found['size']} px"
    rows = [Row(claim=f"{name}: most memory of a step", value=found["peak_gib"], unit="GiB")]
    for way in ("forward", "backward"):
        rows.append(Row(claim=f"{name}: {way}", value=step[f"{way}_s"], unit="s"))
    return rows


def ablation(grid: str) -> ReadRows:
    """Of `python -m training ablate`: AP over the seeds of every variant."""

    def rows(folder: Path) -> list[Row]:
        found: dict[str, list[float]] = {}
        for path in sorted((folder / "results").glob("*.json")):
            run = json.loads(path.read_bytes())
            name = f"{grid}, {run['variant']}, {run['steps']} steps"
            found.setdefault(name, []).append(run["figures"]["metrics"]["ap"])
        return [_over_seeds(name, np.array(values)) for name, values in found.items()]

    return rows


def _over_seeds(name: str, values: NDArray[np.float64]) -> Row:
    if len(values) == 1:
        return Row(claim=f"{name}, one seed: AP", value=values[0])
    return Row.of(f"{name}, {len(values)} seeds: AP", Spread.of(values))


def parity(path: Path) -> list[Row]:
    """Of the report that `python -m export verify` writes into a model folder: torch against ONNX Runtime."""
    found = json.loads(path.read_bytes())
    limits, name = found["tolerance"], f"torch against ONNX Runtime, {found['images']} pictures"
    return [
        Row(claim=f"{name}: boxes differ", value=found["max_box_px"], unit="px", at_most=limits["boxes_px"]),
        Row(claim=f"{name}: scores differ", value=found["max_score"], at_most=limits["scores"]),
        Row(claim=f"{name}: detections without a partner", value=found["unmatched"], at_most=0),
    ]


def engines(folder: Path) -> list[Row]:
    """Of `python -m export engines`: the JSON beside every engine."""
    rows = []
    for found in (json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))):
        name = f"engine of {found['key']['graph']}, {found['key']['library']} {found['key']['version']}"
        rows.append(Row(claim=f"{name}: time to build", value=found["build_seconds"], unit="s"))
        rows.append(Row(claim=f"{name}: size", value=found["engine_bytes"] / 2**20, unit="MiB"))
    return rows


def container(path: Path) -> list[Row]:
    """Of tests/container/check_service.py, which ends where a call is lost: weight, start and memory of the image."""
    found = json.loads(path.read_bytes())
    return [
        Row(claim="image: our layers", value=found["layers_mb"], unit="MB", at_most=450),
        Row(claim="start of the container to ready", value=found["ready_s"], unit="s", at_most=5),
        Row(claim="memory of the container at most, 4 calls at once", value=found["memory_mb"], unit="MB", at_most=700),
    ]


def serving(path: Path) -> list[Row]:
    """Of benchmarks/serving.py: its aims, and what every server does."""
    found = Figures.read(path)
    rows = serving_report.verdicts(found)
    if part := found.saturation:
        rates = {server: Spread.of(np.array(part.rates(server))) for server in part.rounds}
        rows += [Row.of(f"calls a second at saturation: {server}", rate) for server, rate in rates.items()]
    if part := found.latency:
        waits = {server: Spread.of(np.array(part.p99(server))) for server in part.rounds}
        rows += [Row.of(f"p99 at {part.load:.0%} load: {server}", wait, "ms") for server, wait in waits.items()]
    return rows


def scenes(path: Path) -> list[Row]:
    """Of benchmarks/scenes.py: its aims, and what every tool does."""
    found = SceneFigures.read(path)
    rows = scene_report.verdicts(found)
    if part := found.compared:
        megapixels = part.side**2 / 1e6
        for name, tool in {"ours": part.ours, **{f"SAHI, {key}": tool for key, tool in part.theirs.items()}}.items():
            speed = Spread.of(np.array([megapixels / run.wall_seconds for run in tool.runs]))
            rows += [Row.of(f"{name}: speed", speed, "MP/s"), Row(claim=f"{name}: AP", value=tool.accuracy.ap)]
    return rows
