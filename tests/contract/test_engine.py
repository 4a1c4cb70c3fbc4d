"""The ONNX engine: what a picture gives does not depend on its batch."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from service.engines.base import Decoded, DecoderInputs, Encoded, EncodedRow
from service.engines.onnx import EngineLoadError, OnnxEngine
from service.manifest import ModelFolder, load_model_folder


@pytest.fixture(scope="module")
def folder(toy_models: Path) -> ModelFolder:
    return load_model_folder(toy_models / "toy" / "1")


@pytest.fixture(scope="module")
def engine(folder: ModelFolder) -> OnnxEngine:
    return OnnxEngine(folder, threads=1)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """(4, 3, 160, 160) with 0, 1, 3 and 9 red squares."""
    batch = np.full((4, 3, 160, 160), 90, dtype=np.uint8)
    for row, squares in enumerate((0, 1, 3, 9)):
        for square in range(squares):
            y, x = divmod(square, 5)
            batch[row, :, 32 * y : 32 * y + 32, 32 * x : 32 * x + 32] = np.array([255, 0, 0])[:, None, None]
    return batch


def decode(engine: OnnxEngine, images: np.ndarray, counts: list[int]) -> Decoded:
    return engine.decode(DecoderInputs.of_batch(engine.encode(images)), counts)


def test_pictures_of_two_batches_decode_together_as_they_do_alone(engine: OnnxEngine, images: np.ndarray) -> None:
    first, second = engine.encode(images[:2]), engine.encode(images[2:])
    rows = [EncodedRow(second, 1), EncodedRow(first, 0), EncodedRow(second, 0)]
    together = engine.decode(DecoderInputs.of_rows(rows), [16, 4, 9])
    for index, (picture, count) in enumerate([(3, 16), (0, 4), (2, 9)]):
        alone = decode(engine, images[picture : picture + 1], [count])
        np.testing.assert_allclose(together.boxes[index, :count], alone.boxes[0], atol=1e-3)
        np.testing.assert_allclose(together.scores[index, :count], alone.scores[0], atol=1e-5)


def test_a_whole_batch_in_its_own_order_is_decoded_where_it_lies(engine: OnnxEngine, images: np.ndarray) -> None:
    encoded = engine.encode(images)
    inputs = DecoderInputs.of_rows([EncodedRow(encoded, row) for row in range(4)])
    assert inputs.memory is encoded.memory


def test_a_picture_in_a_batch_of_four_gives_what_it_gives_alone(engine: OnnxEngine, images: np.ndarray) -> None:
    counts = [4, 5, 9, 16]
    together = decode(engine, images, counts)
    for row, count in enumerate(counts):
        alone = decode(engine, images[row : row + 1], [count])
        np.testing.assert_allclose(together.boxes[row, :count], alone.boxes[0], atol=1e-3)
        np.testing.assert_allclose(together.scores[row, :count], alone.scores[0], atol=1e-5)


def test_queries_beyond_a_picture_s_own_count_score_zero(engine: OnnxEngine, images: np.ndarray) -> None:
    decoded = decode(engine, images, [4, 4, 4, 9])
    assert decoded.scores.shape == (4, 9, 2)
    assert (decoded.scores[:3, 4:] == 0).all()


def test_the_batch_runs_at_the_largest_count(engine: OnnxEngine, images: np.ndarray) -> None:
    assert decode(engine, images, [1, 2, 3, 7]).boxes.shape == (4, 7, 4)


def test_counts_follow_the_objects(engine: OnnxEngine, images: np.ndarray) -> None:
    encoded: Encoded = engine.encode(images)
    np.testing.assert_allclose(encoded.count, [0, 1, 3, 9], atol=1e-4)
    np.testing.assert_allclose(encoded.density.sum(axis=(1, 2, 3)), encoded.count, atol=1e-4)


def test_the_provider_in_use_is_told(engine: OnnxEngine) -> None:
    assert engine.provider == "CPUExecutionProvider"


def test_junk_that_looks_verified_does_not_load(folder: ModelFolder) -> None:
    junk = replace(folder, graphs={**folder.graphs, "encoder.onnx": b"\x3a\x00"})
    with pytest.raises(EngineLoadError, match=r"encoder\.onnx"):
        OnnxEngine(junk)
