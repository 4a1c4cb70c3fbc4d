"""Do the graphs give what the trained model gives? Torch against ONNX Runtime, through both roads.

Reference is `Detector.forward` in float32, picture by picture. The roads are encoder.onnx + host + decoder.onnx, and
detector.onnx. Dense outputs are compared cell by cell, the decoder row by row on the same inputs. Detections are
matched, because near-equal proposals may change places.
"""

import platform
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from export.graphs import DecoderGraph, boxes_and_scores
from export.matching import Detections, Match, above, match
from export.pictures import Canvas, Kind
from export.runtime import PROVIDER, Array, Graphs
from model.config import Config
from model.detector import Detector
from model.structures import DetectorOutput

BATCH = 4
RELATIVE_COUNT = 1e-3
"""The estimated count may differ by this share of it, or of 1."""


class ParityError(ValueError):
    """The graphs differ from the model by more than the tolerance."""


class Tolerance(Config):
    """How far results may be apart."""

    boxes_px: float = 0.5
    """Largest difference of a coordinate, in pixels of the canvas."""
    scores: float = 1e-3
    """Largest difference of a score, a heat or a density."""
    threshold: float = 0.3
    """Detections above this score must have a partner."""


class Report(Config):
    """`parity.json`."""

    schema_version: Literal[1] = 1
    passed: bool
    failures: list[str]
    """What is over tolerance, in words; empty if passed."""
    files: dict[str, str]
    """Graph to its sha256: the report is about these bytes and no others."""
    tolerance: Tolerance
    runtimes: dict[str, str]
    images: int
    images_kind: Kind
    size: int
    """Side of the canvas."""
    detections: int
    """Of torch, above the threshold, over all pictures."""
    max_box_px: float
    max_score: float
    unmatched: int
    roads: dict[str, Match]
    """Torch against both roads, and each road in a batch of four against itself alone."""
    outputs: dict[str, float]
    """Largest difference per output; queries and reference boxes against the nearest proposal."""


class Comparison:
    """Collects differences picture by picture."""

    def __init__(self, detector: Detector, graphs: Graphs, tolerance: Tolerance) -> None:
        self.detector, self.graphs, self.tolerance = detector, graphs, tolerance
        self.decoder = DecoderGraph(detector)
        self.outputs: dict[str, float] = {}
        self.count_error = 0.0
        self.roads: dict[str, Match] = {}
        self.detections = 0

    @torch.inference_mode()
    def add_picture(self, canvas: Canvas) -> None:
        """Compare one picture through both roads."""
        images = canvas[None]  # (1, 3, S, S)
        truth = self.detector(torch.from_numpy(images))
        encoded = self.graphs.encode(images)
        self._compare_encoder(truth, encoded)
        feed = self.graphs.decoder_feed(encoded)
        boxes, scores = self.graphs.decode(feed)
        self._compare_decoder(feed, boxes, scores)
        expected = above(*self._reference(truth), self._lowest)
        self.detections += expected.count_above(self.tolerance.threshold)
        self._add_road("encoder_decoder", expected, above(boxes[0], scores[0], self._lowest))
        best = above(*self._reference(truth), self._lowest, best_class_only=True)
        self._add_road("detector", best, _of_detector(self.graphs.detect(images), 0, self._lowest))

    def add_batch(self, canvases: list[Canvas]) -> None:
        """Compare pictures in one batch with each alone, through both roads."""
        images = np.stack(canvases)
        batched = self.graphs.decode(self.graphs.decoder_feed(self.graphs.encode(images)))
        whole = self.graphs.detect(images)
        for row in range(len(images)):
            alone = self.graphs.decode(self.graphs.decoder_feed(self.graphs.encode(images[row : row + 1])))
            expected = above(alone[0][0], alone[1][0], self._lowest)
            found = above(batched[0][row], batched[1][row], self._lowest)
            self._add_road("encoder_decoder_in_batch", expected, found)
            single = _of_detector(self.graphs.detect(images[row : row + 1]), 0, self._lowest)
            self._add_road("detector_in_batch", single, _of_detector(whole, row, self._lowest))

    @property
    def _lowest(self) -> float:
        """A partner may be this much below the threshold."""
        return self.tolerance.threshold - self.tolerance.scores

    def _reference(self, truth: DetectorOutput) -> tuple[Array, Array]:
        config = self.detector.config
        boxes, scores = boxes_and_scores(truth.layers[-1], truth.queries.valid, truth.encoded.memory[0], config)
        return boxes[0].numpy(), scores[0].numpy()

    def _compare_encoder(self, truth: DetectorOutput, encoded: Mapping[str, Array]) -> None:
        known = truth.encoded
        assert known.density is not None
        assert known.count is not None  # graphs are only made of detectors that count
        expected: dict[str, Tensor] = {"density": known.density, "count": known.count}
        heat = self.detector.heat_maps(known)
        for level, (memory, (by_class, maps)) in enumerate(zip(known.memory, heat, strict=True)):
            expected |= {f"memory_{level}": memory, f"class_heat_{level}": by_class, f"heat_{level}": maps}
        for name, tensor in expected.items():
            self._note(name, difference(tensor.numpy(), encoded[name]))
        count = float(known.count[0])
        self.count_error = max(self.count_error, abs(float(encoded["count"][0]) - count) / max(1.0, count))
        boxes = torch.from_numpy(encoded["reference_boxes"][0])
        nearest = torch.cdist(truth.queries.reference_boxes[0], boxes, p=float("inf")).min(1)  # (K,) each
        self._note("reference_boxes", float(nearest.values.max()))
        features = encoded["queries"][0][nearest.indices.numpy()]
        self._note("queries", difference(truth.queries.features[0].numpy(), features))

    def _compare_decoder(self, feed: Mapping[str, Array], boxes: Array, scores: Array) -> None:
        inputs = {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in feed.items()}
        memory = [inputs[name] for name in self.graphs.memory_names]
        expected = self.decoder(memory, inputs["queries"], inputs["reference_boxes"], inputs["valid"])
        self._note("boxes", difference(expected[0].numpy(), boxes))
        self._note("scores", difference(expected[1].numpy(), scores))

    def _note(self, name: str, value: float) -> None:
        self.outputs[name] = max(self.outputs.get(name, 0.0), value)

    def _add_road(self, road: str, expected: Detections, found: Detections) -> None:
        result = match(expected, found, self.tolerance.threshold, self.tolerance.boxes_px, self.tolerance.scores)
        self.roads[road] = result if road not in self.roads else self.roads[road].joined(result)

    def failures(self) -> list[str]:
        """What is over tolerance, in words."""
        limits = {
            name: self.tolerance.scores for name in self.outputs if name.startswith(("class_heat", "heat", "density"))
        }
        limits |= {"boxes": self.tolerance.boxes_px, "scores": self.tolerance.scores}
        found = [
            f"{name} differs by {value:.3g} (tolerance {limits[name]:g})"
            for name, value in self.outputs.items()
            if name in limits and not value <= limits[name]
        ]
        if not self.count_error <= RELATIVE_COUNT:
            found.append(f"count differs by {self.count_error:.3g} of itself (tolerance {RELATIVE_COUNT:g})")
        if not self.detections:
            found.append(
                f"no detection above {self.tolerance.threshold:g} on these pictures, so nothing was compared; "
                "choose --images with objects that the model knows"
            )
        unmatched = {road: result.unmatched for road, result in self.roads.items() if result.unmatched}
        return found + [f"{road}: {number} detections without partner" for road, number in unmatched.items()]


def compare(
    detector: Detector,
    graphs: Graphs,
    canvases: list[Canvas],
    kind: Kind,
    files: dict[str, str],
    tolerance: Tolerance,
    after_picture: Callable[[], object],
) -> Report:
    """Compare on pictures, then on a batch of four of them.

    Args:
        canvases: at least one.
        kind: what the pictures are.
        files: sha256 of the graphs.
        after_picture: called once a picture.
    """
    comparison = Comparison(detector, graphs, tolerance)
    for canvas in canvases:
        comparison.add_picture(canvas)
        after_picture()
    comparison.add_batch([canvases[i % len(canvases)] for i in range(BATCH)])
    failures, roads = comparison.failures(), comparison.roads
    return Report(
        passed=not failures,
        failures=failures,
        files=files,
        tolerance=tolerance,
        runtimes={
            "torch": torch.__version__,
            "onnxruntime": ort.__version__,
            "provider": PROVIDER,
            "machine": platform.machine(),
        },
        images=len(canvases),
        images_kind=kind,
        size=canvases[0].shape[-1],
        detections=comparison.detections,
        max_box_px=max(result.max_box_px for result in roads.values()),
        max_score=max(result.max_score for result in roads.values()),
        unmatched=sum(result.unmatched for result in roads.values()),
        roads=roads,
        outputs=comparison.outputs,
    )


def difference(first: Array, second: Array) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if first.shape != second.shape:
        return float("inf")
    value = float(np.abs(first - second).max(initial=0))
    return value if np.isfinite(value) else float("inf")


def _of_detector(outputs: tuple[Array, Array, Array], row: int, threshold: float) -> Detections:
    """Detections of one picture in the outputs of detector.onnx."""
    boxes, scores, labels = (output[row] for output in outputs)
    wanted = scores > threshold
    return Detections(boxes[wanted], scores[wanted], labels[wanted])
