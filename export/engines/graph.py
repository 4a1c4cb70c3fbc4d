"""The graphs of a model folder as TensorRT takes them."""

from pathlib import Path

import onnx
from onnx import ModelProto

from export.engines.int8 import around_zero
from export.engines.library import EnginePrecision
from export.engines.sampling import write_out_sampling
from export.manifest import FP32, GraphFiles, Manifest, sha256


def graphs_of(manifest: Manifest, precision: EnginePrecision) -> GraphFiles:
    """The graphs to build from; bf16 has none of its own. Raises ValueError if the folder has none."""
    stored = "fp32" if precision == "bf16" else precision
    if stored not in manifest.graphs:
        raise ValueError(
            f"{manifest.name} {manifest.version} has graphs in {', '.join(manifest.graphs)}, not in {precision}; "
            "export it with that precision"
        )
    return manifest.graphs[stored]


def precision_of(file: str, asked: EnginePrecision) -> EnginePrecision:
    """What to build of a graph: one that int8 shares with fp32 is an fp32 graph, and its engine is shared as well."""
    return "fp32" if asked != "bf16" and file in (FP32.encoder, FP32.decoder) else asked


def read_graph(folder: Path, manifest: Manifest, file: str) -> ModelProto:
    """A graph of the folder, rewritten. Raises ValueError if it is not the one that `model.json` names."""
    path = folder / file
    if sha256(path) != manifest.files[file].sha256:
        raise ValueError(f"{path} does not have the sha256 that model.json names; the folder is damaged")
    return for_tensorrt(onnx.load(path))


def for_tensorrt(graph: ModelProto) -> ModelProto:
    """A copy of a graph without what TensorRT does not know or gets wrong; names, types and shapes stay."""
    return write_out_sampling(around_zero(graph))
