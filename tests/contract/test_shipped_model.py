"""The model that ships is sound, small, explained, and finds what it was trained to find."""

import hashlib
import json
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import service
from service.detections import DetectionOptions
from service.engines.onnx import OnnxEngine
from service.manifest import load_model_folder
from service.predictor import Predictor

PACKAGE = Path(service.__file__).parent
FOLDER = PACKAGE / "models" / "nano-nwpu" / "5"
DATA = PACKAGE.parent.parent / "shared" / "data" / "nwpu-vhr10"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    loaded = load_model_folder(FOLDER)
    return Predictor(loaded, OnnxEngine(loaded), max_pixels=10**7, max_tiles=256)


def test_it_is_verified_and_was_compared_on_twenty_real_pictures() -> None:
    parity = json.loads((FOLDER / "parity.json").read_text(encoding="utf-8"))
    assert load_model_folder(FOLDER).manifest.name == "nano-nwpu"
    assert (parity["passed"], parity["images_kind"], parity["images"]) == (True, "real", 20)


def test_it_names_a_clean_commit_its_data_and_its_licence() -> None:
    manifest = json.loads((FOLDER / "model.json").read_text(encoding="utf-8"))
    assert re.fullmatch("[0-9a-f]{40}", manifest["source"]["commit"])
    assert "research" in manifest["licence"]
    assert len(manifest["data"]["citation"]) == 3


def test_it_comes_from_the_checkpoint_that_ships() -> None:
    weights = PACKAGE.parent / "training" / "checkpoints" / "nano-nwpu" / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert load_model_folder(FOLDER).manifest.source.checkpoint_sha256 == digest


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_its_other_precisions_agree_with_fp32(precision: str) -> None:
    loaded = load_model_folder(FOLDER, precision)
    [agreement] = [one for one in loaded.parity.agreements if one.precision == precision]
    assert agreement.passed
    OnnxEngine(loaded).check_outputs()


def test_it_weighs_less_than_twenty_five_megabytes() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 25e6


def test_its_card_tells_the_classes_that_it_knows() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert [name for name in load_model_folder(FOLDER).manifest.classes if f"| {name} |" not in card] == []


def test_it_sees_nothing_on_an_empty_picture(predictor: Predictor) -> None:
    buffer = BytesIO()
    Image.new("RGB", (300, 200), (90, 110, 80)).save(buffer, "PNG")
    analysis = predictor.analyse(buffer.getvalue())
    assert len(analysis.detections(DetectionOptions.from_manifest(predictor.manifest)).scores) == 0
    assert analysis.estimated_count < 1


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/nwpu-vhr10")
def test_it_finds_every_airplane_of_a_real_val_picture(predictor: Predictor) -> None:
    data = json.loads((DATA / "instances_val.json").read_text(encoding="utf-8"))
    image = next(entry for entry in data["images"] if entry["file_name"].endswith("047.jpg"))
    truth = np.array([a["bbox"] for a in data["annotations"] if a["image_id"] == image["id"]], dtype=float)
    centres = truth[:, :2] + truth[:, 2:] / 2
    analysis = predictor.analyse((DATA / "images" / "047.jpg").read_bytes())
    boxes = analysis.detections(DetectionOptions.from_manifest(predictor.manifest)).boxes
    inside = (boxes[None, :, :2] < centres[:, None]) & (centres[:, None] < boxes[None, :, 2:])
    assert len(centres) == 31
    assert np.all(np.any(np.all(inside, axis=-1), axis=1))


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/nwpu-vhr10")
def test_it_finds_the_same_without_the_padding(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    options = DetectionOptions.from_manifest(predictor.manifest, threshold=0.5)
    upload = (DATA / "images" / "047.jpg").read_bytes()
    cut = predictor.analyse(upload)
    monkeypatch.setattr(OnnxEngine, "cuts_canvas", False)
    whole = predictor.analyse(upload)
    assert cut.maps.density.shape == (44, 68)  # 329 of 544 rows hold the picture
    assert whole.maps.density.shape == (68, 68)
    ours, theirs = cut.detections(options), whole.detections(options)
    assert len(ours) == len(theirs)
    distances = np.abs(ours.boxes[:, None] - theirs.boxes[None]).max(axis=2)  # (M, M)
    assert (distances.min(axis=1) < 4).all()
    assert (ours.labels == theirs.labels[distances.argmin(axis=1)]).all()
