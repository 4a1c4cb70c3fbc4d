"""A recipe: one complete TOML file that says what is trained, on what, and how."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from model.config import BackboneConfig, Config, DecoderConfig, DetectorConfig, EncoderConfig, HeatConfig, QueryConfig


class ModelConfig(Config):
    """The detector without its classes, which come from the data."""

    strides: tuple[int, ...]
    width: int
    anchor_cells: float
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    backbone: BackboneConfig
    heat: HeatConfig
    encoder: EncoderConfig
    query: QueryConfig
    decoder: DecoderConfig

    @model_validator(mode="after")
    def check_complete(self) -> Self:
        for name in type(self).model_fields:
            table = getattr(self, name)
            if isinstance(table, Config) and (missing := set(type(table).model_fields) - table.model_fields_set):
                raise ValueError(f"a recipe is complete, but [model.{name}] lacks {', '.join(sorted(missing))}")
        return self

    def detector(self, classes: tuple[str, ...]) -> DetectorConfig:
        """The detector's configuration for these classes."""
        return DetectorConfig(classes=classes, **{name: getattr(self, name) for name in type(self).model_fields})


class DataConfig(Config):
    """Where the pictures are; paths are relative to the recipe's folder."""

    train_images: Path
    train_annotations: Path
    val_images: Path | None = None
    """Pictures to evaluate on, with `val_annotations`; without the two, a run is not evaluated."""
    val_annotations: Path | None = None
    classes: tuple[str, ...]
    """Classes to learn, in label order; a category of the annotations that is missing here is an error."""
    train_size: int = Field(gt=0)
    """Training pictures are resized once so that their longest side is this many pixels."""
    val_size: int = Field(gt=0)
    """Side of the square canvas on which the model is evaluated; a multiple of the coarsest stride."""
    min_box_px: float = Field(ge=0)
    """Boxes with a side below this many pixels after resizing are dropped and counted."""

    @model_validator(mode="after")
    def check_val(self) -> Self:
        if (self.val_images is None) != (self.val_annotations is None):
            raise ValueError("val_images and val_annotations come together; one of them is missing")
        return self


class AugmentConfig(Config):
    """Random changes to training pictures."""

    crop: int = Field(gt=0)
    """Side of the square training crop, a multiple of the coarsest stride."""
    scale: tuple[float, float]
    """Range of the random zoom before the crop, drawn evenly in its logarithm."""
    aspect: float = Field(ge=1)
    """The zoom of the two sides may differ by up to this factor."""
    crop_on_object: float = Field(ge=0, le=1)
    """Chance that the crop is placed around a randomly chosen object."""
    min_visible: float = Field(ge=0, le=1)
    """A box cut by the crop is kept if this share of its area is inside."""
    mosaic: float = Field(ge=0, le=1)
    """Chance that four pictures are joined into one crop."""
    flips: bool
    """Flip and turn by quarter turns: aerial pictures have no up."""
    brightness: float = Field(ge=0)
    """Largest shift of all pixels, on the scale 0 to 255."""
    contrast: float = Field(ge=0, lt=1)
    """Pixels are scaled by up to 1 +- this."""
    colour: float = Field(ge=0, lt=1)
    """Each channel is scaled on its own by up to 1 +- this."""
    grey: float = Field(ge=0, le=1)
    """Chance that the picture loses its colour."""
    noise: float = Field(ge=0)
    """Largest standard deviation of added noise, on the scale 0 to 255."""
    channel_shuffle: float = Field(ge=0, le=1)
    """Chance that the colour channels change places, as in false-colour pictures."""

    @model_validator(mode="after")
    def check_scale(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} is no range of positive numbers")
        return self


class LossConfig(Config):
    """Weights of the terms; see training/losses.py for the terms."""

    classification: float = Field(ge=0)
    """Weight of MAL in proposals, decoder layers and denoising."""
    tiny_l1: float = Field(ge=0)
    """Weight of D3Q's refined box loss."""
    giou: float = Field(ge=0)
    dense: float = Field(ge=0)
    """Weight of the dense one-to-many head, from which the heat maps are read."""
    density: float = Field(ge=0)
    """Weight of D3Q's density focal loss."""
    count: float = Field(ge=0)
    """Weight of the relative count error."""
    denoising: float = Field(ge=0)
    density_overlap: Literal["sum", "max"]
    """How the Gaussians of overlapping objects combine; the paper takes the maximum."""


class DenoisingConfig(Config):
    """Contrastive denoising queries (DINO, section 3.3)."""

    queries: int = Field(ge=0)
    """Positive denoising queries per image, about, with as many negative ones; 0 turns denoising off."""
    label_noise: float = Field(ge=0, le=1)
    """Chance that a denoising query carries a random label."""
    box_noise: float = Field(ge=0)
    """Largest shift and scaling of a positive query, in box sides; a negative one gets up to twice that."""


class OptimizerConfig(Config):
    """AdamW with linear warm-up, a flat part and a cosine end."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    """Applied to matrices and kernels, not to biases, norms and gates."""
    clip_norm: float = Field(gt=0)
    """Largest norm of the whole gradient."""
    warmup_steps: int = Field(ge=0)
    flat: float = Field(ge=0, le=1)
    """Share of the steps before the cosine decay starts."""
    final: float = Field(ge=0, le=1)
    """Learning rate at the end, as a share of the peak."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are evaluated and shipped."""


class RunConfig(Config):
    """Length, precision and bookkeeping of a run."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    seed: int = Field(ge=0)
    precision: Literal["bf16", "fp32"]
    """Precision of backbone and encoder; the decoder and the losses always run in fp32."""
    threads: int = Field(ge=0)
    """CPU threads for the model; 0 leaves the choice to PyTorch."""
    workers: int = Field(ge=0)
    """Processes that read and augment pictures; 0 does it between the steps."""
    checkpoint_every: int = Field(gt=0)
    """Steps between checkpoints."""
    evaluate_every: int = Field(ge=0)
    """Steps between evaluations on val; 0 evaluates only at the end."""
    log_every: int = Field(gt=0)
    """Steps between entries for TensorBoard."""
    init: Path | None = None
    """Checkpoint folder to start from (pre-training); parameters of other shapes start fresh."""


class Recipe(Config):
    """Everything that `python -m training fit` needs."""

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig
    loss: LossConfig
    denoising: DenoisingConfig
    optimizer: OptimizerConfig
    run: RunConfig

    @model_validator(mode="after")
    def check_sizes(self) -> Self:
        stride = self.model.detector(self.data.classes).strides[-1]
        for name, size in (("augment.crop", self.augment.crop), ("data.val_size", self.data.val_size)):
            if size % stride:
                raise ValueError(f"{name} {size} is not a multiple of the coarsest stride {stride}")
        return self

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a recipe; relative paths in it are taken from the recipe's folder."""
        recipe = super().from_toml(path)
        folder = Path(path).resolve().parent
        data, run = (_from_folder(section, folder) for section in (recipe.data, recipe.run))
        return recipe.model_copy(update={"data": data, "run": run})

    def to_toml(self) -> str:
        """The recipe as a file that says the same wherever it lies: paths are absolute, comments are gone."""
        return "\n".join(_toml_lines("", self.model_dump(mode="json", exclude_none=True))).lstrip() + "\n"


def _from_folder(section: DataConfig | RunConfig, folder: Path) -> DataConfig | RunConfig:
    """The section with its relative paths taken from a folder."""
    paths = {name: folder / value for name, value in section if isinstance(value, Path)}
    return section.model_copy(update=paths)


def _toml_lines(name: str, table: dict[str, Any]) -> Iterator[str]:
    """A table: its values, which TOML writes as JSON does, then the tables in it."""
    if name:
        yield f"\n[{name}]"
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    yield from (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items() if key not in inner)
    for key, value in inner.items():
        yield from _toml_lines(f"{name}.{key}" if name else key, value)
