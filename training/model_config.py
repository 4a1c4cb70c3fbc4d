"""The model part of a recipe: every key of the detector, or the name of a preset."""

from collections.abc import Iterator
from typing import Any, Self

from pydantic import model_validator

from model.config import (
    BackboneConfig,
    Config,
    DecoderConfig,
    DetectorConfig,
    EncoderConfig,
    OptionalDensity,
    OptionalHeat,
    QueryConfig,
)
from model.presets import preset


class ModelConfig(Config):
    """The detector without its classes, which come from the data.

    A recipe states every key, or has `preset = "nano"` for all of them; the copy that a run keeps states every key.
    """

    strides: tuple[int, ...]
    width: int
    anchor_cells: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    backbone: BackboneConfig
    heat: OptionalHeat
    encoder: EncoderConfig
    density: OptionalDensity
    query: QueryConfig
    decoder: DecoderConfig

    @model_validator(mode="before")
    @classmethod
    def expand_preset(cls, data: Any) -> Any:
        """Replace the name of a preset by its tables."""
        if not isinstance(data, dict) or "preset" not in data:
            return data
        if others := [key for key in data if key != "preset"]:
            raise ValueError(f"a preset stands alone in [model]; leave out either preset or {', '.join(others)}")
        return preset(data["preset"], ("any",)).model_dump(exclude={"classes"})

    @model_validator(mode="after")
    def check_complete(self) -> Self:
        for name, table in _tables("model", self):
            if missing := set(type(table).model_fields) - table.model_fields_set:
                raise ValueError(f"a recipe is complete, but [{name}] lacks {', '.join(sorted(missing))}")
        return self

    def detector(self, classes: tuple[str, ...]) -> DetectorConfig:
        """The detector's configuration for these classes."""
        return DetectorConfig(classes=classes, **{name: getattr(self, name) for name in type(self).model_fields})


def _tables(name: str, table: Config) -> Iterator[tuple[str, Config]]:
    """A table and all tables in it, with their dotted names."""
    yield name, table
    for key, value in table:
        if isinstance(value, Config):
            yield from _tables(f"{name}.{key}", value)
