"""What a model folder says of itself."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from pydantic import ValidationError

import service
import training
from export.folder import read_json
from export.manifest import Card, FileSpec, InputSpec, Manifest, Postprocess, QuerySpec, Source, commit_of, read_card
from service.manifest import Manifest as ServedManifest


@pytest.fixture
def manifest() -> Manifest:
    """A manifest with made-up values."""
    file = FileSpec(sha256="0" * 64, bytes=1)
    return Manifest(
        name="tiny",
        version="1",
        classes=("ship", "vehicle"),
        input=InputSpec(size=64, multiple_of=32, pad_value=114, channels="RGB", mean=(1, 2, 3), std=(4, 5, 6)),
        strides=(8, 16, 32),
        query=QuerySpec(k_min=1, k_max=2, t=3),
        postprocess=Postprocess(nms_iou=None),
        decoder_layers=1,
        parameters=5,
        files=dict.fromkeys(("encoder.onnx", "decoder.onnx", "detector.onnx"), file),
        source=Source(commit="unknown", checkpoint_sha256="0" * 64, created="2026-11-21T00:00:00Z"),
        data=Card().data,
        licence="unknown",
    )


def git(folder: Path, *arguments: str) -> str:
    """Run git as nobody in particular."""
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write_card(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "card.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_service_reads_every_key_of_the_manifest(manifest: Manifest) -> None:
    served = ServedManifest.model_validate_json(manifest.model_dump_json(indent=2))
    assert served.model_dump(mode="json") == manifest.model_dump(mode="json")


def test_the_card_beside_the_shipped_recipe_is_complete() -> None:
    path = Path(training.__file__).parent / "recipes" / "nano-nwpu.card.toml"
    card = read_card(path, {})
    assert card.data.name == "NWPU VHR-10"
    assert len(card.data.citation) == 3
    assert "research" in card.licence


def test_the_shipped_model_says_of_its_pictures_what_the_card_says() -> None:
    card = read_card(Path(training.__file__).parent / "recipes" / "nano-nwpu.card.toml", {})
    (folder,) = (Path(service.__file__).parent / "models" / "nano-nwpu").iterdir()
    shipped = read_json(folder / "model.json", Manifest)
    assert (shipped.resolution_cm, shipped.largest_object_px) == (card.resolution_cm, card.largest_object_px)


def test_without_a_card_licences_are_unknown() -> None:
    card = read_card(None, {})
    assert (card.data.name, card.data.licence, card.licence) == ("unknown", "unknown", "unknown")


def test_the_command_line_goes_before_the_card(tmp_path: Path) -> None:
    path = write_card(tmp_path, "[postprocess]\nthreshold = 0.4\nmax_detections = 7\n")
    post = read_card(path, {"threshold": 0.5, "nms_iou": "off"}).postprocess
    assert (post.threshold, post.nms_iou, post.max_detections) == (0.5, None, 7)


def test_nms_can_be_off_in_a_card(tmp_path: Path) -> None:
    path = write_card(tmp_path, '[postprocess]\nnms_iou = "off"\n')
    assert read_card(path, {}).postprocess.nms_iou is None
    assert read_card(path, {"nms_iou": 0.7}).postprocess.nms_iou == 0.7


@pytest.mark.parametrize("threshold", [-0.1, 1.1, float("nan")])
def test_a_threshold_is_a_fraction(threshold: float) -> None:
    with pytest.raises(ValidationError, match="threshold"):
        read_card(None, {"threshold": threshold})


def test_a_threshold_for_an_unknown_class_is_refused(manifest: Manifest) -> None:
    post = Postprocess(class_thresholds={"sheep": 0.5})
    with pytest.raises(ValidationError, match="sheep"):
        Manifest(**{**dict(manifest), "postprocess": post})


def test_a_class_name_with_a_comma_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ValidationError, match="classes"):
        Manifest(**{**dict(manifest), "classes": ("ship, large",)})


def test_a_file_is_described_by_its_hash_and_length(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"graph")
    assert FileSpec.of(tmp_path / "a") == FileSpec(sha256=hashlib.sha256(b"graph").hexdigest(), bytes=5)


def test_the_commit_says_when_there_are_changes_on_top(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "a").write_text("1", encoding="utf-8")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "--quiet", "-m", "a")
    clean = commit_of(tmp_path)
    (tmp_path / "a").write_text("2", encoding="utf-8")
    assert clean == git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == f"{clean}-dirty"


def test_the_commit_is_unknown_outside_git(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "unknown"


def test_the_commit_of_a_repository_around_is_not_ours(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "commit", "--quiet", "--allow-empty", "-m", "a")
    (tmp_path / "inside").mkdir()
    assert commit_of(tmp_path / "inside") == "unknown"
