"""Time the steps of a recipe on synthetic scenes in memory, and say where the time goes.

    python benchmarks/training_speed.py training/recipes/nano-nwpu.toml --variants bf16 fp32 bf16+compile

Rounds are interleaved (one step of every variant, then again), so that a slow spell of the machine falls on all
variants alike. Whole steps and steps with a stopwatch inside take turns; medians are given. A variant is a precision,
with `+compile` for torch.compile. The figures are printed as Markdown.
"""

import argparse
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.book_result import Row, write_rows
from benchmarks.peer_report import Spread
from training.config import Recipe
from training.data.loader import training_batches
from training.data.samples import Sample, Targets
from training.data.synthetic import scene
from training.data.transforms import Augment
from training.parallel import Processes
from training.trainer import Trainer

SCENES = 16
WARM_UP = 2
"""Rounds that are not counted; a compiled variant compiles in the first."""
PARTS = (
    "backbone", "encoder, heat", "backbone and encoder, compiled", "queries, decoder", "matching", "losses",
    "backward, clipping", "optimizer", "average", "the rest",
)  # fmt: skip


@dataclass
class Stopwatch:
    """Seconds of the parts of one step after the other: of the clock on a GPU, for which every mark waits, else of CPU.

    CPU time is that of all threads, and other programs on the machine do not lengthen it.
    """

    enabled: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    left: float = 0.0
    """When the criterion was left."""

    def now(self) -> float:
        if not torch.cuda.is_available():
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def watch(self, owner: Any, name: str, part: str) -> None:
        """Time a method of an object from now on, in place."""
        method = getattr(owner, name)
        setattr(owner, name, self.timed(method, part))

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The same function, whose seconds are added to a part."""

        def watched(*arguments: Any, **named: Any) -> Any:
            if not self.enabled:
                return function(*arguments, **named)
            begun = self.now()
            if part == "optimizer":
                self.seconds["backward, clipping"] = begun - self.left
            result = function(*arguments, **named)
            self.left = self.now()
            self.seconds[part] = self.seconds.get(part, 0.0) + self.left - begun
            return result

        return watched


@dataclass
class Variant:
    """A trainer with its stopwatch, and what was measured of it."""

    name: str
    trainer: Trainer
    watch: Stopwatch
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)
    peak_mb: float = 0.0
    """GPU memory of a step."""

    def step(self, number: int, images: Tensor, targets: Targets) -> None:
        """Make one step and note its times; every other step is watched inside."""
        self.watch.enabled, self.watch.seconds = number % 2 == 1, {}
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        marked, begun, busy = self.watch.now(), time.perf_counter(), time.process_time()
        self.trainer.step(number, images, targets)
        whole = self.watch.now() - marked
        wall, cpu = time.perf_counter() - begun, time.process_time() - busy
        if number < 2 * WARM_UP:
            return
        if torch.cuda.is_available():
            self.peak_mb = max(self.peak_mb, torch.cuda.max_memory_allocated() / 1e6)
        if self.watch.enabled:
            self.parts.append(self._disjoint(self.watch.seconds, whole))
        else:
            self.wall.append(wall)
            self.cpu.append(cpu)

    def _disjoint(self, seconds: dict[str, float], whole: float) -> dict[str, float]:
        """Shares of the step, without what is inside another part."""
        inside = {"encode": ("backbone", "encoder, heat"), "criterion": ("matching",)}
        own = {part: value - sum(seconds.get(i, 0) for i in inside.get(part, ())) for part, value in seconds.items()}
        own["losses"] = own.pop("criterion")
        encode = own.pop("encode")  # besides the two: normalisation and density; all of it where it is compiled
        own["backbone and encoder, compiled" if self.trainer.recipe.run.compile else "encoder, heat"] = (
            own.get("encoder, heat", 0) + encode
        )
        own["the rest"] = whole - sum(own.values())
        return {part: value / whole for part, value in own.items()}


def make_variant(recipe: Recipe, name: str) -> Variant:
    """Build the trainer of a variant, watched inside."""
    precision, *compiled = name.split("+")
    run = recipe.run.model_copy(update={"precision": precision, "compile": bool(compiled)})
    trainer, watch = Trainer(recipe.model_copy(update={"run": run}), Processes()), Stopwatch()
    watched = [(trainer.detector, "encode", "encode")]
    watched += [(trainer.detector, method, "queries, decoder") for method in ("propose", "decode")]
    watched += [(trainer.criterion, "match", "matching"), (trainer, "criterion", "criterion")]
    watched += [(trainer.optimizer, "step", "optimizer"), (trainer.average, "update", "average")]
    if not compiled:
        watched += [
            (trainer.detector.backbone, "forward", "backbone"),
            (trainer.detector.encoder, "forward", "encoder, heat"),
        ]
    for owner, method, part in watched:
        watch.watch(owner, method, part)
    return Variant(name, trainer, watch)


def scenes(recipe: Recipe) -> list[Sample]:
    """Synthetic scenes of the recipe's size, with its classes, in memory."""
    samples, classes = [], len(recipe.data.classes)
    for number in tqdm(range(SCENES), desc="scenes"):
        sample = scene(np.random.default_rng([0, number]), recipe.data.train_size)
        samples.append(Sample(sample.image, sample.boxes, sample.labels % classes, number))
    return samples


def batches(recipe: Recipe, pictures: list[Sample], steps: int, workers: int) -> Iterator[tuple[Tensor, Targets]]:
    """The batches of a run on these pictures."""
    return training_batches(pictures, Augment(recipe.augment), 0, recipe.run.batch_size, 0, steps, workers)


def time_variants(recipe: Recipe, pictures: list[Sample], names: Sequence[str], rounds: int) -> list[Variant]:
    """Interleaved steps of all variants on the same batches."""
    variants, steps = [make_variant(recipe, name) for name in names], 2 * (rounds + WARM_UP)
    loaded = batches(recipe, pictures, steps, workers=0)
    for number, (images, targets) in enumerate(tqdm(loaded, total=steps, desc="rounds")):
        for variant in variants:
            variant.step(number, images, targets)
    return variants


def time_loading(recipe: Recipe, pictures: list[Sample], steps: int) -> float:
    """CPU-seconds that it takes to make one batch."""
    times, loaded = [], batches(recipe, pictures, steps, workers=0)
    for _ in range(steps):
        begun = time.process_time()
        next(loaded)
        times.append(time.process_time() - begun)
    return median(times)


def time_waiting(recipe: Recipe, pictures: list[Sample], variant: Variant, steps: int) -> float:
    """Share of the time that a run with the recipe's own workers waits for batches."""
    variant.watch.enabled = False
    loaded, waited, begun = batches(recipe, pictures, steps + 1, recipe.run.workers), 0.0, 0.0
    for number in range(steps + 1):
        asked = time.perf_counter()
        batch = next(loaded)
        if number:  # the first batch cannot be there in time
            waited += time.perf_counter() - asked
        else:
            begun = time.perf_counter()
        variant.trainer.step(number, *batch)
        variant.watch.now()
    return waited / (time.perf_counter() - begun)


def report(recipe: Recipe, variants: Sequence[Variant], loading: float, waiting: float) -> str:
    """The figures as Markdown."""
    size, first = recipe.run.batch_size, median(variants[0].wall)
    lines = [
        f"{machine()}; batch {size} of {recipe.augment.crop_told}; {len(variants[0].wall)} rounds",
        "",
        "| variant | ms a step | crops a second | crops a CPU-second | speed | peak GPU memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for variant in variants:
        wall, cpu = median(variant.wall), median(variant.cpu)
        memory = f"{variant.peak_mb:,.0f}" if variant.peak_mb else "-"
        speeds = f"{1000 * wall:,.0f} | {size / wall:.2f} | {size / cpu:.2f} | {first / wall:.2f}"
        lines.append(f"| {variant.name} | {speeds} | {memory} |")
    lines += ["", f"| share of a step | {' | '.join(v.name for v in variants)} |", "|---" * (len(variants) + 1) + "|"]
    for part in PARTS:
        shares = [median(step.get(part, 0.0) for step in variant.parts) for variant in variants]
        lines.append(f"| {part} | {' | '.join(f'{share:.1%}' if share else '-' for share in shares)} |")
    step_cpu = median(variants[0].cpu)
    lines += [
        "",
        f"Loading: {size / loading:.1f} crops a CPU-second, {loading / step_cpu:.1%} of the CPU time of a "
        f"{variants[0].name} step. With run.workers = {recipe.run.workers}, a run waits {waiting:.1%} of the time for "
        "batches.",
    ]
    return "\n".join(lines)


def claims(recipe: Recipe, variants: Sequence[Variant], loading: float, waiting: float) -> list[Row]:
    """What the benchmark book tells."""
    size, what = recipe.run.batch_size, f"batch {recipe.run.batch_size} of {recipe.augment.crop_told}"
    per_gpu = torch.cuda.is_available()
    rows = [
        Row.of(
            f"{variant.name}, {what}: crops a {'second' if per_gpu else 'CPU-second'}",
            Spread.of(size / np.array(variant.wall if per_gpu else variant.cpu)),
        )
        for variant in variants
    ]
    rows.append(Row(claim="loading and augmenting: crops a CPU-second", value=size / loading))
    share = 100 * waiting
    return [*rows, Row(claim=f"time in which a {variants[0].name} run waits for batches", value=share, unit="%")]


def machine() -> str:
    """The GPU, or the processor and how many threads PyTorch uses."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = re.findall(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    cores = len(os.sched_getaffinity(0))
    return f"{names[0] if names else 'unknown processor'}, {torch.get_num_threads()} threads on {cores} cores"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    recipe = Recipe.from_toml(options.recipe)
    threads = options.threads or recipe.run.threads
    run = recipe.run.model_copy(update={"batch_size": options.batch_size or recipe.run.batch_size, "threads": threads})
    augment = recipe.augment.model_copy(update={"crop": options.crop or recipe.augment.crop})
    recipe = Recipe.model_validate(recipe.model_copy(update={"run": run, "augment": augment}).model_dump())
    if threads:
        torch.set_num_threads(threads)
    pictures = scenes(recipe)
    variants = time_variants(recipe, pictures, options.variants, options.rounds)
    waiting = time_waiting(recipe, pictures, variants[0], options.rounds)
    loading = time_loading(recipe, pictures, options.rounds)
    print(report(recipe, variants, loading, waiting))
    if options.json:
        write_rows(options.json, claims(recipe, variants, loading, waiting))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="complete TOML file; its pictures are not read")
    choices = ("bf16", "fp32", "bf16+compile", "fp32+compile")
    parser.add_argument("--variants", nargs="+", choices=choices, default=["bf16", "fp32"], help="(default: bf16 fp32)")
    parser.add_argument("--rounds", type=int, default=10, help="counted pairs of steps (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, help="in place of the recipe's")
    parser.add_argument("--crop", type=int, help="side of the crops in pixels, in place of the recipe's")
    parser.add_argument("--threads", type=int, help="CPU threads, in place of the recipe's")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser


if __name__ == "__main__":
    main()
