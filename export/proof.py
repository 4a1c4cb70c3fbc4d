"""What a model folder has to prove: the fp32 graphs against torch, all else against the fp32 graphs."""

import platform
from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime as ort
import torch

from export.agreement import Agreement, Host, Tolerance, agree
from export.deepness import FILE as DEEPNESS
from export.engines.command import BATCH, build_engines
from export.engines.library import load_tensorrt
from export.engines.profile import Profile
from export.engines.run import Engine
from export.joined import FILE as DETECTOR
from export.manifest import FileSpec, GraphFiles, Manifest, Precision
from export.parity import Report, Roads, compare
from export.pictures import Canvas, Kind
from export.runtime import PROVIDERS, Graphs, OnnxRunner, Provider
from model.detector import Detector


def against_torch(
    detector: Detector,
    reference: Graphs,
    folder: Path,
    files: dict[str, FileSpec],
    canvases: list[Canvas],
    kind: Kind,
    after_picture: Callable[[], object],
) -> Report:
    """Compare the fp32 graphs of a folder, all in ONNX Runtime on the CPU, with the detector that they were made of.

    Args:
        reference: encoder.onnx and decoder.onnx.
        files: all that the folder holds.
        canvases: pictures to compare on.
        after_picture: called once a picture.
    """
    deepness = OnnxRunner(folder / DEEPNESS) if DEEPNESS in files else None
    roads = Roads(reference, OnnxRunner(folder / DETECTOR), deepness)
    hashes = {name: spec.sha256 for name, spec in files.items()}
    return compare(detector, roads, canvases, kind, hashes, Tolerance(), after_picture)


def on_onnxruntime(
    provider: Provider,
    reference: Graphs,
    folder: Path,
    graphs: dict[Precision, GraphFiles],
    canvases: Sequence[Canvas],
    kind: Kind,
    after_picture: Callable[[], object],
) -> list[Agreement]:
    """Every precision of a folder in ONNX Runtime; on the CPU fp32 is the measure itself."""
    return [
        agree(
            reference,
            Graphs.load(folder, reference.query, reference.levels, files, provider),
            precision,
            onnxruntime_host(provider),
            canvases,
            kind,
            after_picture,
        )
        for precision, files in graphs.items()
        if (provider, precision) != ("cpu", "fp32")
    ]


def on_tensorrt(
    cache: Path,
    reference: Graphs,
    folder: Path,
    manifest: Manifest,
    canvases: Sequence[Canvas],
    kind: Kind,
    after_picture: Callable[[], object],
) -> list[Agreement]:
    """Every precision of a folder in TensorRT, with engines from a cache that are built where they are missing.

    Raises:
        EngineError: TensorRT or a GPU is not there, or cannot take a graph.
    """
    library, agreements = load_tensorrt(), []
    host = Host(runtime="tensorrt", device=torch.cuda.get_device_name(), versions={"tensorrt": library.version})
    for precision in manifest.graphs:
        engines = build_engines(folder, manifest, precision, cache, Profile.of(manifest, BATCH))
        encoder, decoder = Engine(engines["encoder"]), Engine(engines["decoder"])
        candidate = Graphs(encoder, decoder, reference.query, reference.levels)
        agreements.append(agree(reference, candidate, precision, host, canvases, kind, after_picture))
    return agreements


def onnxruntime_host(provider: Provider) -> Host:
    """ONNX Runtime here."""
    device = f"cpu ({platform.machine()})" if provider == "cpu" else torch.cuda.get_device_name()
    versions = {"onnxruntime": ort.__version__, "provider": PROVIDERS[provider]}
    return Host(runtime="onnxruntime", device=device, versions=versions)
