"""`python -m export engines`: TensorRT engines of a model folder, for this machine's GPU.

An engine is nothing to ship, and nothing to trust unseen: TensorRT has silently broken detectors like this one
(NVIDIA/TensorRT#4813), so an engine is used after `python -m export verify` on the machine that built it.
"""

import argparse
import hashlib
from pathlib import Path

import torch

from export.engines.build import build_engine
from export.engines.cache import EngineCache, EngineKey, read_record
from export.engines.graph import graphs_of, precision_of, read_graph
from export.engines.library import (
    ENGINE_PRECISIONS,
    LIBRARIES,
    EnginePrecision,
    LibraryName,
    TensorRT,
    load_tensorrt,
)
from export.engines.profile import Profile, Range
from export.engines.run import Engine
from export.folder import read_json
from export.manifest import Manifest

BATCH = Range(1, 1, 4)
"""A service decodes one picture at a time, the parity gate four; wider ranges have cost accuracy, see #4813."""


def add_engines(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the command line."""
    parser = commands.add_parser("engines", help="build TensorRT engines of a model folder for this machine's GPU")
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--cache", type=Path, required=True, metavar="FOLDER", help="where engines are kept")
    parser.add_argument("--precision", choices=ENGINE_PRECISIONS, default="fp32", help="(default: %(default)s)")
    sizes = {"type": int, "nargs": 3, "metavar": ("MIN", "TYPICAL", "MAX")}
    ends = (BATCH.low, BATCH.typical, BATCH.high)
    parser.add_argument("--batch", **sizes, default=ends, help="pictures at a time (default: {} {} {})".format(*ends))
    parser.add_argument("--queries", type=int, metavar="K", help="queries to tune for (default: the model's fewest)")
    parser.add_argument("--side", **sizes, help="of the canvas in pixels (default: the model's, and no other)")
    parser.add_argument("--workspace", type=int, metavar="MIB", help="scratch memory (default: all that the GPU has)")
    parser.add_argument(
        "--library", choices=LIBRARIES, default="tensorrt", help="tensorrt-rtx builds for RTX cards, without a GPU"
    )


def run_engines(arguments: argparse.Namespace) -> dict[str, Path]:
    """Carry out the parsed sub-command; returns the engines of `encoder` and `decoder`.

    Raises:
        OSError, ValueError: the folder is not usable, or a size is out of range.
        EngineError: see `build_engine` and `load_tensorrt`.
    """
    manifest = read_json(arguments.model_dir / "model.json", Manifest)
    side = Range(*arguments.side) if arguments.side else None
    profile = Profile.of(manifest, Range(*arguments.batch), arguments.queries, side)
    return build_engines(
        arguments.model_dir,
        manifest,
        arguments.precision,
        arguments.cache,
        profile,
        library=arguments.library,
        workspace_mib=arguments.workspace,
    )


def build_engines(
    folder: Path,
    manifest: Manifest,
    precision: EnginePrecision,
    cache: Path,
    profile: Profile,
    *,
    library: LibraryName = "tensorrt",
    workspace_mib: int | None = None,
) -> dict[str, Path]:
    """Build what is not in the cache yet, and say so.

    Args:
        folder: the model folder.
        cache: see `EngineCache`.
        profile: see `Profile.of`.
    Returns:
        The engines of `encoder` and `decoder`.
    Raises:
        As `run_engines`.
    """
    tensorrt = load_tensorrt(library)
    gpu, capability = tensorrt.gpu()
    files = graphs_of(manifest, precision)
    kept = EngineCache(cache)
    engines: dict[str, Path] = {}
    for role, file in (("encoder", files.encoder), ("decoder", files.decoder)):
        model = read_graph(folder, manifest, file)
        graph = model.SerializeToString(deterministic=True)
        key = EngineKey(
            library=library,
            version=tensorrt.version,
            gpu=gpu,
            compute_capability=capability,
            graph=file,
            graph_sha256=hashlib.sha256(graph).hexdigest(),
            precision=precision_of(file, precision),
            shapes=profile.shapes(model),
            workspace_mib=workspace_mib,
        )
        engines[role] = _get(kept, key, tensorrt, graph)
    return engines


def _get(kept: EngineCache, key: EngineKey, tensorrt: TensorRT, graph: bytes) -> Path:
    path, known = kept.get(
        key,
        lambda: build_engine(
            tensorrt,
            graph,
            key.shapes,
            key.precision,
            title=key.graph,
            workspace_mib=key.workspace_mib,
            timing_cache=kept.timings(key),
        ),
    )
    record = read_record(path)
    told = "was there" if known else f"{record.build_seconds:g} s, {record.host_peak_mib} MiB of memory at most"
    needs = f", {Engine(path).device_mib} MiB of the GPU to run" if torch.cuda.is_available() else ""
    print(f"{path}: {told}; {record.engine_bytes / 2**20:.1f} MiB{needs}")
    return path
