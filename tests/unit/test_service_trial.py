"""An engine that must prove itself on the pictures that come, before it answers anybody."""

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.engines import trial
from service.engines.base import Decoded, DecoderInputs, Encoded
from service.engines.trial import TrialEngine
from service.errors import EngineError
from service.manifest import Manifest, load_model_folder


class Squares:
    """Sees as many objects as the first pixel of a canvas says; `wrong` changes what it says of them."""

    cuts_canvas = False

    def __init__(self, provider: str, shift: float = 0.0, score: float = 0.9, spoils_company: bool = False) -> None:
        self.provider, self.shift, self.score, self.spoils_company = provider, shift, score, spoils_company
        self.fails = False

    def encode(self, images: NDArray[np.uint8]) -> Encoded:
        if self.fails:
            raise EngineError("out of order")
        counts = images[:, 0, 0, 0].astype(np.float32)
        if self.spoils_company and len(images) > 1:
            counts = counts + 5
        size = len(images)
        heat, queries = np.zeros((size, 4, 1, 1), np.float32), np.zeros((size, 100, 2), np.float32)
        queries[:, :, 0] = np.arange(100) < counts[:, None]
        return Encoded((heat,), queries, np.zeros((size, 100, 4), np.float32), counts, heat, (heat,), (heat,))

    def decode(self, inputs: DecoderInputs, query_counts: Sequence[int]) -> Decoded:
        longest = max(query_counts)
        left = np.arange(longest, dtype=np.float32) * 20 + self.shift
        boxes = np.stack([left, left * 0, left + 10, left * 0 + 10], axis=1)
        return Decoded(np.stack([boxes] * len(query_counts)), inputs.queries[:, :longest] * self.score)


@pytest.fixture
def manifest(toy_models: Path) -> Manifest:
    return load_model_folder(toy_models / "toy" / "1").manifest


def provider_after_a_trial(manifest: Manifest, candidate: Squares) -> str:
    engine, taken = TrialEngine(Squares("trusted"), manifest), threading.Event()
    engine.try_out(candidate, taken.set)
    picture = np.full((1, 3, 2, 2), 20, np.uint8)
    while any(thread.name == "heatquery-trial" for thread in threading.enumerate()):
        engine.encode(picture)
        taken.wait(0.001)
    engine.close()
    return engine.provider


def test_an_engine_that_finds_the_same_objects_takes_over(manifest: Manifest) -> None:
    assert provider_after_a_trial(manifest, Squares("new")) == "new"


@pytest.mark.parametrize(
    ("candidate", "fault"),
    [
        (Squares("new", shift=4), "objects missing"),
        (Squares("new", score=0.8), "objects missing"),
        (Squares("new", spoils_company=True), "an estimate of 25.00 objects in place of 20.00"),
    ],
)
def test_an_engine_that_differs_is_never_taken(
    manifest: Manifest, candidate: Squares, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "heatquery"):
        assert provider_after_a_trial(manifest, candidate) == "trusted"
    assert fault in caplog.text


def test_an_engine_that_fails_is_never_taken(manifest: Manifest) -> None:
    broken = Squares("new")
    broken.fails = True
    assert provider_after_a_trial(manifest, broken) == "trusted"


def test_empty_pictures_prove_nothing(manifest: Manifest) -> None:
    engine = TrialEngine(Squares("trusted"), manifest)
    engine.try_out(Squares("new"), lambda: None)
    for _ in range(3 * trial.PICTURES):
        engine.encode(np.zeros((1, 3, 2, 2), np.uint8))
    engine.close()
    assert engine.provider == "trusted"


def test_a_service_that_stops_breaks_the_trial_off(manifest: Manifest) -> None:
    engine = TrialEngine(Squares("trusted"), manifest)
    engine.try_out(Squares("new"), lambda: None)
    engine.close()
    assert engine.provider == "trusted"
