"""The table of an ablation: means over seeds, differences paired by seed, cost."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from training.ablation.grid import Variant
from training.ablation.results import Figures, Result

Seeds = dict[int, float]
"""A figure of one variant, by seed."""


def by_seed(results: Sequence[Result], variant: str, figure: Callable[[Figures], float | None]) -> Seeds:
    """A figure of a variant for every seed that has it."""
    values = {result.seed: figure(result.figures) for result in results if result.variant == variant}
    return {seed: value for seed, value in values.items() if value is not None}


def comparable(results: Sequence[Result], variant: str, reference: str) -> list[Result]:
    """Results of two variants that have seed and device in common: on another device, losses part within some steps."""
    runs = [
        {(result.seed, result.figures.device) for result in results if result.variant == name}
        for name in (variant, reference)
    ]
    both = runs[0] & runs[1]
    return [
        result
        for result in results
        if result.variant in (variant, reference) and (result.seed, result.figures.device) in both
    ]


def mean_and_deviation(values: Seeds) -> tuple[float, float | None]:
    """Mean, and standard deviation over seeds (None for a single one)."""
    numbers = list(values.values())
    return float(np.mean(numbers)), float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None


def paired_difference(values: Seeds, reference: Seeds) -> tuple[float, float | None] | None:
    """Mean of the differences per seed and its standard error (None for a single seed); None without a common seed."""
    common = {seed: value - reference[seed] for seed, value in values.items() if seed in reference}
    if not common:
        return None
    mean, deviation = mean_and_deviation(common)
    return mean, None if deviation is None else deviation / math.sqrt(len(common))


def write_table(out: Path, variants: Sequence[Variant], results: Sequence[Result]) -> Path:
    """Write `table.md` into an ablation's folder; returns it."""
    table = out / "table.md"
    table.write_text(markdown(variants, results), encoding="utf-8")
    return table


def markdown(variants: Sequence[Variant], results: Sequence[Result]) -> str:
    """The comparison as Markdown: figures and cost, layers, what each variant is, and what was not run yet."""
    present = [variant for variant in variants if any(result.variant == variant.name for result in results)]
    missing = [variant.name for variant in variants if variant not in present]
    parts = ["# Ablation", "Written by `python -m training ablate`."]
    if results:
        parts += [_comparison(variants[0].name, present, results), _explanation(results), _layers(present, results)]
    parts.append("\n".join(["| variant | is |", "|---|---|", *(f"| {v.name} | {_what(v)} |" for v in variants)]))
    if missing:
        parts.append(f"Not run yet: {', '.join(missing)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def metric(name: str) -> Callable[[Figures], float | None]:
    """Reads one of `Figures.metrics`."""
    return lambda figures: figures.metrics.get(name)


SHARES = {
    "AP50": "ap50",
    "AP75": "ap75",
    "APvt": "ap_very_tiny",
    "APt": "ap_tiny",
    "APs": "ap_small",
    "APm": "ap_medium",
    "count error": "count_relative_mae",
}
"""Columns that show a share in per cent."""


def _comparison(baseline: str, variants: Sequence[Variant], results: Sequence[Result]) -> str:
    head = ["variant", "seeds", "AP", f"against {baseline}", "against what it builds on", *SHARES]
    head += ["queries", "training time", "CPU time", "parameters"]
    lines = [f"| {' | '.join(head)} |", f"|---|{'---:|' * (len(head) - 1)}"]
    for variant in variants:
        ap = by_seed(results, variant.name, metric("ap"))
        row = [variant.name, str(len(ap)), _percent(*mean_and_deviation(ap)) if ap else "-"]
        row.append(_against(results, variant.name, baseline))
        row.append(f"{_against(results, variant.name, variant.on)} ({variant.on})" if variant.on else "")
        row += [_share(by_seed(results, variant.name, metric(name))) for name in SHARES.values()]
        row += _cost(baseline, variant.name, results)
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _cost(baseline: str, variant: str, results: Sequence[Result]) -> list[str]:
    """Queries, time and CPU time as multiples of the baseline's with the same seed and device, parameters."""
    queries, parameters = (
        by_seed(results, variant, figure) for figure in (metric("mean_queries"), lambda f: f.parameters)
    )
    alike, times = comparable(results, variant, baseline), []
    for figure in (lambda f: f.seconds, lambda f: f.cpu_seconds):
        ours, theirs = by_seed(alike, variant, figure), by_seed(alike, baseline, figure)
        ratios = [ours[seed] / theirs[seed] for seed in ours if seed in theirs]
        times.append(f"{np.mean(ratios):.2f} x" if ratios else "-")
    return [
        f"{np.mean(list(queries.values())):.0f}" if queries else "-",
        *times,
        f"{np.mean(list(parameters.values())) / 1e6:.2f} M",
    ]


def _against(results: Sequence[Result], variant: str, reference: str) -> str:
    if reference == variant:
        return ""
    alike = comparable(results, variant, reference)
    difference = paired_difference(*(by_seed(alike, name, metric("ap")) for name in (variant, reference)))
    return "-" if difference is None else _percent(*difference, sign="+")


def _share(values: Seeds) -> str:
    return _percent(*mean_and_deviation(values)) if values else "-"


def _percent(mean: float, around: float | None, sign: str = "") -> str:
    return f"{100 * mean:{sign}.1f}" + ("" if around is None else f" ± {100 * around:.1f}")


def _explanation(results: Sequence[Result]) -> str:
    steps = " or ".join(sorted({f"{result.steps:,}" for result in results}))
    devices = " and ".join(sorted({result.figures.device for result in results}))
    return (
        "AP, its kin and the count error in per cent: mean ± standard deviation over seeds. Differences are of AP, "
        "paired by seed on the same device: mean ± standard error. A seed fixes the order of crops and the noise; "
        "initial weights are the same only where variants have the same modules. "
        f"{steps} steps each, on {devices}; times are mean multiples of the baseline's with the same seed on the same "
        "device, measured beside other runs."
    )


def _layers(variants: Sequence[Variant], results: Sequence[Result]) -> str:
    """AP after each decoder layer (HMPE, section 5); Det0 are the proposals."""
    depth = max(len(result.figures.layers) for result in results)
    lines = [f"| AP after layer | {' | '.join(f'Det{k}' for k in range(depth))} |", f"|---|{'---:|' * depth}"]
    for variant in variants:
        of_layer = (by_seed(results, variant.name, _layer(k)) for k in range(depth))
        lines.append(f"| {variant.name} | {' | '.join(_share(values) for values in of_layer)} |")
    return "\n".join(lines)


def _layer(number: int) -> Callable[[Figures], float | None]:
    return lambda figures: figures.layers[number] if number < len(figures.layers) else None


def _what(variant: Variant) -> str:
    """What a variant changes, as the grid says it."""
    own = {name: False if value is None else value for name, value in variant.own.items()}
    changes = ", ".join(f"`{name} = {json.dumps(value)}`" for name, value in own.items())
    return (f"on {variant.on}; " if variant.on else "") + (changes or "the base recipe")
