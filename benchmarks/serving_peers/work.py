"""The job that every peer does for a picture: JPEG bytes to boxes, with the service's own functions around the graphs.

So a peer differs from our service in how it serves, and in nothing else. It runs in the environment of
benchmarks/requirements-serving.txt, which has neither torch nor the service's other libraries.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.detections import DetectionOptions, select_detections
from service.imaging import decode_picture
from service.letterbox import Letterbox
from service.manifest import Manifest

MAX_PIXELS = 100_000_000
Array: TypeAlias = NDArray[Any]


@dataclass(frozen=True)
class Canvas:
    """A picture as the encoder takes it: where it lies, and (3, H, W) pixels."""

    frame: Letterbox
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Found:
    """What the graphs say of one picture: (K, 4) boxes on the canvas, (K, C) scores."""

    frame: Letterbox
    count: float
    boxes: Array
    scores: Array


class Pipeline:
    """Both graphs of a model folder, and the steps around them. Safe to call from several threads."""

    def __init__(self, folder: Path, threads: int, spinning: bool = False, cut: bool = False) -> None:
        """Open the fp32 graphs.

        Args:
            cut: leave the padding of the canvas away, as our service does.
            threads: inside one run of a graph.
            spinning: whether idle threads of the runtime spin, as they do by default.
        """
        self.manifest = Manifest.model_validate(json.loads((folder / "model.json").read_text(encoding="utf-8")))
        self.options = DetectionOptions.from_manifest(self.manifest)
        self._multiple_of = self.manifest.input.multiple_of if cut else None
        self._encoder = _open_session(folder / "encoder.onnx", threads, spinning)
        self._decoder = _open_session(folder / "decoder.onnx", threads, spinning)
        self._memory = [f"memory_{level}" for level in range(len(self.manifest.strides))]
        self.detect_canvases([Canvas(Letterbox.fit(1, 1, self._side), self._blank())])  # the first run is slow

    @property
    def _side(self) -> int:
        return self.manifest.input.size

    def _blank(self) -> NDArray[np.uint8]:
        return np.full((3, self._side, self._side), self.manifest.input.pad_value, dtype=np.uint8)

    def detect(self, upload: bytes) -> dict[str, Any]:
        """The whole job for one picture; the answer is ready for JSON."""
        (found,) = self.detect_canvases([self.read(upload)])
        return self.answer(found)

    def read(self, upload: bytes) -> Canvas:
        """Decode and letterbox."""
        pad_value = self.manifest.input.pad_value
        image = decode_picture(upload, MAX_PIXELS, background=pad_value).image
        frame = Letterbox.fit(*image.size, self._side)
        return Canvas(frame, frame.draw(image, pad_value, self._multiple_of))

    def detect_canvases(self, canvases: Sequence[Canvas]) -> list[Found]:
        """Encoder, K by the counts, decoder. Only what the boxes need leaves the encoder; it draws no heat."""
        if len({canvas.pixels.shape for canvas in canvases}) > 1:
            return [found for canvas in canvases for found in self.detect_canvases([canvas])]
        wanted = [*self._memory, "queries", "reference_boxes", "count"]
        images = np.stack([canvas.pixels for canvas in canvases])  # (B, 3, H, W)
        outputs = [np.asarray(value) for value in self._encoder.run(wanted, {"images": images})]
        encoded = dict(zip(wanted, outputs, strict=True))
        query, available = self.manifest.query, encoded["queries"].shape[1]
        counts = (
            np.rint(np.float32(query.t) * encoded["count"]).clip(query.k_min, min(query.k_max, available)).astype(int)
        )
        longest = int(counts.max())
        inputs = {name: encoded[name] for name in self._memory}
        inputs |= {name: np.ascontiguousarray(encoded[name][:, :longest]) for name in ("queries", "reference_boxes")}
        inputs["valid"] = np.arange(longest)[None, :] < counts[:, None]  # (B, K)
        boxes, scores = (np.asarray(value) for value in self._decoder.run(["boxes", "scores"], inputs))
        return [
            Found(canvas.frame, float(encoded["count"][row]), boxes[row, : counts[row]], scores[row, : counts[row]])
            for row, canvas in enumerate(canvases)
        ]

    def answer(self, found: Found) -> dict[str, Any]:
        """Thresholds, suppression and the list of boxes, in pixels of the picture."""
        best = select_detections(found.boxes, found.scores, self.options)
        boxes = found.frame.boxes_to_picture(best.boxes).astype(np.float64).round(2).tolist()
        names = self.manifest.classes
        return {
            "width": found.frame.width,
            "height": found.frame.height,
            "estimated_count": round(found.count, 2),
            "query_count": len(found.boxes),
            "detections": [
                {"box": box, "score": round(score, 4), "label": names[label], "class_id": label}
                for box, score, label in zip(boxes, best.scores.tolist(), best.labels.tolist(), strict=True)
            ],
        }


def peer_parser(description: str | None) -> argparse.ArgumentParser:
    """What every peer can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--port", type=int, required=True, help="of 127.0.0.1")
    parser.add_argument("--threads", type=int, default=1, help="inside one run of a graph")
    parser.add_argument("--spinning", action="store_true", help="let idle threads of the runtime spin")
    parser.add_argument("--cut", action="store_true", help="leave the padding of the canvas away")
    return parser


def _open_session(graph: Path, threads: int, spinning: bool) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.log_severity_level = 3
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
