"""Does another precision or runtime find what the fp32 graphs find on the CPU?

Less precise arithmetic moves scores and boxes, and swaps near-equal proposals, so the question is not whether every
number is the same, but how many detections have a partner near by. What is near is a limit per precision.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from export.manifest import Precision
from export.matching import above, match
from export.pictures import Canvas, Kind
from export.runtime import Array, Graphs
from model.config import Config


class Host(Config):
    """What runs graphs."""

    runtime: Literal["onnxruntime", "tensorrt"]
    device: str
    """The processor: `cpu` with its architecture, or the name of a GPU."""
    versions: dict[str, str]

    @property
    def on_cpu(self) -> bool:
        return self.device.startswith("cpu")


class Tolerance(Config):
    """How far results may be apart."""

    boxes_px: float = 0.5
    """Largest difference of a coordinate between partners, in pixels of the canvas."""
    scores: float = 1e-3
    """Largest difference of a score between partners, of a heat or of a density."""
    threshold: float = 0.3
    """Detections above this score must have a partner."""
    unmatched_share: float = 0.0
    """Share of the detections, of both sides together, that may go without a partner."""


LIMITS: dict[Precision, Tolerance] = {
    "fp32": Tolerance(),
    "fp16": Tolerance(boxes_px=0.5, scores=0.01, unmatched_share=0.005),
    "int8": Tolerance(boxes_px=8.0, scores=0.2, unmatched_share=0.05),
}


EQUAL_PICTURES = 4
"""In the batch whose rows must not differ."""
RANKED = ("queries", "reference_boxes")
"""Rows of these follow the ranking of proposals, so that rows of two graphs need not belong together."""


class Agreement(Config):
    """How one precision in one runtime compares with the fp32 graphs in ONNX Runtime on the CPU."""

    precision: Precision
    host: Host
    tolerance: Tolerance
    images: int
    images_kind: Kind
    detections: int
    """Of the fp32 graphs, above the threshold, over all pictures."""
    matched: int
    unmatched: int
    """Detections of either side without a partner."""
    max_box_px: float
    """Largest difference of a coordinate between partners."""
    max_score: float
    outputs: dict[str, float]
    """Largest difference per output: of the encoder where proposals cannot swap, and of the decoder on equal inputs."""
    passed: bool
    failures: list[str]
    """What is over tolerance, in words; empty if passed."""

    def line(self) -> str:
        """The result in one line for people."""
        verdict = "agrees" if self.passed else f"DIFFERS ({'; '.join(self.failures)})"
        return (
            f"{self.precision} in {self.host.runtime} on {self.host.device} {verdict}: {self.matched} matched, "
            f"{self.unmatched} without partner; boxes within {self.max_box_px:.2g} px, "
            f"scores within {self.max_score:.2g}"
        )


class _Tally:
    """Sums up pictures."""

    def __init__(self, tolerance: Tolerance) -> None:
        self.tolerance = tolerance
        self.outputs: dict[str, float] = {}
        self.detections = self.of_both = self.matched = self.unmatched = 0
        self.max_box_px = self.max_score = 0.0
        self.apart = (0.0, 0.0)

    def add(self, reference: Graphs, candidate: Graphs, canvas: Canvas) -> None:
        """Compare one picture."""
        images = canvas[None]  # (1, 3, S, S)
        expected, found = reference.encode(images), candidate.encode(images)
        self._note({name: (expected[name], found[name]) for name in expected if name not in RANKED})
        feed = reference.decoder_feed(expected)
        true, same_inputs = reference.decode(feed), candidate.decode(feed)
        self._note({"boxes": (true[0], same_inputs[0]), "scores": (true[1], same_inputs[1])})
        if not np.isfinite(found["count"]).all():
            return  # no number of queries follows from it; `failures` names the output
        own = candidate.decode(candidate.decoder_feed(found))
        limit, lowest = self.tolerance.threshold, self.tolerance.threshold - self.tolerance.scores
        first, second = (above(boxes[0], scores[0], lowest) for boxes, scores in (true, own))
        result = match(first, second, limit, self.tolerance.boxes_px, self.tolerance.scores)
        self.detections += first.count_above(limit)
        self.of_both += first.count_above(limit) + second.count_above(limit)
        self.matched += result.matched
        self.unmatched += result.unmatched
        self.max_box_px = max(self.max_box_px, result.max_box_px)
        self.max_score = max(self.max_score, result.max_score)

    def add_equal_pictures(self, candidate: Graphs, canvas: Canvas) -> None:
        """Compare the rows of a batch of one picture with each other: see NVIDIA/TensorRT#4813."""
        encoded = candidate.encode(np.stack([canvas] * EQUAL_PICTURES))
        if not np.isfinite(encoded["count"]).all():
            return
        boxes, scores = candidate.decode(candidate.decoder_feed(encoded))
        first = [values[:1].repeat(EQUAL_PICTURES, 0) for values in (boxes, scores)]
        self.apart = difference(boxes, first[0]), difference(scores, first[1])

    def failures(self) -> list[str]:
        """What is over tolerance, in words."""
        broken = [name for name, value in self.outputs.items() if not np.isfinite(value)]
        found = [f"{', '.join(broken)}: not finite, or of another shape"] if broken else []
        if self.apart[0] > self.tolerance.boxes_px or self.apart[1] > self.tolerance.scores:
            found.append(
                f"equal pictures in one batch differ by {self.apart[0]:.3g} px and {self.apart[1]:.3g} in score"
            )
        share = self.unmatched / max(1, self.of_both)
        if share > self.tolerance.unmatched_share:
            found.append(
                f"{self.unmatched} detections without partner are {share:.1%} of all "
                f"(tolerance {self.tolerance.unmatched_share:.1%})"
            )
        return found

    def _note(self, pairs: Mapping[str, tuple[Array, Array]]) -> None:
        for name, (first, second) in pairs.items():
            self.outputs[name] = max(self.outputs.get(name, 0.0), difference(first, second))


def agree(
    reference: Graphs,
    candidate: Graphs,
    precision: Precision,
    host: Host,
    canvases: Sequence[Canvas],
    kind: Kind,
    after_picture: Callable[[], object] = lambda: None,
) -> Agreement:
    """Compare two ways to run one model.

    Args:
        reference: the fp32 graphs in ONNX Runtime on the CPU.
        candidate: graphs of the precision, loaded on the host.
        canvases: pictures, at least one.
        after_picture: called once a picture.
    Raises:
        ValueError: the reference finds nothing on these pictures, so nothing can be said.
    """
    tally = _Tally(LIMITS[precision])
    for canvas in canvases:
        tally.add(reference, candidate, canvas)
        after_picture()
    if not (tally.detections or tally.failures()):
        raise ValueError(
            f"no detection above {tally.tolerance.threshold:g} on these pictures, so nothing was compared; "
            "choose pictures with objects that the model knows"
        )
    tally.add_equal_pictures(candidate, canvases[0])
    failures = tally.failures()
    return Agreement(
        precision=precision,
        host=host,
        tolerance=tally.tolerance,
        images=len(canvases),
        images_kind=kind,
        detections=tally.detections,
        matched=tally.matched,
        unmatched=tally.unmatched,
        max_box_px=tally.max_box_px,
        max_score=tally.max_score,
        outputs=tally.outputs,
        passed=not failures,
        failures=failures,
    )


def difference(first: Array, second: Array) -> float:
    """Largest absolute difference; infinite where shapes differ or a value is not finite."""
    if first.shape != second.shape:
        return float("inf")
    value = float(np.abs(first - second).max(initial=0))
    return value if np.isfinite(value) else float("inf")
