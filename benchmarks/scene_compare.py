"""Ours and SAHI on the same scene, graphs, tiles and overlap, by turns; and one Ray worker beside two."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.scene_accuracy import Look, accuracy, read_found, read_objects
from benchmarks.scene_figures import Compared, Run, Tool, Workers
from benchmarks.scene_runs import ROOT, SceneBench, fresh, run, state_of

SETTINGS: dict[str, tuple[str, ...]] = {
    "as it comes": (),
    "slices only, NMS": ("--slices-only", "--postprocess", "NMS", "--metric", "IOU"),
    "slices only, NMS, batches of 4": ("--slices-only", "--postprocess", "NMS", "--metric", "IOU", "--batch", "4"),
}
"""As it comes, SAHI looks at the whole picture too, and joins boxes that share half of the smaller one (GREEDYNMM)."""


def measure_compared(bench: SceneBench, side: int) -> Compared:
    """All tools once a round, forwards and backwards by turns.

    Raises:
        ValueError: nobody said where SAHI is.
    """
    if bench.sahi is None:
        raise ValueError("SAHI has an environment of its own; name its interpreter with --sahi")
    bench.say(f"-- compared: {side:,} px")
    before, scene = os.getloadavg()[0], bench.mosaic(side)
    runs: dict[str, list[Run]] = {"ours": [], **{name: [] for name in SETTINGS}}
    for number in range(bench.rounds):
        for name in runs if number % 2 == 0 else reversed(runs):
            runs[name].append(_run(bench, scene, name))
            bench.say(f"   {name}: {runs[name][-1].wall_seconds:.0f} s")
    tools = {name: _tool(bench, side, name, found) for name, found in runs.items()}
    return Compared(
        provenance=bench.provenance,
        load=(before, os.getloadavg()[0]),
        sahi=_version(bench.sahi),
        side=side,
        score=bench.score,
        ours=tools.pop("ours"),
        theirs=tools,
    )


def _out(bench: SceneBench, name: str) -> Path:
    return bench.work / "compared" / f"{name}.json"


def _run(bench: SceneBench, scene: Path, name: str) -> Run:
    out, log = fresh(_out(bench, name)), bench.work / "compared.log"
    score = str(bench.score)
    if name == "ours":
        return run(bench.detect(scene, out, "--threshold", score), state_of(out), log)
    begun = out.with_suffix(".begun")
    cut = ["--size", str(bench.manifest.input.size), "--overlap", str(bench.overlap)]
    command = [str(bench.sahi), "-m", "benchmarks.scene_sahi", str(bench.model_dir.resolve()), str(scene.resolve())]
    command += [str(out.resolve()), "--begun", str(begun.resolve()), "--threads", str(bench.lanes), "--score", score]
    return run([*command, *cut, *SETTINGS[name]], begun, log)


def _tool(bench: SceneBench, side: int, name: str, runs: list[Run]) -> Tool:
    out, classes = _out(bench, name), bench.manifest.classes
    truth, _ = read_objects(bench.mosaic(side).with_suffix(".json"), classes)
    found = read_found(out, classes)
    tiles = bench.tiles(side) if name == "ours" else json.loads(out.read_text(encoding="utf-8"))["info"]["tiles"]
    (score,) = accuracy([Look.ungrouped(truth, found)], classes)
    return Tool(tiles=tiles, found=len(found.labels), accuracy=score, runs=runs)


def _version(python: Path) -> str:
    command = [str(python), "-c", "import importlib.metadata as m; print(m.version('sahi'))"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def ray_is_there() -> bool:
    """Whether `detect` has the engine."""
    command = [sys.executable, "-m", "service", "detect", "--help"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return "--engine" in told


def measure_workers(bench: SceneBench, side: int, numbers: Sequence[int] = (1, 2)) -> Workers:
    """`detect --engine ray` with each number of workers, which are its lanes, by turns."""
    bench.say(f"-- workers: {side:,} px")
    before, scene = os.getloadavg()[0], bench.mosaic(side)
    runs: dict[int, list[Run]] = {number: [] for number in numbers}
    for _ in range(bench.rounds):
        for number in numbers:
            out = fresh(bench.work / "workers" / f"{number}.gpkg")
            command = replace(bench, lanes=number).detect(scene, out, "--engine", "ray")
            runs[number].append(run(command, state_of(out), bench.work / "workers.log"))
            bench.say(f"   {number} workers: {runs[number][-1].wall_seconds:.0f} s")
    return Workers(provenance=bench.provenance, load=(before, os.getloadavg()[0]), side=side, runs=runs)
