"""A model folder: `model.json`, `parity.json` and the graphs, verified before anything is run."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from service.onnx_file import OnnxFileError, require_self_contained

REQUIRED_FILES = ("encoder.onnx", "decoder.onnx", "detector.onnx")
_MAX_JSON_BYTES = 4 * 1024**2
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class ModelFolderError(Exception):
    """A model folder cannot be trusted; the message names the file, what was expected and what was found."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class InputSpec(_Frozen):
    """How a picture is laid on the canvas; mean and std are applied inside the graph."""

    size: int = Field(ge=32, le=8192)
    multiple_of: int = Field(ge=1)
    pad_value: int = Field(ge=0, le=255)
    channels: Literal["RGB"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class QuerySpec(_Frozen):
    """K = clamp(round(t * count), k_min, k_max)."""

    k_min: int = Field(ge=1)
    k_max: int = Field(ge=1)
    t: float = Field(gt=0, allow_inf_nan=False)


class PostprocessSpec(_Frozen):
    """Defaults of the detection list; a request may override the threshold and the length."""

    threshold: Fraction
    class_thresholds: dict[str, Fraction]
    nms_iou: Annotated[float, Field(gt=0, le=1)] | None
    max_detections: int = Field(ge=1)


class FileSpec(_Frozen):
    """What a file must be, byte for byte."""

    sha256: Sha256
    bytes: int = Field(ge=1)


class GraphFiles(_Frozen):
    """The two graphs of a precision."""

    encoder: str
    decoder: str


class CalibrationSpec(_Frozen):
    """The pictures that set the ranges of the int8 graphs."""

    pictures: int
    sha256: Sha256
    kept_in_float: list[str]


class SourceSpec(_Frozen):
    """Where the graphs come from."""

    commit: str
    checkpoint_sha256: str
    created: str


class DataSpec(_Frozen):
    """What the weights were trained on."""

    name: str
    licence: str
    citation: list[str]


class Manifest(_Frozen):
    """`model.json`. Keys that are not listed here are ignored, so that newer exporters may add some."""

    schema_version: Literal[2]
    name: str
    version: str
    task: Literal["object-detection"]
    classes: tuple[str, ...] = Field(min_length=1)
    input: InputSpec
    strides: tuple[int, ...] = Field(min_length=1)
    query: QuerySpec
    postprocess: PostprocessSpec
    decoder_layers: int = Field(ge=1)
    graphs: dict[str, GraphFiles]
    calibration: CalibrationSpec | None
    resolution_cm: float | None
    largest_object_px: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """The 95th percentile of the longer side of the training boxes, in px of the canvas: tiles overlap by as much."""
    parameters: int = Field(ge=0)
    files: dict[str, FileSpec]
    source: SourceSpec
    data: DataSpec
    licence: str

    @model_validator(mode="after")
    def _check_agreement(self) -> "Manifest":
        for name in self.files:
            if not _PLAIN_NAME.fullmatch(name):
                raise ValueError(f"files: {name!r} is not a plain file name inside the folder")
        if missing := [name for name in REQUIRED_FILES if name not in self.files]:
            raise ValueError(f"files: expected {', '.join(REQUIRED_FILES)}; missing {', '.join(missing)}")
        if "fp32" not in self.graphs:
            raise ValueError("graphs: expected an entry fp32")
        if unknown := {file for pair in self.graphs.values() for file in (pair.encoder, pair.decoder)} - set(
            self.files
        ):
            raise ValueError(f"graphs: not in files: {', '.join(sorted(unknown))}")
        if len(set(self.classes)) != len(self.classes) or any(not name or "," in name for name in self.classes):
            raise ValueError("classes: expected different, non-empty names without commas")
        if unknown := set(self.postprocess.class_thresholds) - set(self.classes):
            raise ValueError(f"postprocess.class_thresholds: not a class: {', '.join(sorted(unknown))}")
        if self.query.k_min > self.query.k_max:
            raise ValueError(f"query: k_min {self.query.k_min} is above k_max {self.query.k_max}")
        if list(self.strides) != sorted(set(self.strides)) or self.input.size % self.strides[-1]:
            raise ValueError(f"strides: expected rising strides that divide {self.input.size}, found {self.strides}")
        if self.input.multiple_of != self.strides[-1]:
            raise ValueError(
                f"input.multiple_of: expected the largest stride, {self.strides[-1]}, found {self.input.multiple_of}"
            )
        return self


class AgreementHost(_Frozen):
    """What ran the graphs of an agreement."""

    runtime: str
    device: str


class Agreement(_Frozen):
    """Another precision, or another runtime, against the fp32 graphs. Other keys are kept for display."""

    model_config = ConfigDict(frozen=True, extra="allow")

    precision: str
    host: AgreementHost
    passed: bool


class ParityReport(_Frozen):
    """`parity.json`: the graphs gave what the trained model gives. Other keys are kept for display."""

    model_config = ConfigDict(frozen=True, extra="allow")

    schema_version: Literal[1]
    passed: bool
    files: dict[str, Sha256]
    tolerance: dict[str, float]
    agreements: list[Agreement] = []


@dataclass(frozen=True)
class ModelFolder:
    """A folder that passed every check.

    Attributes:
        sha256: of model.json, which names the sha256 of every other file: it stands for the whole model.
        precision: of the graphs to load.
        graphs: file name to verified bytes of the two graphs to load; what was checked is what runs.
    """

    manifest: Manifest
    parity: ParityReport
    sha256: str
    precision: str
    graphs: dict[str, bytes] = field(repr=False)

    @property
    def loaded(self) -> GraphFiles:
        """Names of the two graphs to load."""
        return self.manifest.graphs[self.precision]


def load_model_folder(folder: Path, precision: str = "fp32", provider: str = "cpu") -> ModelFolder:
    """Read and verify `<name>/<version>/`.

    Args:
        precision: which of the folder's graphs to load; every file is verified all the same.
        provider: what will run them: `cpu`, `cuda` or `tensorrt`.
    Raises:
        ModelFolderError: anything is missing, cut off, changed since export or not proven equal.
    """
    manifest_bytes = _read_file(folder / "model.json", _MAX_JSON_BYTES)
    manifest = _parse_json("model.json", manifest_bytes, Manifest)
    parity = _parse_json("parity.json", _read_file(folder / "parity.json", _MAX_JSON_BYTES), ParityReport)
    found = f"{folder.parent.name}/{folder.name}"
    if found != f"{manifest.name}/{manifest.version}":
        raise ModelFolderError(f"model.json: expected folder {manifest.name}/{manifest.version}, found {found}")
    if not parity.passed:
        raise ModelFolderError("parity.json: expected passed = true, found false; export the model again")
    loaded = _graphs_of(manifest, parity, precision, provider)
    graphs: dict[str, bytes] = {}
    for name, spec in manifest.files.items():
        data = _read_verified(folder / name, spec)
        if name.endswith(".onnx"):
            _check_graph(name, data, parity)
        if name in loaded:
            graphs[name] = data
    return ModelFolder(manifest, parity, hashlib.sha256(manifest_bytes).hexdigest(), precision, graphs)


def _graphs_of(manifest: Manifest, parity: ParityReport, precision: str, provider: str) -> tuple[str, str]:
    """Names of the encoder and decoder of a precision that agreed with fp32 on a CPU, and on no GPU failed to."""
    if precision not in manifest.graphs:
        have = ", ".join(manifest.graphs)
        raise ModelFolderError(f"HEATQUERY_PRECISION: {manifest.name} has {have}, not {precision!r}")
    known = [a for a in parity.agreements if a.precision == precision and a.host.runtime == "onnxruntime"]
    on_cpu = [agreement.passed for agreement in known if agreement.host.device.startswith("cpu")]
    if precision != "fp32" and not (on_cpu and all(on_cpu)):
        raise ModelFolderError(
            f"parity.json: expected a passed comparison of {precision} with fp32, found "
            f"{'one that failed' if on_cpu else 'none'}; run `python -m export verify`"
        )
    failed = [a.host.device for a in known if not (a.passed or a.host.device.startswith("cpu"))]
    if provider != "cpu" and failed:
        raise ModelFolderError(f"parity.json: {precision} differs from the CPU on {failed[0]}; serve another precision")
    pair = manifest.graphs[precision]
    return pair.encoder, pair.decoder


def find_model_folder(models: Path, wanted: str | None) -> Path:
    """Choose the `<name>/<version>/` to serve.

    Args:
        wanted: name, name/version, or None for the only name there is. Without a version, the newest.
    Raises:
        ModelFolderError: no such folder, or the choice is not clear.
    """
    names = _versions_by_name(models)
    if not names:
        raise ModelFolderError(f"no <name>/<version>/model.json under the models folder {models.name!r}")
    name, _, version = (wanted or "").partition("/")
    if not name:
        if len(names) > 1:
            raise ModelFolderError(f"several models: {', '.join(sorted(names))}; name one in HEATQUERY_MODEL")
        name = next(iter(names))
    if name not in names:
        raise ModelFolderError(f"HEATQUERY_MODEL: expected one of {', '.join(sorted(names))}, found {name!r}")
    if version and version not in names[name]:
        raise ModelFolderError(f"HEATQUERY_MODEL: {name} has {', '.join(names[name])}, not {version!r}")
    return models / name / (version or names[name][-1])


def _versions_by_name(models: Path) -> dict[str, list[str]]:
    """{name: versions, oldest first}; a version counts as soon as it has a model.json."""
    names: dict[str, list[str]] = {}
    for manifest in models.glob("*/*/model.json"):
        names.setdefault(manifest.parent.parent.name, []).append(manifest.parent.name)
    return {name: sorted(versions, key=_version_key) for name, versions in names.items()}


def _version_key(version: str) -> list[tuple[int, int, str]]:
    """Numbers by value, so that 10 comes after 9, and words before numbers."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in re.findall(r"\d+|\D+", version)]


AnyModel = TypeVar("AnyModel", bound=BaseModel)


def _parse_json(name: str, data: bytes, schema: type[AnyModel]) -> AnyModel:
    try:
        return schema.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        found = "" if isinstance(first["input"], dict) else f", found {str(first['input'])[:80]!r}"
        raise ModelFolderError(f"{name}: {where}: {first['msg']}{found}") from error


def _read_verified(path: Path, spec: FileSpec) -> bytes:
    data = _read_file(path, spec.bytes)
    if len(data) != spec.bytes:
        raise ModelFolderError(f"{path.name}: expected {spec.bytes:,} bytes, found {len(data):,}")
    if (digest := hashlib.sha256(data).hexdigest()) != spec.sha256:
        raise ModelFolderError(f"{path.name}: expected sha256 {spec.sha256}, found {digest}")
    return data


def _read_file(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes; the bytes returned are the bytes that get verified and used."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise ModelFolderError(f"{path.name}: expected at most {limit:,} bytes, found {size:,}")
        data = path.read_bytes()
    except OSError as error:
        raise ModelFolderError(f"{path.name}: cannot be read: {error.strerror}") from error
    if not data:
        raise ModelFolderError(f"{path.name}: expected content, found an empty file")
    return data


def _check_graph(name: str, data: bytes, parity: ParityReport) -> None:
    """A graph must hold its own weights and be the very file whose parity was measured."""
    digest = hashlib.sha256(data).hexdigest()
    if parity.files.get(name) != digest:
        raise ModelFolderError(
            f"parity.json: expected {name} with sha256 {digest}, found {parity.files.get(name, 'no entry')}"
        )
    try:
        require_self_contained(data)
    except OnnxFileError as error:
        raise ModelFolderError(f"{name}: {error}") from error
