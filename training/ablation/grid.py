"""What an ablation compares: one base recipe, and named variants that each change a little of it.

A grid is a TOML file. Its variants keep their order; the first is the baseline, usually the base recipe as it is:

    base = "../recipes/ablation-nwpu.toml"
    seeds = [0, 1, 2]

    [variants.baseline]

    [variants.lsconv]
    model.encoder.lsconv.paths = "both"

    [variants.mohfe]
    on = "lsconv"
    model.encoder.mohfe = "gated"

`on` names the variant, further up, whose changes a variant takes over and with which it is compared besides the
baseline. `model.density = false` and `model.heat = false` leave a part out, as in a recipe.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from model.config import Config
from training.config import Recipe

FIXED = ("data", "run")
"""Sections that no variant may change: all runs have the same pictures, order and budget."""


@dataclass(frozen=True)
class Variant:
    """One row of the comparison."""

    name: str
    on: str | None
    """The variant that it builds on; None for the base recipe."""
    own: dict[str, Any]
    """Dotted name to value: what sets it apart from the variant that it builds on."""
    changes: dict[str, Any]
    """What sets it apart from the base recipe."""
    recipe: Recipe


class Grid(Config):
    """Base recipe, seeds and variants."""

    base: Path
    """Recipe that the variants change; relative to the grid's folder."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """Every variant is trained once per seed."""
    variants: dict[str, dict[str, Any]] = Field(min_length=1)
    """Name to changes, as nested tables."""

    @model_validator(mode="after")
    def check_names(self) -> Self:
        for name, table in self.variants.items():
            if not re.fullmatch(r"[a-z0-9]([a-z0-9_+.-]*[a-z0-9])?", name):
                raise ValueError(f"variant {name!r} names files: use small letters, digits and + . _ - between them")
            if fixed := sorted(set(FIXED) & set(table)):
                raise ValueError(
                    f"variant {name!r} changes [{fixed[0]}], but all runs share pictures, order and budget; "
                    "change the base recipe or the grid's seeds"
                )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} repeat")
        return self

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a grid; the base recipe's path is taken from the grid's folder. Raises OSError or ValueError."""
        try:
            grid = super().from_toml(path)
        except ValidationError as error:
            raise ValueError(f"{path}: {one_line(error)}") from error
        return grid.model_copy(update={"base": Path(path).resolve().parent / grid.base})

    def resolve(self) -> list[Variant]:
        """Every variant with its complete recipe.

        Raises:
            ValueError: a change names no field or has a wrong value, `on` names no earlier variant, or two variants
                are the same; the message says which.
        """
        base = Recipe.from_toml(self.base)
        resolved: dict[str, Variant] = {}
        for name, table in self.variants.items():
            on = table.get("on")
            if on is not None and on not in resolved:
                raise ValueError(f"variant {name!r} is on {on!r}, which is no variant before it")
            start = base if on is None else resolved[on].recipe
            recipe = _changed(name, start, {key: value for key, value in table.items() if key != "on"})
            twin = next((other.name for other in resolved.values() if other.recipe == recipe), None)
            if twin is not None:
                raise ValueError(f"variants {twin!r} and {name!r} are the same recipe")
            own, changes = (difference(flat_recipe(before), flat_recipe(recipe)) for before in (start, base))
            resolved[name] = Variant(name, on, own, changes, recipe)
        return list(resolved.values())


def _changed(name: str, start: Recipe, changes: dict[str, Any]) -> Recipe:
    try:
        return Recipe.model_validate(_merged(start.model_dump(), changes))
    except ValidationError as error:
        raise ValueError(f"variant {name!r}: {one_line(error)}") from error


def _merged(table: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A table with some values replaced, at any depth."""
    merged = dict(table)
    for key, value in changes.items():
        inner = table.get(key)
        merged[key] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return merged


def one_line(error: ValidationError) -> str:
    """The first mistake, with its place in the file."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}" if place else message


def flat_recipe(recipe: Recipe) -> dict[str, Any]:
    """Dotted name to JSON value. Paths keep their last two parts: machines keep the same data in other places."""
    values = dict(_flat(recipe.model_dump()))
    return {name: "/".join(v.parts[-2:]) if isinstance(v, Path) else v for name, v in values.items()}


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, list(value) if isinstance(value, tuple) else value


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `after` that `before` has not; None for a table that was left out."""
    return {name: value for name, value in after.items() if name not in before or before[name] != value}
