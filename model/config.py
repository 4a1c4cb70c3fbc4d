"""What a detector is made of: frozen, complete, checked when it is built, stored as JSON beside the weights."""

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

STAGE_STRIDES = (4, 8, 16, 32)
"""Strides of the stages that a backbone can have."""
EXTRA_STRIDE = 64
"""Stride of the level that a convolution makes of the backbone's coarsest one."""

GROUPS = 32
"""Of the group norms of the deformable encoder."""


class Config(BaseModel):
    """Base of all configurations: immutable, and an unknown key is an error that names the nearest valid one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    @model_validator(mode="before")
    @classmethod
    def reject_unknown_keys(cls, data: Any) -> Any:
        """Raise ValueError for a key that is no field of this class."""
        for key in data if isinstance(data, dict) else ():
            if key not in cls.model_fields:
                nearest = difflib.get_close_matches(str(key), cls.model_fields, n=1, cutoff=0.0)[0]
                raise ValueError(f"{cls.__name__} has no key {key!r}; the nearest valid key is {nearest!r}")
        return data

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """Read one complete TOML file. Raises FileNotFoundError or ValueError."""
        try:
            return cls.model_validate(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{path} is not TOML: {error}") from error


class PlainBackboneConfig(Config):
    """Plain residual convolutional backbone."""

    kind: Literal["plain"] = "plain"
    """Which of the backbones this table is about."""
    stem: int = Field(default=16, ge=1)
    """Channels after the first convolution (stride 2)."""
    channels: tuple[int, ...] = (24, 48, 96, 160)
    """Channels of the stages at strides 4, 8, 16 and 32; fewer entries make a shallower backbone."""
    blocks: tuple[int, ...] = (1, 2, 2, 1)
    """Residual blocks per stage."""

    @model_validator(mode="after")
    def check_lengths(self) -> Self:
        if len(self.channels) != len(self.blocks) or not 1 <= len(self.channels) <= 4:
            raise ValueError(f"channels {self.channels} and blocks {self.blocks} need 1 to 4 entries each")
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides that it has a stage for."""
        return STAGE_STRIDES[: len(self.channels)]


class TimmBackboneConfig(Config):
    """A backbone of the timm library with stages at strides 4, 8, 16 and 32."""

    kind: Literal["timm"] = "timm"
    """Which of the backbones this table is about."""
    name: str
    """What timm calls it, such as hgnetv2_b4 or resnet50."""
    pretrained: bool | Path = False
    """True: weights that timm itself loads; a path: a local safetensors file; false: from scratch."""
    freeze_norm: bool = False
    """Keep the statistics and scales of its batch norms as they are loaded."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides that it has a stage for."""
        return STAGE_STRIDES


class HeatConfig(Config):
    """Heat maps of HMPE (section 1) and the mask made of them."""

    source: Literal["probability", "cam"] = "probability"
    """Class heat. `probability`: of the dense class head; `cam`: the paper's class activation map in closed form."""
    box: Literal["residual", "deviation", "cam", "off"] = "residual"
    """Box heat. `residual`: how far the dense head moves the anchor; `deviation`: how far that is from what it does in
    most cells of the level; `cam`: the paper's activation map of the Huber loss in closed form; `off`: none, class heat
    stands in for it, and mixed heat is class heat."""
    mask: Literal["soft", "hard", "quantile"] = "soft"
    """`soft`: a sigmoid around tau; `hard`: 0 or 1; `quantile`: 1 for the hottest cells, 0 for the others. The last two
    have the soft gradient in training."""
    tau: float = Field(default=0.25, gt=0, lt=1)
    """Heat at which a cell counts as hot; for `quantile` the share of a level's cells that are hot."""
    temperature: float = Field(default=0.1, gt=0)
    """Width of the soft mask's transition."""
    masked_position: Literal["off", "attention", "levels"] = "attention"
    """Where cold cells lose their position (formula 7). `off`: nowhere; `attention`: in the encoder's attention;
    `levels`: there, and the masked encoding is added to every level through a gate that starts at zero."""


class LSConvConfig(Config):
    """Linear-Snake Convolution (HMPE, section 4) on the finest levels."""

    paths: Literal["both", "snake", "linear", "off"] = "both"
    """Which strips there are; `snake` alone is the paper's row "DSConv"."""
    resolution: Literal["full", "half"] = "half"
    """`full`: on every cell; `half`: on every second one along each axis."""
    levels: int = Field(default=1, ge=1)
    """How many of the finest levels pass through one."""
    bottleneck: int = Field(default=32, ge=1)
    """Channels of the strips."""


class HybridEncoderConfig(Config):
    """Lateral convolutions, LSConv, MOHFE, attention on the coarsest level, feature pyramid."""

    kind: Literal["hybrid"] = "hybrid"
    """Which of the encoders this table is about."""
    mohfe: Literal["off", "gated", "attention"] = "gated"
    """How class and box heat embeddings enter (HMPE, section 2). `gated`: added to every level through a gate that
    starts at zero; `attention`: queries, keys and values of the attention are made of them, as the paper writes."""
    heads: int = Field(default=8, ge=1)
    """Attention heads on the coarsest level."""
    feedforward: int = Field(default=256, ge=1)
    """Hidden width of the attention block's feed-forward network."""
    fusion_blocks: int = Field(default=1, ge=0)
    """Residual blocks in each fusion of two pyramid levels."""
    lsconv: LSConvConfig = LSConvConfig()


class DeformableEncoderConfig(Config):
    """Multi-scale deformable encoder of the D3Q paper's hosts; it has no heat."""

    kind: Literal["deformable"] = "deformable"
    """Which of the encoders this table is about."""
    layers: int = Field(default=6, ge=1)
    """Encoder layers."""
    heads: int = Field(default=8, ge=1)
    """Heads of deformable attention."""
    points: int = Field(default=4, ge=1)
    """Sampling points per head and level."""
    feedforward: int = Field(default=2048, ge=1)
    """Hidden width of the feed-forward network."""
    temperature: float = Field(default=20.0, gt=1)
    """Ratio of the positional encoding's lowest frequency to its highest."""


class DensityConfig(Config):
    """D3Q's density head (D3Q, section III-B)."""

    hidden: int = Field(default=32, ge=1)
    """Channels of its convolution."""


class QueryConfig(Config):
    """How many queries an image gets (D3Q, section III-C) and what they are made of."""

    k_min: int = Field(default=100, ge=1)
    """Fewest queries of an image."""
    k_max: int = Field(default=600, ge=1)
    """Most queries of an image; without density, the number of every image."""
    t: float = Field(default=3.0, gt=0)
    """Queries per estimated object."""
    content: Literal["memory", "memory+heat", "heat", "learned"] = "memory+heat"
    """What a query is made of. `memory`: the proposal's features; `memory+heat`: these and mixed-heat features (HIDQ,
    HMPE, section 3); `heat`: mixed-heat features alone, as the paper writes; `learned`: a table of k_max rows, as in
    D3Q."""
    suppress_cold: bool = False
    """Rank proposals by score times heat mask, so that cold cells seldom become queries (HMPE, section 3)."""

    @model_validator(mode="after")
    def check_range(self) -> Self:
        if self.k_min > self.k_max:
            raise ValueError(f"k_min {self.k_min} is above k_max {self.k_max}")
        return self


class DecoderConfig(Config):
    """Deformable decoder."""

    layers: int = Field(default=3, ge=1, le=8)
    """Decoder layers; each is supervised, so that any prefix of them can be exported."""
    heads: int = Field(default=8, ge=1)
    """Heads of self-attention and of deformable attention."""
    points: int = Field(default=4, ge=1)
    """Sampling points per head and level."""
    feedforward: int = Field(default=256, ge=1)
    """Hidden width of the feed-forward network."""
    min_offset_cells: float = Field(default=1.0, ge=0)
    """However tiny the box, the outermost point looks this many cells of its level away, before training bends it."""
    classification: Literal["sigmoid", "softmax"] = "sigmoid"
    """`sigmoid`: a score of its own per class; `softmax`: one more logit for the background, as in D3Q's DINO host."""
    checkpointing: bool = False
    """Compute the layers of encoder and decoder again in the backward pass, to save memory."""
    look_forward_twice: bool = False
    """A layer's box loss also reaches the layer before it (DINO, section 3.5)."""


def _left_out(table: Any) -> Any:
    return None if table is False else table


BackboneConfig: TypeAlias = Annotated[PlainBackboneConfig | TimmBackboneConfig, Field(discriminator="kind")]
EncoderConfig: TypeAlias = Annotated[HybridEncoderConfig | DeformableEncoderConfig, Field(discriminator="kind")]
OptionalHeat: TypeAlias = Annotated[HeatConfig | None, BeforeValidator(_left_out)]
OptionalDensity: TypeAlias = Annotated[DensityConfig | None, BeforeValidator(_left_out)]


class DetectorConfig(Config):
    """The whole detector. TOML has no word for None: there `heat = false` and `density = false` leave a part out."""

    classes: tuple[str, ...] = Field(min_length=1)
    """Class names; the index is the label."""
    strides: tuple[int, ...] = (8, 16, 32)
    """Feature levels in pixels a cell: consecutive ones of 4, 8, 16, 32, 64, finest first."""
    width: int = Field(default=96, ge=8)
    """Channels of every level, of the queries and of the decoder."""
    anchor_cells: float = Field(default=2.0, gt=0)
    """Side of a token's anchor box in cells of its level."""
    pixel_mean: tuple[float, float, float] = (105.0, 108.0, 105.0)
    """Subtracted from the picture, per channel, on the scale 0 to 255."""
    pixel_std: tuple[float, float, float] = (50.0, 50.0, 50.0)
    """Divides the picture, per channel, on the scale 0 to 255."""
    backbone: BackboneConfig = PlainBackboneConfig()
    heat: OptionalHeat = HeatConfig()
    """Without it the detector is a host without HMPE."""
    encoder: EncoderConfig = HybridEncoderConfig()
    density: OptionalDensity = DensityConfig()
    """Without it every image gets k_max queries."""
    query: QueryConfig = QueryConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def check_fit(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"class names repeat: {sorted(self.classes)}")
        available = self.backbone.strides
        if available == STAGE_STRIDES:
            available = (*available, EXTRA_STRIDE)
        first = available.index(self.strides[0]) if self.strides[:1] and self.strides[0] in available else -1
        if first < 0 or self.strides != available[first : first + len(self.strides)]:
            raise ValueError(f"strides {self.strides} must be consecutive among the backbone's {available}")
        if self.strides == (EXTRA_STRIDE,):
            raise ValueError(f"stride {EXTRA_STRIDE} is made of stride {STAGE_STRIDES[-1]} and cannot stand alone")
        return self

    @model_validator(mode="after")
    def check_width(self) -> Self:
        for name, heads in (("encoder.heads", self.encoder.heads), ("decoder.heads", self.decoder.heads)):
            if self.width % heads:
                raise ValueError(f"width {self.width} is not divisible by {name} {heads}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not divisible by 4, as the positional encoding needs")
        if isinstance(self.encoder, DeformableEncoderConfig) and self.width % GROUPS:
            raise ValueError(f"width {self.width} is not divisible by {GROUPS}, the groups of the deformable encoder")
        return self

    @model_validator(mode="after")
    def check_levels(self) -> Self:
        if isinstance(self.encoder, HybridEncoderConfig) and self.encoder.lsconv.levels > len(self.strides):
            raise ValueError(f"lsconv.levels {self.encoder.lsconv.levels} exceeds the {len(self.strides)} levels")
        return self

    @model_validator(mode="after")
    def check_heat(self) -> Self:
        if self.heat is not None:
            if isinstance(self.encoder, DeformableEncoderConfig):
                raise ValueError("the deformable encoder has no heat: leave heat out, or take encoder.kind 'hybrid'")
            return self
        needs = {
            f"encoder.mohfe {self._mohfe!r}": self._mohfe != "off",
            f"query.content {self.query.content!r}": self.query.content in ("memory+heat", "heat"),
            "query.suppress_cold": self.query.suppress_cold,
        }
        if missing := [name for name, needed in needs.items() if needed]:
            raise ValueError(f"without heat there can be no {', '.join(missing)}")
        return self

    @property
    def _mohfe(self) -> str:
        return self.encoder.mohfe if isinstance(self.encoder, HybridEncoderConfig) else "off"
