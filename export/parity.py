"""Do the graphs give what the trained model gives? Torch against ONNX Runtime, through all roads.

Reference is `Detector.forward` in float32, picture by picture. The roads are encoder.onnx + host + decoder.onnx,
detector.onnx, and deepness.onnx if it was asked for. Dense outputs are compared cell by cell, the decoder row by row
on the same inputs. Detections are matched, because near-equal proposals may change places. Other precisions and
runtimes are then held against these graphs, see `export.agreement`.
"""

import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor

from export.agreement import Agreement, Tolerance, difference
from export.deepness import from_deepness, to_deepness
from export.graphs import DecoderGraph, boxes_and_scores
from export.matching import Detections, Match, above, match
from export.pictures import Canvas, Kind
from export.runtime import PROVIDERS, Array, Graphs, Runner, detect
from model.config import Config
from model.detector import Detector
from model.structures import DetectorOutput

BATCH = 4
RELATIVE_COUNT = 1e-3
"""The estimated count may differ by this share of it, or of 1."""


class ParityError(ValueError):
    """The graphs differ from the model by more than the tolerance."""


@dataclass(frozen=True)
class Roads:
    """The fp32 graphs of a folder, by the ways through them."""

    graphs: Graphs
    detector: Runner
    deepness: Runner | None = None


class Report(Config):
    """`parity.json`."""

    schema_version: Literal[1] = 1
    passed: bool
    failures: list[str]
    """In what the fp32 graphs and torch differ by more than the tolerance, in words."""
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
    """Torch against every road, and two of them in a batch of four against themselves alone."""
    outputs: dict[str, float]
    """Largest difference per output; queries and reference boxes against the nearest proposal."""
    agreements: tuple[Agreement, ...] = ()
    """Other precisions and runtimes against these graphs. `passed` depends on those on the CPU; a host that has one of
    its own here heeds that one."""

    def with_agreements(self, found: Iterable[Agreement]) -> "Report":
        """The same with these agreements, which take the places of older ones of equal precision and host."""
        of_place = {(a.precision, a.host.runtime, a.host.device): a for a in [*self.agreements, *found]}
        agreements = tuple(of_place.values())
        passed = not self.failures and all(a.passed for a in agreements if a.host.on_cpu)
        return self.model_copy(update={"agreements": agreements, "passed": passed})

    def complaints(self) -> list[str]:
        """All that is over tolerance, in words."""
        return self.failures + [agreement.line() for agreement in self.agreements if not agreement.passed]


class Comparison:
    """Collects differences picture by picture."""

    def __init__(self, detector: Detector, paths: Roads, tolerance: Tolerance) -> None:
        self.detector, self.paths, self.graphs, self.tolerance = detector, paths, paths.graphs, tolerance
        self.decoder = DecoderGraph(detector)
        self.outputs: dict[str, float] = {}
        self.count_error = 0.0
        self.roads: dict[str, Match] = {}
        self.detections = 0

    @torch.inference_mode()
    def add_picture(self, canvas: Canvas) -> None:
        """Compare one picture through all roads."""
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
        self._add_road("detector", best, _of_detector(detect(self.paths.detector, images), 0, self._lowest))
        if self.paths.deepness is not None:
            output = self.paths.deepness.run(to_deepness(images))["output"]
            self._add_road("deepness", expected, above(*from_deepness(output), self._lowest))

    def add_batch(self, canvases: list[Canvas]) -> None:
        """Compare pictures in one batch with each alone."""
        images = np.stack(canvases)
        batched = self.graphs.decode(self.graphs.decoder_feed(self.graphs.encode(images)))
        whole = detect(self.paths.detector, images)
        for row in range(len(images)):
            alone = self.graphs.decode(self.graphs.decoder_feed(self.graphs.encode(images[row : row + 1])))
            expected = above(alone[0][0], alone[1][0], self._lowest)
            found = above(batched[0][row], batched[1][row], self._lowest)
            self._add_road("encoder_decoder_in_batch", expected, found)
            single = _of_detector(detect(self.paths.detector, images[row : row + 1]), 0, self._lowest)
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
    paths: Roads,
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
    comparison = Comparison(detector, paths, tolerance)
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
            "provider": PROVIDERS["cpu"],
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


def _of_detector(outputs: tuple[Array, Array, Array], row: int, threshold: float) -> Detections:
    """Detections of one picture in the outputs of detector.onnx."""
    boxes, scores, labels = (output[row] for output in outputs)
    wanted = scores > threshold
    return Detections(boxes[wanted], scores[wanted], labels[wanted])
