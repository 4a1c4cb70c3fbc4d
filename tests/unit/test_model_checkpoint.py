"""Checkpoints: weights and configuration go through disk whole, or are refused by name."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from model.checkpoint import CONFIG, WEIGHTS, load_detector, save_detector
from model.config import DetectorConfig
from model.detector import Detector


@pytest.fixture
def checkpoint(tmp_path: Path, tiny_detector: Detector) -> Path:
    save_detector(tmp_path, tiny_detector.config, tiny_detector.state_dict())
    return tmp_path


@torch.no_grad()
def test_a_checkpoint_gives_the_same_detector_back(
    checkpoint: Path, tiny_detector: Detector, pictures: Callable[..., Tensor]
) -> None:
    loaded = load_detector(checkpoint)
    assert loaded.config == tiny_detector.config
    assert not loaded.training
    assert torch.equal(loaded(pictures(1)).layers[-1].boxes, tiny_detector(pictures(1)).layers[-1].boxes)


def test_weights_in_another_memory_layout_are_saved_all_the_same(tmp_path: Path, tiny_detector: Detector) -> None:
    weights = {
        name: w.contiguous(memory_format=torch.channels_last) if w.dim() == 4 else w
        for name, w in tiny_detector.state_dict().items()
    }
    save_detector(tmp_path, tiny_detector.config, weights)
    loaded = load_detector(tmp_path).state_dict()
    assert all(torch.equal(loaded[name], w) for name, w in weights.items())


@pytest.mark.parametrize("missing", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(checkpoint: Path, missing: str) -> None:
    (checkpoint / missing).unlink()
    with pytest.raises(FileNotFoundError, match=missing):
        load_detector(checkpoint)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere is no checkpoint"):
        load_detector(tmp_path / "nowhere")


@pytest.mark.parametrize("kept", [0, 5, 2000])
def test_weights_cut_short_are_named(checkpoint: Path, kept: int) -> None:
    path = checkpoint / WEIGHTS
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match=rf"{WEIGHTS} is damaged"):
        load_detector(checkpoint)


def test_a_configuration_cut_short_is_named(checkpoint: Path) -> None:
    path = checkpoint / CONFIG
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{CONFIG} does not describe a detector"):
        load_detector(checkpoint)


def test_weights_of_another_detector_are_refused(checkpoint: Path, tiny_detector: Detector) -> None:
    wider = DetectorConfig.model_validate(tiny_detector.config.model_dump() | {"width": 32})
    (checkpoint / CONFIG).write_text(wider.model_dump_json(), encoding="utf-8")
    with pytest.raises(ValueError, match="do not fit"):
        load_detector(checkpoint)
