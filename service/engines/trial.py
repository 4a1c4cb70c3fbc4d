"""An engine that is not trusted yet, tried on the pictures that come before it may answer anybody.

TensorRT is known to get graphs like ours wrong without a word (NVIDIA/TensorRT#4813), on some cards and versions only.
So the engine at work goes on answering, the new one repeats its next pictures, alone and in company, and takes over
when it has found the same objects in all of them.
"""

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.detections import DetectionOptions, Detections, pairwise_iou, select_detections
from service.engines.base import Decoded, DecoderInputs, Encoded, Engine
from service.errors import ServiceError
from service.letterbox import FloatArray
from service.manifest import Manifest
from service.queries import query_counts

PICTURES, OBJECTS = 8, 50
"""A trial ends when so many pictures with so many objects in all agree; empty pictures prove little."""
LEAST_IOU, MOST_SCORE, MOST_COUNT = 0.9, 0.05, 0.05
"""How far two looks at one object, and two estimates of one count (relative, or in objects), may lie apart."""
_WAITING = 2  # pictures that wait for the trial; more are let go, so that it never holds the service up
_LOOK_UP_SECONDS = 0.2  # how soon a trial hears that the service stops
logger = logging.getLogger("heatquery")


@dataclass(frozen=True)
class Look:
    """What an engine says of one canvas."""

    count: float
    detections: Detections


class TrialEngine:
    """The engine that the service runs: the trusted one, and later the one that has passed a trial."""

    def __init__(self, trusted: Engine, manifest: Manifest) -> None:
        self._current, self._manifest = trusted, manifest
        self._options = DetectionOptions.from_manifest(manifest)
        self._pictures: queue.Queue[NDArray[np.uint8]] = queue.Queue(_WAITING)
        self._trial: threading.Thread | None = None
        self._stopping = threading.Event()

    @property
    def provider(self) -> str:
        """Of the engine that answers now."""
        return self._current.provider

    @property
    def cuts_canvas(self) -> bool:
        """As the engine that answers wants it."""
        return self._current.cuts_canvas

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        """Run the encoder that answers now; a trial, if one goes on, gets a picture of the batch."""
        encoded = self._current.encode(images)
        if self._trial is not None and self._trial.is_alive():
            with suppress(queue.Full):
                self._pictures.put_nowait(images[0].copy())
        return encoded

    def decode(self, inputs: DecoderInputs, query_counts: Sequence[int]) -> Decoded:
        """Run the decoder that answers now; the memory may be the other engine's, on the same device."""
        return self._current.decode(inputs, query_counts)

    def try_out(self, candidate: Engine, on_success: Callable[[], None]) -> None:
        """Begin a trial beside the work.

        Args:
            on_success: called in the thread of the trial, once the candidate has taken over.
        """
        self._trial = threading.Thread(target=self._try, args=(candidate, on_success), name="heatquery-trial")
        self._trial.start()

    def close(self) -> None:
        """Break off a trial that goes on."""
        self._stopping.set()
        if self._trial is not None:
            self._trial.join()

    def _try(self, candidate: Engine, on_success: Callable[[], None]) -> None:
        pictures = objects = 0
        company: NDArray[np.uint8] | None = None
        fault = ""
        while not fault and (pictures < PICTURES or objects < OBJECTS):
            picture = self._next_picture()
            if picture is None:
                return
            try:
                found, fault = self._compare(candidate, picture, picture if company is None else company)
            except ServiceError as error:
                found, fault = 0, str(error)
            pictures, objects, company = pictures + 1, objects + found, picture
        if fault:
            logger.error("%s is not taken: it differs from %s: %s", candidate.provider, self.provider, fault)
        else:
            logger.info("%s takes over from %s: alike on %s pictures", candidate.provider, self.provider, pictures)
            self._current = candidate
            on_success()

    def _next_picture(self) -> NDArray[np.uint8] | None:
        """The next picture that came, or None where the service stops."""
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                return self._pictures.get(timeout=_LOOK_UP_SECONDS)
        return None

    def _compare(self, candidate: Engine, picture: NDArray[np.uint8], company: NDArray[np.uint8]) -> tuple[int, str]:
        """Number of objects in a picture, and what the candidate gets wrong, by itself or second in a batch."""
        wanted = self._look(self._current, picture[None])[0]
        looks = self._look(candidate, picture[None])[0], self._look(candidate, np.stack([company, picture]))[1]
        faults = [difference(wanted, look, self._options.thresholds) for look in looks]
        return len(wanted.detections), next(filter(None, faults), "")

    def _look(self, engine: Engine, images: NDArray[np.uint8]) -> list[Look]:
        encoded = engine.encode(images)
        counts = query_counts(encoded.count, self._manifest.query, encoded.queries.shape[1])
        decoded = engine.decode(DecoderInputs.of_batch(encoded), counts)
        return [
            Look(
                float(encoded.count[row]),
                select_detections(decoded.boxes[row, :queries], decoded.scores[row, :queries], self._options),
            )
            for row, queries in enumerate(counts)
        ]


def difference(wanted: Look, found: Look, thresholds: FloatArray) -> str:
    """What two looks at one picture do not agree on; "" where nothing.

    Args:
        thresholds: (C,); an object whose score is within `MOST_SCORE` of its own may be missing.
    """
    if not abs(wanted.count - found.count) <= MOST_COUNT * max(1.0, abs(wanted.count)):
        return f"an estimate of {found.count:.2f} objects in place of {wanted.count:.2f}"
    for first, second, text in (
        (wanted.detections, found.detections, "missing"),
        (found.detections, wanted.detections, "too many"),
    ):
        lone = first.scores[_without_partner(first, second) & (first.scores > thresholds[first.labels] + MOST_SCORE)]
        if len(lone):
            return f"{len(lone)} of {len(first)} objects {text}, with scores up to {lone.max():.2f}"
    return ""


def _without_partner(first: Detections, second: Detections) -> NDArray[np.bool_]:
    """(M,) true where the other list has no such object: class, place and score alike."""
    alike = pairwise_iou(first.boxes, second.boxes) >= LEAST_IOU
    alike &= first.labels[:, None] == second.labels
    alike &= np.abs(first.scores[:, None] - second.scores) <= MOST_SCORE
    return np.logical_not(alike.any(axis=1))
