"""`python -m export verify`: proves a model folder once more, on the machine that will run it.

The fp32 graphs on the CPU are the measure; with `--checkpoint`, they are held against torch first. Every precision of
the folder is compared on every runtime that is there: ONNX Runtime on the CPU and on CUDA, and TensorRT.
"""

import argparse
from pathlib import Path
from typing import TypeVar

import onnxruntime as ort
from pydantic import ValidationError
from tqdm import tqdm

from export.folder import replace_json
from export.graphs import cut_decoder
from export.manifest import FileSpec, Manifest, sha256
from export.parity import ParityError, Report
from export.pictures import real_canvases
from export.proof import on_onnxruntime, on_tensorrt, prove
from export.release import MOST_PICTURES
from export.runtime import PROVIDERS, Graphs, Provider
from model.checkpoint import WEIGHTS, load_detector
from model.config import Config
from model.detector import Detector


def add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the command line."""
    parser = commands.add_parser("verify", help="prove that a model folder's graphs agree on this machine")
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="FOLDER|COCO.json", help=f"up to {MOST_PICTURES} of these pictures"
    )
    parser.add_argument("--engines", type=Path, metavar="CACHE", help="compare TensorRT too; engines are kept there")
    parser.add_argument("--checkpoint", type=Path, help="hold the graphs against torch too, not only each other")


def run_verify(arguments: argparse.Namespace) -> Report:
    """Carry out the parsed sub-command; returns the new report, which is in the folder too.

    Raises:
        FileNotFoundError, ValueError: the folder or the pictures are not usable.
        ParityError: something differs by more than the tolerance; the report says so too.
    """
    folder: Path = arguments.model_dir
    manifest, report = read_json(folder / "model.json", Manifest), read_json(folder / "parity.json", Report)
    check_files(folder, manifest, report)
    canvases = real_canvases(arguments.data, manifest.input.size, manifest.input.pad_value, MOST_PICTURES)
    providers: list[Provider] = [
        name for name, provider in PROVIDERS.items() if provider in ort.get_available_providers()
    ]
    detector = None if arguments.checkpoint is None else matching_detector(arguments.checkpoint, manifest)
    reference = Graphs.load(folder, manifest.query, len(manifest.strides))
    rounds = len(providers) * len(manifest.graphs) - 1
    rounds += 0 if detector is None else len(manifest.graphs)
    rounds += len(manifest.graphs) if arguments.engines else 0
    with tqdm(total=rounds * len(canvases), unit="picture", disable=None) as bar:
        if detector is not None:
            report = prove(detector, folder, manifest.graphs, manifest.files, canvases, "real", bar.update)
        for provider in providers:
            found = on_onnxruntime(provider, reference, folder, manifest.graphs, canvases, "real", bar.update)
            report = report.with_agreements(found)
        if arguments.engines:
            found = on_tensorrt(arguments.engines, reference, folder, manifest, canvases, "real", bar.update)
            report = report.with_agreements(found)
    replace_json(folder / "parity.json", report)
    if complaints := report.complaints():
        raise ParityError(f"{folder} differs, and its parity.json says so now: {'; '.join(complaints)}")
    return report


def check_files(folder: Path, manifest: Manifest, report: Report) -> None:
    """Raise ValueError if a file of the folder is not the one that was exported, or was never compared."""
    for name, spec in manifest.files.items():
        if FileSpec.of(folder / name) != spec or report.files.get(name) != spec.sha256:
            raise ValueError(
                f"{folder / name} is not the file that model.json and parity.json speak of; export it again"
            )


def matching_detector(checkpoint: Path, manifest: Manifest) -> Detector:
    """The detector of a checkpoint. Raises ValueError if the folder was exported from another one."""
    if (found := sha256(checkpoint / WEIGHTS)) != manifest.source.checkpoint_sha256:
        raise ValueError(
            f"{checkpoint} has weights with sha256 {found}; the graphs come from {manifest.source.checkpoint_sha256}"
        )
    return cut_decoder(load_detector(checkpoint), manifest.decoder_layers)


AnyConfig = TypeVar("AnyConfig", bound=Config)


def read_json(path: Path, schema: type[AnyConfig]) -> AnyConfig:
    """Read a part of a model folder. Raises FileNotFoundError, or ValueError if it is not what it should be."""
    try:
        return schema.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(
            f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; export the model again"
        ) from error
