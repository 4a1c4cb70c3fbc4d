"""Exported graphs, run the way a host runs them. Letters as in `model.structures`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.graphs import encoder_outputs
from export.manifest import FP32, GraphFiles, QuerySpec
from model.config import QueryConfig

Provider = Literal["cpu", "cuda"]
PROVIDERS: dict[Provider, str] = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

Array: TypeAlias = NDArray[Any]
"""What goes into and comes out of a graph; the contract says of which type."""


class Runner(Protocol):
    """One graph, loaded by some runtime."""

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs by name to outputs by name."""
        ...


class OnnxRunner:
    """A graph in ONNX Runtime."""

    def __init__(self, path: Path, provider: Provider = "cpu") -> None:
        """Load it. Raises ValueError if the provider is not there: the runtime must not fall back in silence."""
        wanted = PROVIDERS[provider]
        if wanted not in ort.get_available_providers():
            raise ValueError(f"ONNX Runtime offers {ort.get_available_providers()} here, not {wanted}")
        options = ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # several graphs take turns
        exact = {"use_tf32": "0"} if provider == "cuda" else {}
        try:
            self._session = ort.InferenceSession(path, options, providers=[(wanted, exact)])
        except Exception as error:  # the runtime raises its own untyped errors for every kind of broken graph
            raise ValueError(f"{path.name} cannot be loaded: {str(error)[:300]}") from error
        if self._session.get_providers()[0] != wanted:
            raise ValueError(f"{wanted} cannot run {path.name} here; see ONNX Runtime's message above")
        self._file = path.name
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, feed: Mapping[str, Array]) -> dict[str, Array]:
        """Inputs by name to outputs by name. Raises ValueError if the runtime fails."""
        try:
            values = self._session.run(self._outputs, dict(feed))
        except Exception as error:  # untyped again
            raise ValueError(f"{self._file} fails: {str(error)[:300]}") from error
        return {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}


@dataclass(frozen=True)
class Graphs:
    """The encoder and the decoder of a detector, of any precision and in any runtime."""

    encoder: Runner
    decoder: Runner
    query: QueryConfig | QuerySpec
    levels: int

    @classmethod
    def load(
        cls,
        folder: Path,
        query: QueryConfig | QuerySpec,
        levels: int,
        files: GraphFiles = FP32,
        provider: Provider = "cpu",
    ) -> "Graphs":
        """Load two files of a model folder into ONNX Runtime. Raises ValueError if the provider is not there."""
        encoder, decoder = (OnnxRunner(folder / file, provider) for file in (files.encoder, files.decoder))
        return cls(encoder, decoder, query, levels)

    @property
    def memory_names(self) -> list[str]:
        return [f"memory_{level}" for level in range(self.levels)]

    def encode(self, images: NDArray[np.uint8]) -> dict[str, Array]:
        """(B, 3, H, W) to all outputs of the encoder, by name."""
        outputs = self.encoder.run({"images": images})
        return {name: outputs[name] for name in encoder_outputs(self.levels)}

    def decoder_feed(self, encoded: Mapping[str, Array]) -> dict[str, Array]:
        """The host's step: K per picture from the counts, the proposals cut at the largest, a mark on what is valid."""
        counts = query_counts(encoded["count"], self.query, available=encoded["queries"].shape[1])
        most = int(counts.max())
        return {
            **{name: encoded[name] for name in self.memory_names},
            "queries": encoded["queries"][:, :most],
            "reference_boxes": encoded["reference_boxes"][:, :most],
            "valid": np.arange(most)[None] < counts[:, None],  # (B, K)
        }

    def decode(self, feed: Mapping[str, Array]) -> tuple[Array, Array]:
        """Boxes (B, K, 4) and scores (B, K, C)."""
        outputs = self.decoder.run(feed)
        return outputs["boxes"], outputs["scores"]


def detect(detector: Runner, images: NDArray[np.uint8]) -> tuple[Array, Array, Array]:
    """(B, 3, H, W) to boxes (B, K, 4), scores (B, K) and labels (B, K), through detector.onnx."""
    outputs = detector.run({"images": images})
    return outputs["boxes"], outputs["scores"], outputs["labels"]


def query_counts(count: Array, query: QueryConfig | QuerySpec, available: int) -> NDArray[np.int64]:
    """K per picture (B,) from the estimated counts (B,): halves to even, at most what there is."""
    wanted = np.rint(np.float32(query.t) * count).clip(query.k_min, query.k_max)
    return np.minimum(wanted, available).astype(np.int64)
