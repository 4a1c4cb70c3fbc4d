"""The command line of export: mistakes end in one line, and before anything slow."""

import sys
from pathlib import Path

import pytest

from export.__main__ import main
from export.release import name_and_version
from model.checkpoint import save_detector
from model.config import DecoderConfig, DetectorConfig, HybridEncoderConfig, PlainBackboneConfig
from model.detector import Detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny detector, as training saves it, with two decoder layers."""
    config = DetectorConfig(
        classes=("ship", "vehicle"),
        width=16,
        backbone=PlainBackboneConfig(stem=4, channels=(4, 8, 8, 8), blocks=(1, 1, 1, 1)),
        encoder=HybridEncoderConfig(heads=2, feedforward=16),
        decoder=DecoderConfig(layers=2, heads=2, feedforward=16),
    )
    folder = tmp_path_factory.mktemp("checkpoint")
    save_detector(folder, config, Detector(config).state_dict())
    return folder


def complaint(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """Run the command line; return its last words."""
    monkeypatch.setattr(sys, "argv", ["export", "build", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    assert isinstance(stop.value.code, str)
    assert "\n" not in stop.value.code
    return stop.value.code


def test_a_missing_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = complaint(monkeypatch, tmp_path / "nowhere", "--out", tmp_path / "tiny" / "1")
    assert str(tmp_path / "nowhere") in line


@pytest.mark.parametrize("out", ["1", "/1", "models/tiny/..", "models/a b/1", "models/.tiny/1"])
def test_a_malformed_out_is_told_the_form(checkpoint: Path, monkeypatch: pytest.MonkeyPatch, out: str) -> None:
    assert "FOLDER/NAME/VERSION" in complaint(monkeypatch, checkpoint, "--out", out)


def test_an_existing_version_is_refused_before_the_checkpoint_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tiny" / "1").mkdir(parents=True)
    line = complaint(monkeypatch, tmp_path / "nowhere", "--out", tmp_path / "tiny" / "1")
    assert "choose another version" in line


@pytest.mark.parametrize("layers", [0, 3, -1])
def test_decoder_layers_out_of_range_are_told_the_range(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layers: int
) -> None:
    line = complaint(monkeypatch, checkpoint, "--out", tmp_path / "tiny" / "1", "--decoder-layers", layers)
    assert "has 1 to 2" in line


def test_a_size_that_is_no_multiple_is_told_a_near_one(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = complaint(monkeypatch, checkpoint, "--out", tmp_path / "tiny" / "1", "--size", 650)
    assert "multiple of the largest stride 32" in line
    assert "640" in line


def test_images_that_are_not_there_are_named(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    line = complaint(monkeypatch, checkpoint, "--out", tmp_path / "tiny" / "1", "--images", tmp_path / "pictures")
    assert str(tmp_path / "pictures") in line


def test_a_card_with_an_unknown_key_is_told_the_nearest(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "card.toml"
    card.write_text('license = "none"\n', encoding="utf-8")
    line = complaint(monkeypatch, checkpoint, "--out", tmp_path / "tiny" / "1", "--card", card)
    assert "'licence'" in line


def test_mistakes_leave_nothing_behind(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    complaint(monkeypatch, checkpoint, "--out", tmp_path / "models" / "tiny" / "1", "--size", 650)
    assert not list(tmp_path.iterdir())


def test_name_and_version_are_the_last_two_parts() -> None:
    assert name_and_version(Path("service/models/nano-nwpu/1.2")) == ("nano-nwpu", "1.2")
