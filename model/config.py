"""What a detector is made of: frozen, complete, checked when it is built, stored as JSON beside the weights."""

import difflib
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


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


class BackboneConfig(Config):
    """Plain residual convolutional backbone."""

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


class HeatConfig(Config):
    """Heat maps of HMPE (section 1) and the mask made of them."""

    source: Literal["probability", "cam"] = "probability"
    """`probability`: of the dense class head; `cam`: the paper's class activation map in closed form."""
    mask: Literal["soft", "hard"] = "soft"
    """`soft`: a sigmoid around tau; `hard`: 0 or 1, with the soft gradient in training."""
    tau: float = Field(default=0.25, gt=0, lt=1)
    """Heat at which a cell counts as hot."""
    temperature: float = Field(default=0.1, gt=0)
    """Width of the soft mask's transition."""


class EncoderConfig(Config):
    """Lateral convolutions, LSConv, MOHFE, attention on the coarsest level, feature pyramid."""

    lsconv_levels: int = Field(default=1, ge=0)
    """How many of the finest levels pass through a Linear-Snake Convolution."""
    mohfe: bool = True
    """Feed class and box heat embeddings into the encoder (HMPE, section 2)."""
    heads: int = Field(default=8, ge=1)
    """Attention heads on the coarsest level."""
    feedforward: int = Field(default=256, ge=1)
    """Hidden width of the attention block's feed-forward network."""
    fusion_blocks: int = Field(default=1, ge=0)
    """Residual blocks in each fusion of two pyramid levels."""


class QueryConfig(Config):
    """How many queries an image gets (D3Q, section III-C) and what they are made of."""

    k_min: int = Field(default=100, ge=1)
    """Fewest queries of an image."""
    k_max: int = Field(default=600, ge=1)
    """Most queries of an image."""
    t: float = Field(default=3.0, gt=0)
    """Queries per estimated object."""
    hidq: bool = True
    """Add mixed-heat features to the queries (HMPE, section 3)."""

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


class DetectorConfig(Config):
    """The whole detector."""

    classes: tuple[str, ...] = Field(min_length=1)
    """Class names; the index is the label."""
    strides: tuple[int, ...] = (8, 16, 32)
    """Feature levels in pixels a cell: consecutive ones of 4, 8, 16, 32, finest first."""
    width: int = Field(default=96, ge=8)
    """Channels of every level, of the queries and of the decoder."""
    anchor_cells: float = Field(default=2.0, gt=0)
    """Side of a token's anchor box in cells of its level."""
    pixel_mean: tuple[float, float, float] = (105.0, 108.0, 105.0)
    """Subtracted from the picture, per channel, on the scale 0 to 255."""
    pixel_std: tuple[float, float, float] = (50.0, 50.0, 50.0)
    """Divides the picture, per channel, on the scale 0 to 255."""
    backbone: BackboneConfig = BackboneConfig()
    heat: HeatConfig = HeatConfig()
    encoder: EncoderConfig = EncoderConfig()
    query: QueryConfig = QueryConfig()
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def check_fit(self) -> Self:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError(f"class names repeat: {sorted(self.classes)}")
        available = tuple(4 * 2**i for i in range(len(self.backbone.channels)))
        first = available.index(self.strides[0]) if self.strides[:1] and self.strides[0] in available else -1
        if first < 0 or self.strides != available[first : first + len(self.strides)]:
            raise ValueError(f"strides {self.strides} must be consecutive among the backbone's {available}")
        if self.encoder.lsconv_levels > len(self.strides):
            raise ValueError(f"lsconv_levels {self.encoder.lsconv_levels} exceeds the {len(self.strides)} levels")
        for name, heads in (("encoder.heads", self.encoder.heads), ("decoder.heads", self.decoder.heads)):
            if self.width % heads:
                raise ValueError(f"width {self.width} is not divisible by {name} {heads}")
        if self.width % 4:
            raise ValueError(f"width {self.width} is not divisible by 4, as the positional encoding needs")
        return self
