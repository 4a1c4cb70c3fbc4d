"""The graphs that benchmarks/peers.py times: ours, from a model folder or a preset, and the peers' from their cache."""

import functools
import hashlib
import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.complexity import CLASSES
from export.onnx_graph import export_graph, graph_specs, write_graph
from export.pictures import Canvas, picture_paths, read_canvas
from model.detector import Detector
from model.presets import preset
from service.manifest import InputSpec, QuerySpec
from service.queries import query_counts

ROOT = Path(__file__).resolve().parents[1]

Array: TypeAlias = NDArray[Any]


def open_session(graph: Path, threads: int) -> ort.InferenceSession:
    """A session on the CPU with the options of the service (`service/engines/onnx.py`), alike for all."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=[("CPUExecutionProvider", {})])


class Ours:
    """A detector of ours: encoder, the host's step and decoder, for one picture."""

    def __init__(self, encoder: Path, decoder: Path, threads: int) -> None:
        self._encoder = open_session(encoder, threads)
        self._decoder = open_session(decoder, threads)
        self._outputs = [output.name for output in self._encoder.get_outputs()]
        self._memory = [i.name for i in self._decoder.get_inputs() if i.name.startswith("memory_")]

    def encode(self, picture: Canvas) -> dict[str, Array]:
        """(3, S, S) to all outputs of the encoder, by name."""
        values = self._encoder.run(self._outputs, {"images": picture[None]})
        return dict(zip(self._outputs, map(np.asarray, values), strict=True))

    def feed(self, encoded: dict[str, Array], queries: int) -> dict[str, Array]:
        """What the decoder takes for the best K queries."""
        memory = {name: encoded[name] for name in self._memory}
        best = {name: np.ascontiguousarray(encoded[name][:, :queries]) for name in ("queries", "reference_boxes")}
        return memory | best | {"valid": np.ones(best["queries"].shape[:2], dtype=np.bool_)}

    def decode(self, feed: dict[str, Array]) -> list[Array]:
        """Boxes (1, K, 4) and scores (1, K, C)."""
        return [np.asarray(value) for value in self._decoder.run(["boxes", "scores"], feed)]

    def detect(self, picture: Canvas, queries: int) -> list[Array]:
        """The whole way, with a given K."""
        return self.decode(self.feed(self.encode(picture), queries))


class ModelFolder:
    """What the benchmark reads of a model folder."""

    def __init__(self, folder: Path) -> None:
        manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        self.folder = folder
        self.label = f"{manifest['name']}/{manifest['version']}"
        self.input = InputSpec.model_validate(manifest["input"])
        self.query = QuerySpec.model_validate(manifest["query"])

    def offers(self, precision: str) -> bool:
        """Whether there is a graph of this precision."""
        return any((self.folder / f"{part}.{precision}.onnx").exists() for part in ("encoder", "decoder"))

    def open(self, threads: int, precision: str = "fp32") -> Ours:
        """Both graphs, in fp32 where there is none of this precision."""
        return Ours(self._graph("encoder", precision), self._graph("decoder", precision), threads)

    def _graph(self, part: str, precision: str) -> Path:
        special = self.folder / f"{part}.{precision}.onnx"
        return special if special.exists() else self.folder / f"{part}.onnx"

    def median_queries(self, pictures: Path, threads: int) -> int:
        """The median of the K that the model asks for, over the pictures of a COCO file, on its own canvas."""
        ours, asked = self.open(threads), []
        for path in tqdm(picture_paths(pictures), unit="picture", desc="K"):
            encoded = ours.encode(read_canvas(path, self.input.size, self.input.pad_value))
            asked += query_counts(encoded["count"], self.query, encoded["queries"].shape[1])
        return int(np.median(asked))


def open_preset(name: str, layers: int, cache: Path, threads: int) -> Ours:
    """A preset with random weights, which take as long as trained ones; exported once for the code as it is."""
    folder = cache / f"{name}-{code_digest()[:12]}"
    encoder, decoder = folder / "encoder.onnx", folder / f"decoder-{layers}.onnx"
    folder.mkdir(parents=True, exist_ok=True)
    for graph in (encoder, decoder):
        if not graph.exists():
            _export(name, layers, graph)
    return Ours(encoder, decoder, threads)


def _export(name: str, layers: int, graph: Path) -> None:
    """Write encoder.onnx, or decoder-L.onnx for a decoder of L layers."""
    config = preset(name, CLASSES)
    config = config.model_copy(update={"decoder": config.decoder.model_copy(update={"layers": layers})})
    torch.manual_seed(0)
    detector = Detector(config).eval().requires_grad_(False)
    for parameter in detector.parameters():
        parameter.add_(0.01 * torch.randn_like(parameter))  # gates start at zero, and would be optimised away
    specs = {spec.name: spec for spec in graph_specs(detector)}
    part = f"{graph.stem.partition('-')[0]}.onnx"
    write_graph(export_graph(specs[part]), graph, {"name": name})


@functools.cache
def code_digest() -> str:
    """Hex digest of the code that decides what our graphs are: a change of it makes them anew."""
    digest = hashlib.sha256()
    for stage in ("model", "export"):
        for path in sorted((ROOT / stage).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
