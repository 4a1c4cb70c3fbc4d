"""ONNX Runtime's TensorRT provider: what it is told of each graph. Engines are built on the spot and kept in a folder.

Option names: ONNX Runtime documentation, "TensorRT Execution Provider". Precision is in the graph, so none is switched
on here (decision 0015).
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from service.manifest import Manifest

Shapes = dict[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]
"""Input to its smallest, typical and largest shape; without them an engine is built anew for every new shape."""


@dataclass(frozen=True)
class TensorRTPlan:
    """Where engines are kept, and the largest batch that they are built for."""

    cache: Path
    batch: int


def tensorrt_options(cache: Path, graph: bytes, shapes: Shapes) -> dict[str, str]:
    """Options of the provider for one graph.

    Args:
        cache: writable by trusted people only, as TensorRT runs what it loads. Each graph has a folder of its own:
            ONNX Runtime names an engine by the names in its graph, not by its weights.
    Raises:
        OSError: the folder cannot be made.
    """
    folder = cache / hashlib.sha256(graph).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    for index, end in enumerate(("min", "opt", "max")):
        options[f"trt_profile_{end}_shapes"] = ",".join(
            f"{name}:{'x'.join(map(str, shape[index]))}" for name, shape in shapes.items()
        )
    return options


def encoder_shapes(manifest: Manifest, batch: int) -> Shapes:
    """Whole canvases, one to `batch` at a time; tuned for one, which most runs hold."""
    side = manifest.input.size
    return {"images": ((1, 3, side, side), (1, 3, side, side), (batch, 3, side, side))}


def decoder_shapes(manifest: Manifest, batch: int, width: int) -> Shapes:
    """From the fewest queries of one picture to the most of `batch`; tuned for the fewest, which most pictures get.

    Args:
        width: D of the memory.
    """
    query = manifest.query
    sizes = ((1, query.k_min), (1, query.k_min), (batch, query.k_max))
    cells = [manifest.input.size // stride for stride in manifest.strides]
    shapes: Shapes = {}
    for level, side in enumerate(cells):
        low, typical, high = ((rows, width, side, side) for rows, _ in sizes)
        shapes[f"memory_{level}"] = (low, typical, high)
    for name, last in (("queries", (width,)), ("reference_boxes", (4,)), ("valid", ())):
        low, typical, high = ((rows, queries, *last) for rows, queries in sizes)
        shapes[name] = (low, typical, high)
    return shapes
