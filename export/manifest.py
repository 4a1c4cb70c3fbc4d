"""What a model folder says of itself: `model.json`, and the card it takes the words from."""

import hashlib
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from model.checkpoint import WEIGHTS
from model.config import Config, DetectorConfig
from model.detector import Detector

PLAIN_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
PAD_VALUE = 114
"""Grey of the canvas where there is no picture, as in training."""
ROOT = Path(__file__).resolve().parents[1]
UNSAID = "unknown"

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
Fraction = Annotated[float, Field(ge=0, le=1)]
NmsIou = Annotated[
    Annotated[float, Field(gt=0, le=1)] | None, BeforeValidator(lambda value: None if value == "off" else value)
]
ClassName = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^,]*$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class Data(Config):
    """The pictures that the weights come from."""

    name: Text
    licence: Text
    """What their owners allow, in their words."""
    citation: tuple[Text, ...] = ()
    """Papers that their owners ask to cite."""


class Postprocess(Config):
    """How outputs become detections unless a request says otherwise."""

    threshold: Fraction = 0.3
    class_thresholds: dict[str, Fraction] = Field(default_factory=dict)
    """Class name to a threshold of its own."""
    nms_iou: NmsIou = 0.8
    """Boxes of one class that overlap more are one object; "off" in a card, null in `model.json`, keeps both."""
    max_detections: int = Field(default=300, ge=1)


class Card(Config):
    """What only people know of a model: a small TOML file beside the recipe."""

    data: Data = Data(name=UNSAID, licence=UNSAID)
    licence: Text = UNSAID
    """Terms of the weights."""
    postprocess: Postprocess = Postprocess()
    resolution_cm: float | None = Field(default=None, gt=0)
    """Ground that a pixel of the canvas shows, in centimetres a side, as in most of the training pictures."""
    largest_object_px: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """The 95th percentile of the longer side of the training boxes, in pixels of the canvas; `inspect` measures it."""


class InputSpec(Config):
    """How a picture becomes the graph's input."""

    size: int = Field(ge=32, le=8192)
    """Side of the square canvas in pixels."""
    multiple_of: int
    """What any other side must be a multiple of."""
    pad_value: int
    channels: Literal["RGB"]
    mean: tuple[float, float, float]
    """Subtracted inside the graph, on the scale 0 to 255."""
    std: tuple[float, float, float]
    """Divided by inside the graph, on the scale 0 to 255."""

    @model_validator(mode="after")
    def check_size(self) -> "InputSpec":
        if self.size % self.multiple_of:
            near = max(1, round(self.size / self.multiple_of)) * self.multiple_of
            raise ValueError(f"size {self.size} is not a multiple of the largest stride {self.multiple_of}; try {near}")
        return self


class QuerySpec(Config):
    """K = clamp(round_half_even(t * count), k_min, min(k_max, available))."""

    k_min: int
    k_max: int
    t: float


class FileSpec(Config):
    """A file, byte for byte."""

    sha256: str
    bytes: int

    @classmethod
    def of(cls, path: Path) -> "FileSpec":
        """Measure a file."""
        return cls(sha256=sha256(path), bytes=path.stat().st_size)


class GraphFiles(Config):
    """The two graphs of a precision; a precision may share one of them with another."""

    encoder: str
    decoder: str


FP32 = GraphFiles(encoder="encoder.onnx", decoder="decoder.onnx")


class Calibration(Config):
    """The pictures that set the ranges of the int8 graphs."""

    pictures: int
    sha256: str
    """Of the canvases, one after the other."""
    kept_in_float: tuple[str, ...]
    """Parts of the encoder that a sensitivity pass left out."""


class Source(Config):
    """Where the graphs come from."""

    commit: str
    """Of this repository; "-dirty" with changes on top, "unknown" outside git."""
    checkpoint_sha256: str
    created: str


class Manifest(Config):
    """`model.json`."""

    schema_version: Literal[2] = 2
    name: str = Field(pattern=f"^{PLAIN_NAME}$")
    version: str = Field(pattern=f"^{PLAIN_NAME}$")
    task: Literal["object-detection"] = "object-detection"
    classes: tuple[ClassName, ...]
    input: InputSpec
    strides: tuple[int, ...]
    query: QuerySpec
    postprocess: Postprocess
    decoder_layers: int
    graphs: dict[Precision, GraphFiles] = Field(default_factory=lambda: {"fp32": FP32})
    """By precision; fp32 is always there."""
    calibration: Calibration | None = None
    """Of the int8 graphs, if there are any."""
    resolution_cm: float | None = None
    largest_object_px: float | None = None
    parameters: int
    files: dict[str, FileSpec]
    source: Source
    data: Data
    licence: str

    @model_validator(mode="after")
    def check_class_thresholds(self) -> "Manifest":
        if unknown := set(self.postprocess.class_thresholds) - set(self.classes):
            raise ValueError(f"class_thresholds name {sorted(unknown)}; the classes are {list(self.classes)}")
        return self


def describe(detector: Detector, checkpoint: Path, name: str, version: str, size: int, card: Card) -> Manifest:
    """The manifest of a model whose files do not exist yet.

    Raises:
        pydantic.ValidationError: a name, the size or the card does not fit.
    """
    config = detector.config
    return Manifest(
        name=name,
        version=version,
        classes=config.classes,
        input=input_spec(config, size),
        strides=config.strides,
        query=QuerySpec(k_min=config.query.k_min, k_max=config.query.k_max, t=config.query.t),
        postprocess=card.postprocess,
        decoder_layers=config.decoder.layers,
        resolution_cm=card.resolution_cm,
        largest_object_px=card.largest_object_px,
        parameters=sum(parameter.numel() for parameter in detector.parameters()),
        files={},
        source=Source(
            commit=commit_of(ROOT),
            checkpoint_sha256=sha256(checkpoint / WEIGHTS),
            created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ),
        data=card.data,
        licence=card.licence,
    )


def input_spec(config: DetectorConfig, size: int) -> InputSpec:
    """How pictures are laid on a canvas. Raises pydantic.ValidationError if the strides do not divide its side."""
    return InputSpec(
        size=size,
        multiple_of=config.strides[-1],
        pad_value=PAD_VALUE,
        channels="RGB",
        mean=config.pixel_mean,
        std=config.pixel_std,
    )


def read_card(path: Path | None, overrides: dict[str, Any]) -> Card:
    """Read a card, or an empty one that says "unknown".

    Args:
        overrides: fields of `Postprocess` that go before those of the card.
    Raises:
        FileNotFoundError, tomllib.TOMLDecodeError, pydantic.ValidationError.
    """
    card = Card() if path is None else Card.from_toml(path)
    postprocess = Postprocess.model_validate(card.postprocess.model_dump() | overrides)
    return card.model_copy(update={"postprocess": postprocess})


def commit_of(folder: Path) -> str:
    """The commit that a folder is at, with "-dirty" for changes on top of it; "unknown" if it is no repository."""
    try:
        top, commit = _git(folder, "rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top) != folder:
            return UNSAID
        return commit + ("-dirty" if _git(folder, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return UNSAID


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], check=True, capture_output=True, text=True)
    return done.stdout


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
