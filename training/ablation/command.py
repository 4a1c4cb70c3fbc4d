"""`python -m training ablate`: trains every variant of a grid with the same seeds, and compares them in one table.

Layout of the folder: `runs/VARIANT-SEED/` while a run is at work, `results/VARIANT-SEED.json` when it is done,
`table.md` and `plots/` for people. Results of several machines are joined by copying their JSON files together.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from training.ablation.grid import Grid, Variant
from training.ablation.plots import draw_plots
from training.ablation.results import read_results, result_path
from training.ablation.session import Run, Session, claimed, worker
from training.ablation.table import write_table


def run_ablate(arguments: argparse.Namespace) -> Path:
    """Carry out the parsed sub-command; returns the table."""
    if arguments.table_only:
        return rewrite_table(arguments.grid, arguments.out)
    return ablate(
        arguments.grid,
        arguments.out,
        jobs=arguments.jobs,
        minutes=arguments.time_limit,
        only=arguments.only,
        seeds=arguments.seeds,
        keep=arguments.keep,
    )


def ablate(
    grid_path: Path,
    out: Path,
    jobs: int = 1,
    minutes: float | None = None,
    only: Sequence[str] = (),
    seeds: Sequence[int] = (),
    keep: bool = False,
    command: Callable[[Run], list[str]] = worker,
) -> Path:
    """Carry out what is left of a grid; returns the table.

    Args:
        grid_path: see training/ablation/grid.py.
        out: folder of the ablation.
        jobs: runs at the same time; they share the CPU's threads.
        minutes: no run is begun after this time, and those at work stop at their next checkpoint.
        only: names of variants; empty for all.
        seeds: instead of the grid's.
        keep: keep the checkpoints of finished runs.
        command: what to execute for a run; it must leave `figures.json` in its folder.
    Raises:
        ValueError: a bad grid, or `out` holds results of other recipes.
        ChildProcessError: some runs failed; the others are done, and the table has them.
    """
    grid = Grid.from_toml(grid_path)
    variants = grid.resolve()
    if unknown := sorted(set(only) - {variant.name for variant in variants}):
        names = ", ".join(variant.name for variant in variants)
        raise ValueError(f"{grid_path} has no variant {unknown[0]!r}; it has {names}")
    if jobs < 1:
        raise ValueError(f"{jobs} runs at a time finish nothing; the least is 1")
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)
    chosen = [variant for variant in variants if not only or variant.name in only]
    runs = _runs_of(chosen, seeds or grid.seeds, out, threads)
    out.mkdir(parents=True, exist_ok=True)
    with claimed(out) as lock:
        read_results(out, variants)  # a result of another recipe is found before the first step
        waiting = [run for run in runs if not result_path(out, run.variant.name, run.seed).exists()]
        deadline = None if minutes is None else time.monotonic() + 60 * minutes
        try:
            Session(out, variants, keep, deadline, command, lock).carry_out(waiting, jobs)
        finally:
            table = compare(out, variants)
    return table


def _runs_of(variants: Sequence[Variant], seeds: Sequence[int], out: Path, threads: int) -> list[Run]:
    """Seed by seed, so that an interrupted grid has whole seeds rather than whole variants."""
    return [
        Run(variant, seed, out / "runs" / f"{variant.name}-{seed}", threads)
        for seed in dict.fromkeys(seeds)
        for variant in variants
    ]


def rewrite_table(grid_path: Path, out: Path) -> Path:
    """Compare the results that lie in a folder, without running anything; returns the table."""
    return compare(out, Grid.from_toml(grid_path).resolve())


def compare(out: Path, variants: Sequence[Variant]) -> Path:
    """Write `table.md` and the plots from all results in the folder."""
    results = read_results(out, variants)
    if results:
        draw_plots(out / "plots", variants, results)
    return write_table(out, variants, results)
