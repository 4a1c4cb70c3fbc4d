"""Exported graphs in ONNX Runtime, run the way a host runs them. Letters as in `model.structures`."""

from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from export.graphs import encoder_outputs
from model.config import QueryConfig

PROVIDER = "CPUExecutionProvider"

Array: TypeAlias = NDArray[Any]
"""What goes into and comes out of a graph; the contract says of which type."""


class Graphs:
    """The three graphs of a folder."""

    def __init__(self, folder: Path, query: QueryConfig, levels: int) -> None:
        self.query = query
        self.memory_names = [f"memory_{level}" for level in range(levels)]
        self._encoder_outputs = encoder_outputs(levels)
        self._encoder, self._decoder, self._detector = (
            _session(folder / file) for file in ("encoder.onnx", "decoder.onnx", "detector.onnx")
        )

    def encode(self, images: NDArray[np.uint8]) -> dict[str, Array]:
        """(B, 3, H, W) to all outputs of the encoder, by name."""
        values = _run(self._encoder, self._encoder_outputs, {"images": images})
        return dict(zip(self._encoder_outputs, values, strict=True))

    def decoder_feed(self, encoded: dict[str, Array]) -> dict[str, Array]:
        """The host's step: K per picture from the counts, the proposals cut at the largest, a mark on what is valid."""
        counts = query_counts(encoded["count"], self.query, available=encoded["queries"].shape[1])
        most = int(counts.max())
        return {
            **{name: encoded[name] for name in self.memory_names},
            "queries": encoded["queries"][:, :most],
            "reference_boxes": encoded["reference_boxes"][:, :most],
            "valid": np.arange(most)[None] < counts[:, None],  # (B, K)
        }

    def decode(self, feed: dict[str, Array]) -> tuple[Array, Array]:
        """Boxes (B, K, 4) and scores (B, K, C)."""
        boxes, scores = _run(self._decoder, ["boxes", "scores"], feed)
        return boxes, scores

    def detect(self, images: NDArray[np.uint8]) -> tuple[Array, Array, Array]:
        """(B, 3, H, W) to boxes (B, K, 4), scores (B, K) and labels (B, K), through detector.onnx."""
        boxes, scores, labels = _run(self._detector, ["boxes", "scores", "labels"], {"images": images})
        return boxes, scores, labels


def query_counts(count: Array, query: QueryConfig, available: int) -> NDArray[np.int64]:
    """K per picture (B,) from the estimated counts (B,): halves to even, at most what there is."""
    wanted = np.rint(np.float32(query.t) * count).clip(query.k_min, query.k_max)
    return np.minimum(wanted, available).astype(np.int64)


def _run(session: ort.InferenceSession, outputs: list[str], feed: dict[str, Array]) -> list[Array]:
    return [np.asarray(value) for value in session.run(outputs, feed)]


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    return ort.InferenceSession(path, options, providers=[PROVIDER])
