"""`evaluate --out`: tables, charts, and the pictures where most is wrong."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.checkpoint import save_detector
from model.detector import Detector
from training.config import Recipe
from training.data.datasets import CocoDataset
from training.evaluation.evaluate import Findings
from training.evaluation.matches import Detections, Truth
from training.evaluation.report import GREEN, LEGEND, RED, YELLOW, evaluate_checkpoint, worst_sheet, write_report

CLASSES = ("plane", "ship", "tank")
ROOT = Path(__file__).parents[2]
BOXES = [[[10, 10, 20, 20], [40, 40, 12, 12]], [[5, 5, 30, 20]], []]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three grey pictures of 96 x 64 px with 2, 1 and 0 boxes."""
    folder = tmp_path_factory.mktemp("data")
    images, annotations = [], []
    for place, boxes in enumerate(BOXES):
        Image.new("RGB", (96, 64), (90, 90, 90)).save(folder / f"{place}.png")
        images.append({"id": place, "file_name": f"{place}.png", "width": 96, "height": 64})
        for box in boxes:
            annotations.append({"id": len(annotations) + 1, "image_id": place, "category_id": 2, "bbox": box})
    categories = [{"id": label + 1, "name": name} for label, name in enumerate(CLASSES)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def pictures(data: Path) -> CocoDataset:
    return CocoDataset(data, data / "instances.json", CLASSES, size=None)


def findings_with(pictures: CocoDataset, told: list[Detections], counts: list[float]) -> Findings:
    truths = [Truth(pictures[place].boxes, pictures[place].labels) for place in range(len(pictures))]
    return Findings(CLASSES, [0, 1, 2], truths, [told], counts, [5, 5, 5])


def detections(boxes: list[list[float]]) -> Detections:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(array, np.full(len(array), 0.9, np.float32), np.ones(len(array), np.int64))


@pytest.fixture
def mixed(pictures: CocoDataset) -> Findings:
    """One box is found, two are missed, and there are three false ones, two of them on the first picture."""
    told = [[[10, 10, 30, 30], [60, 5, 80, 20], [70, 40, 90, 60]], [], [[50, 20, 70, 50]]]
    return findings_with(pictures, [detections(boxes) for boxes in told], counts=[2.2, 1.0, 0.4])


def pixels(image: Image.Image, colour: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == colour).all(axis=2).sum())


def test_the_worst_pictures_show_what_is_found_missed_and_false(mixed: Findings, pictures: CocoDataset) -> None:
    worst = worst_sheet(mixed, pictures, threshold=0.3)
    header = dict.fromkeys(LEGEND.values(), 13 * 13)
    assert {colour: pixels(worst, colour) > header[colour] for colour in header} == dict.fromkeys(header, True)


def test_a_picture_without_faults_is_not_among_the_worst(pictures: CocoDataset) -> None:
    told = [detections([[10, 10, 30, 30], [40, 40, 52, 52]]), detections([]), detections([])]
    worst = worst_sheet(findings_with(pictures, told, []), pictures, threshold=0.3)
    assert pixels(worst, YELLOW) > pixels(worst, RED) == pixels(worst, GREEN)


def test_where_nothing_is_wrong_the_sheet_says_so(pictures: CocoDataset) -> None:
    perfect = [detections([[10, 10, 30, 30], [40, 40, 52, 52]]), detections([[5, 5, 35, 25]]), detections([])]
    worst = worst_sheet(findings_with(pictures, perfect, []), pictures, threshold=0.3)
    assert pixels(worst, RED) == pixels(worst, YELLOW) == pixels(worst, GREEN)


def test_a_report_has_figures_tables_and_charts(mixed: Findings, pictures: CocoDataset, tmp_path: Path) -> None:
    metrics = mixed.metrics()
    write_report(tmp_path, "a title", metrics.table(), mixed, [metrics], pictures)
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == json.loads(metrics.to_json())
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.startswith("# a title\n")
    assert metrics.table() in report
    for name in ("precision-recall", "confusion", "ap-by-size", "counts", "worst"):
        assert f"({name}.png)" in report
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).min() < 100  # something dark is drawn
    assert len(list(tmp_path.glob("*.svg"))) == 4


def test_without_an_estimate_there_is_no_chart_of_counts(pictures: CocoDataset, tmp_path: Path) -> None:
    findings = findings_with(pictures, [detections([])] * 3, counts=[])
    write_report(tmp_path, "a title", "", findings, [findings.metrics()], pictures)
    assert not (tmp_path / "counts.png").exists()


@pytest.fixture
def recipe(data: Path, tmp_path: Path) -> Path:
    """A recipe whose val pictures are those of `data`."""
    shipped = Recipe.from_toml(ROOT / "training" / "recipes" / "nano-nwpu.toml")
    where = {"val_images": data, "val_annotations": data / "instances.json", "classes": CLASSES, "val_size": 96}
    run = shipped.run.model_copy(update={"batch_size": 2})
    changed = shipped.model_copy(update={"data": shipped.data.model_copy(update=where), "run": run})
    (tmp_path / "recipe.toml").write_text(changed.to_toml(), encoding="utf-8")
    return tmp_path / "recipe.toml"


def test_a_checkpoint_is_measured_layer_by_layer(
    make_detector: Callable[..., Detector], recipe: Path, tmp_path: Path
) -> None:
    detector = make_detector()
    checkpoint = tmp_path / "step-000007"
    checkpoint.mkdir()
    save_detector(checkpoint, detector.config, detector.state_dict())
    tables = evaluate_checkpoint(checkpoint, recipe, tmp_path / "out", every_layer=True)
    assert [f"| Det{layer} |" in tables for layer in range(5)] == [True] * 4 + [False]
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert len(figures["layers"]) == 4
    assert figures["layers"][-1]["ap"] == figures["ap"]
    assert "step-000007 on 3 val pictures of recipe.toml" in (tmp_path / "out" / "report.md").read_text("utf-8")


def test_without_a_folder_nothing_is_written(
    make_detector: Callable[..., Detector], recipe: Path, tmp_path: Path
) -> None:
    detector = make_detector()
    checkpoint = tmp_path / "step-000007"
    checkpoint.mkdir()
    save_detector(checkpoint, detector.config, detector.state_dict())
    before = sorted(tmp_path.iterdir())
    assert "| AP50 |" in evaluate_checkpoint(checkpoint, recipe, None, every_layer=False)
    assert sorted(tmp_path.iterdir()) == before
