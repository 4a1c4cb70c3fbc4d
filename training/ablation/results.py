"""What the runs of an ablation found: one small JSON file each, so that several machines can share the work."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from model.config import Config
from training.ablation.grid import Variant, flat_recipe, one_line
from training.tracking import write_whole

HOW = tuple(
    f"run.{name}" for name in ("threads", "workers", "compile", "checkpoint_every", "evaluate_every", "log_every")
)
"""Fields that say how a run is carried out, not what it computes; they may differ from machine to machine."""


class Figures(Config):
    """What one run measured on val, and what it cost."""

    metrics: dict[str, float | None]
    """AP and its kin in [0, 1], count errors, mean number of queries."""
    layers: list[float]
    """AP of the proposals (Det0) and of the prediction after each decoder layer (Det1, Det2, ...)."""
    seconds: float | None
    """Wall time of training, evaluations between the steps included; None if the run died before it was written."""
    cpu_seconds: float | None
    """The same in CPU time, loader processes included."""
    parameters: int
    device: str
    loss_curve: list[tuple[int, float]]
    """(step, loss), thinned out."""
    ap_curve: list[tuple[int, float]]
    """(step, AP), one per evaluation during training."""


class Result(Config):
    """One finished run."""

    variant: str
    seed: int
    steps: int
    changes: dict[str, Any]
    """What sets the variant apart from the base recipe."""
    recipe: dict[str, Any]
    """The whole recipe by dotted name, see `flat_recipe`."""
    figures: Figures


def result_path(folder: Path, variant: str, seed: int) -> Path:
    """Where the result of a run lies in an ablation's folder."""
    return folder / "results" / f"{variant}-{seed}.json"


def write_result(folder: Path, result: Result) -> None:
    """Write a result, whole or not at all."""
    path = result_path(folder, result.variant, result.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(result.model_dump(mode="json")) + "\n")


def read_results(folder: Path, variants: Sequence[Variant]) -> list[Result]:
    """The results there are, of these variants and any seed, in the variants' order.

    Raises:
        ValueError: a file is damaged, or it is of another recipe than the grid's; the message says which field.
    """
    return [result for variant in variants for result in _of_variant(folder, variant)]


def _of_variant(folder: Path, variant: Variant) -> Iterator[Result]:
    expected = flat_recipe(variant.recipe)
    found: dict[int, Result] = {}
    for path in sorted(folder.glob(f"results/{variant.name}-*.json")):
        if (seed := path.stem.removeprefix(f"{variant.name}-")).isdecimal():
            found[int(seed)] = read_result(path)
            check_same(path, found[int(seed)].recipe, expected | {"run.seed": int(seed)})
    yield from (found[seed] for seed in sorted(found))


def read_result(path: Path) -> Result:
    """Read one result. Raises FileNotFoundError or ValueError."""
    try:
        return Result.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is no result of this program, {one_line(error)}; delete it to run again") from error


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise ValueError if what lies in `path` came of another recipe.

    A field that only one of the two knows is no difference, as the code may have learned or lost it since; a table
    that only one of the two has (None in the other) is one.
    """
    for name in [*before, *now]:
        values = [_value(recipe, name) for recipe in (before, now)]
        if name not in HOW and None not in values and values[0] != values[1]:
            raise ValueError(
                f"{path} is of another recipe: {name} was {values[0]}, the grid now says {values[1]}; "
                "move it away, or take another --out"
            )


def _value(recipe: Mapping[str, Any], name: str) -> Any:
    """Value of a field as text; `a table` or `off` if it is one in this recipe; None if the recipe does not know it."""
    if name in recipe:
        return "off" if recipe[name] is None else json.dumps(recipe[name])
    return "a table" if any(other.startswith(f"{name}.") for other in recipe) else None
