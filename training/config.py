"""A recipe: one complete TOML file that says what is trained, on what, and how."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from model.config import Config
from training.losses import ClassificationKind
from training.model_config import ModelConfig


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


OBLONG_STEP_PX = 32
"""Sides of oblong crops are multiples of this."""


class AugmentConfig(Config):
    """Random changes to training pictures."""

    crop: int = Field(gt=0)
    """Side of the square training crop, a multiple of the coarsest stride."""
    crop_aspect: float = Field(default=1.0, ge=1)
    """The crops of a batch are oblong, up to this many times as long as wide before the sides are rounded to
    OBLONG_STEP_PX, with about the area of the square of `crop`; 1 for squares."""
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
    position_shift: int = Field(ge=0)
    """Positions in a crop are moved by up to this many pixels, so that it stands for any part of a larger picture
    (SHAPE, Kiyono et al., 2021)."""

    @property
    def crop_told(self) -> str:
        """The size of the crops as a person reads it."""
        oblong = f", up to {self.crop_aspect:g} times as long as wide" if self.crop_aspect > 1 else ""
        return f"{self.crop} px{oblong}"

    @model_validator(mode="after")
    def check_scale(self) -> Self:
        if not 0 < self.scale[0] <= self.scale[1]:
            raise ValueError(f"scale {self.scale} is no range of positive numbers")
        return self


class LossConfig(Config):
    """Which terms the objective has, and their weights; see training/losses.py for the terms."""

    classification_kind: ClassificationKind
    """How decoder layers and denoising learn classes; proposals too, but by `focal` where this is `cross_entropy`."""
    classification: float = Field(ge=0)
    """Weight of the class loss in decoder layers and denoising."""
    proposal_classification: float = Field(ge=0)
    """Weight of the class loss in proposals."""
    tiny_l1: float = Field(ge=0)
    """Weight of D3Q's refined box loss, wherever boxes are learnt."""
    l1: float = Field(ge=0)
    """Weight of DETR's box loss, wherever boxes are learnt."""
    giou: float = Field(ge=0)
    dense: float = Field(ge=0)
    """Weight of the dense one-to-many head, from which the heat maps are read."""
    density: float = Field(ge=0)
    """Weight of D3Q's density focal loss."""
    count: float = Field(ge=0)
    """Weight of the relative count error, which D3Q does not have."""
    denoising: float = Field(ge=0)
    density_target: Literal["box", "paper"]
    """How wide an object's Gaussian is: three sigma are half a side, or D3Q's radius rule."""
    density_overlap: Literal["sum", "max"]
    """How the Gaussians of overlapping objects combine; the paper takes the maximum."""


class MatcherConfig(Config):
    """Weights of the costs by which queries are matched with objects."""

    classification: float = Field(ge=0)
    """Weight of the focal cost, or of the softmax cost where the decoder classifies by softmax."""
    tiny_l1: float = Field(ge=0)
    l1: float = Field(ge=0)
    giou: float = Field(ge=0)


class DenoisingConfig(Config):
    """Contrastive denoising queries (DINO, section 3.3)."""

    queries: int = Field(ge=0)
    """Positive denoising queries per image, about, with as many negative ones; 0 turns denoising off."""
    max_groups: int = Field(ge=1)
    """Most noised copies of an object; without this limit a picture of one object has `queries` of them."""
    label_noise: float = Field(ge=0, le=1)
    """Chance that a denoising query carries a random label; DINO's ratio of 0.5 is a chance of 0.25."""
    box_noise: float = Field(ge=0)
    """Size of the noise of a positive query; a negative one gets up to twice that."""
    box_noise_on: Literal["centre", "corners"]
    """`centre`: the centre moves by up to `box_noise` sides, and a side grows by up to a factor exp(`box_noise`).
    `corners`: each corner moves by up to `box_noise` half sides, as in DINO."""


class OptimizerConfig(Config):
    """AdamW with linear warm-up and a falling learning rate."""

    learning_rate: float = Field(gt=0)
    backbone_factor: float = Field(ge=0, le=1)
    """Learning rate of the backbone as a share of the others'; small for a pre-trained one."""
    weight_decay: float = Field(ge=0)
    """Applied to matrices and kernels, not to biases, norms and gates."""
    clip_norm: float = Field(gt=0)
    """Largest norm of the whole gradient."""
    warmup_steps: int = Field(ge=0)
    schedule: Literal["cosine", "step"]
    """`cosine`: flat, then half a cosine down to `final`. `step`: falls to a tenth at each of the `milestones`."""
    flat: float = Field(default=1.0, ge=0, le=1)
    """Cosine: share of the steps before the decay starts."""
    final: float = Field(default=1.0, ge=0, le=1)
    """Cosine: learning rate at the end, as a share of the peak."""
    milestones: tuple[float, ...] = ()
    """Step: shares of the run after which the rate falls; D3Q's 20th of 24 epochs is 0.8333."""
    ema_decay: float = Field(ge=0, lt=1)
    """Decay of the averaged weights, which are the ones that are evaluated and shipped."""

    @model_validator(mode="after")
    def check_schedule(self) -> Self:
        """A schedule's own keys are stated, and no others say anything."""
        for schedule, keys in (("cosine", ("flat", "final")), ("step", ("milestones",))):
            for key in keys:
                if schedule == self.schedule and key not in self.model_fields_set:
                    raise ValueError(f"schedule {schedule!r} needs {key}")
                if schedule != self.schedule and getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"schedule {self.schedule!r} does not read {key}; leave it out")
        if self.schedule == "step" and not self.milestones:
            raise ValueError("schedule 'step' needs milestones, such as [0.8333]")
        if list(self.milestones) != sorted({m for m in self.milestones if 0 < m < 1}):
            raise ValueError(f"milestones {self.milestones} must rise, between 0 and 1")
        return self


class RunConfig(Config):
    """Length, precision and bookkeeping of a run."""

    steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    """Pictures per step, of all training processes together."""
    seed: int = Field(ge=0)
    precision: Literal["bf16", "fp32"]
    """Precision of backbone and encoder; the decoder and the losses always run in fp32."""
    compile: bool
    """Compile backbone and encoder (torch.compile): minutes at the start, which a long run earns back on a GPU."""
    threads: int = Field(ge=0)
    """CPU threads for the model in each training process; 0 leaves the choice to PyTorch."""
    workers: int = Field(ge=0)
    """Processes that read and augment pictures for each training process; 0 does it between the steps."""
    checkpoint_every: int = Field(gt=0)
    """Steps between checkpoints."""
    evaluate_every: int = Field(ge=0)
    """Steps between evaluations on val; 0 evaluates only at the end."""
    log_every: int = Field(gt=0)
    """Steps between entries of metrics.jsonl and TensorBoard."""
    init: Path | None = None
    """Checkpoint folder to start from (pre-training); parameters of other shapes start fresh."""


class Recipe(Config):
    """Everything that `python -m training fit` needs."""

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig
    loss: LossConfig
    matcher: MatcherConfig
    denoising: DenoisingConfig
    optimizer: OptimizerConfig
    run: RunConfig

    @model_validator(mode="after")
    def check_sizes(self) -> Self:
        detector = self.model.detector(self.data.classes)
        stride = detector.strides[-1]
        if detector.encoder.kind == "deformable":  # its level of stride 64 rounds up: D3Q's 800 pixels are 13 cells
            stride = min(stride, 32)
        for name, size in (("augment.crop", self.augment.crop), ("data.val_size", self.data.val_size)):
            if size % stride:
                raise ValueError(f"{name} {size} is not a multiple of the coarsest stride {stride}")
        if self.augment.crop_aspect > 1 and (self.augment.crop % OBLONG_STEP_PX or stride > OBLONG_STEP_PX):
            raise ValueError(
                f"augment.crop_aspect needs a crop that is a multiple of {OBLONG_STEP_PX} and no larger stride, but "
                f"augment.crop is {self.augment.crop} and the coarsest stride {stride}; leave crop_aspect out"
            )
        return self

    @model_validator(mode="after")
    def check_losses(self) -> Self:
        """Every loss needs the part of the model that it teaches."""
        kind, reading = self.loss.classification_kind, self.model.decoder.classification
        needed = "softmax" if kind == "cross_entropy" else "sigmoid"
        if reading != needed:
            raise ValueError(f"loss.classification_kind {kind!r} needs model.decoder.classification {needed!r}")
        for part, losses in (("heat", ("dense",)), ("density", ("density", "count"))):
            asked = [name for name in losses if getattr(self.loss, name) > 0]
            if getattr(self.model, part) is None and asked:
                raise ValueError(
                    f"loss.{asked[0]} is above 0, but there is no model.{part}: set it to 0, or add the table"
                )
        return self

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read a recipe; relative paths in it are taken from the recipe's folder."""
        recipe = super().from_toml(path)
        folder = Path(path).resolve().parent
        data, run, backbone = (_from_folder(part, folder) for part in (recipe.data, recipe.run, recipe.model.backbone))
        model = recipe.model.model_copy(update={"backbone": backbone})
        return recipe.model_copy(update={"model": model, "data": data, "run": run})

    def to_toml(self) -> str:
        """The recipe as a file that says the same wherever it lies: paths are absolute, comments are gone."""
        recipe = self.model_dump(mode="json", exclude_none=True)
        recipe["model"] |= {name: False for name, value in self.model if value is None}  # a part that is left out
        return "\n".join(_toml_lines("", recipe)).lstrip() + "\n"


def _from_folder(section: Config, folder: Path) -> Config:
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
