"""`python -m export verify`: proves the graphs that a service runs once more, on the machine that will run them.

The fp32 graphs on the CPU are the measure; with `--checkpoint`, they are held against torch first, and so are the
graphs for other people's tools. Every precision of the folder is compared in ONNX Runtime on the CPU, on CUDA if it is
there, and with `--engines` in TensorRT.
"""

import argparse
from pathlib import Path

import onnxruntime as ort
import torch
from tqdm import tqdm

from export.agreement import Agreement
from export.folder import read_json, replace_json
from export.graphs import cut_decoder
from export.manifest import FileSpec, Manifest, sha256
from export.parity import ParityError, Report
from export.pictures import real_canvases
from export.proof import against_torch, on_onnxruntime, on_tensorrt
from export.release import MOST_PICTURES
from export.runtime import PROVIDERS, Graphs, Provider
from model.checkpoint import WEIGHTS, load_detector
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
    detector = None if arguments.checkpoint is None else matching_detector(arguments.checkpoint, manifest)
    providers: list[Provider] = ["cpu", "cuda"] if cuda_is_there() else ["cpu"]
    if detector is None and providers == ["cpu"] and len(manifest.graphs) == 1 and not arguments.engines:
        raise ValueError(f"{folder} has fp32 graphs alone: give --checkpoint, or there is nothing to compare them with")
    canvases = real_canvases(arguments.data, manifest.input.size, manifest.input.pad_value, MOST_PICTURES)
    reference = Graphs.load(folder, manifest.query, len(manifest.strides))
    complaints: list[str] = []
    with tqdm(unit="picture", disable=None) as bar:
        if detector is not None:
            fresh = against_torch(detector, reference, folder, manifest.files, canvases, "real", bar.update)
            report, complaints = fresh.with_agreements(report.agreements), fresh.failures
        found: list[Agreement] = []
        for provider in providers:
            found += on_onnxruntime(provider, reference, folder, manifest.graphs, canvases, "real", bar.update)
        if arguments.engines:
            found += on_tensorrt(arguments.engines, reference, folder, manifest, canvases, "real", bar.update)
    report = report.with_agreements(found)
    replace_json(folder / "parity.json", report)
    complaints = complaints + [agreement.line() for agreement in found if not agreement.passed]
    if complaints:
        raise ParityError(f"{folder} differs, and its parity.json says so now: {'; '.join(complaints)}")
    return report


def cuda_is_there() -> bool:
    """Whether ONNX Runtime can use a GPU here: it names the provider wherever it was compiled in."""
    return PROVIDERS["cuda"] in ort.get_available_providers() and torch.cuda.is_available()


def check_files(folder: Path, manifest: Manifest, report: Report) -> None:
    """Raise ValueError if a file of the folder is not the one that was exported, or was never compared."""
    used = {file for pair in manifest.graphs.values() for file in (pair.encoder, pair.decoder)}
    if unknown := used - set(manifest.files):
        raise ValueError(f"{folder / 'model.json'}: graphs name {', '.join(sorted(unknown))}, which files do not")
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
