"""benchmarks/accuracy.py puts a model folder and its checkpoint side by side, and they score the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.accuracy import WholeCanvas, score_checkpoint, score_folder, side_by_side
from service.manifest import load_model_folder
from training.data.datasets import CocoDataset
from training.evaluation.evaluate import detect


@pytest.fixture(scope="module")
def pictures(exported, canvases: NDArray[np.uint8], tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """Wide pictures, three of whose detections each are the ground truth, so that the scores are neither 0 nor 1."""
    folder, classes = tmp_path_factory.mktemp("pictures"), exported.detector.config.classes
    sizes = [(128, 128), (128, 80), (90, 128), (200, 110)]
    images = [{"id": n, "file_name": f"{n}.png", "width": w, "height": h} for n, (w, h) in enumerate(sizes)]
    for canvas, size, image in zip(canvases, sizes, images, strict=True):
        Image.fromarray(canvas.transpose(1, 2, 0)).resize(size).save(folder / image["file_name"])
    document = {"images": images, "annotations": []}
    document["categories"] = [{"id": label + 1, "name": name} for label, name in enumerate(classes)]
    (folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    blank = CocoDataset(folder, folder / "instances.json", classes, size=None)
    found = detect(exported.detector, blank, canvases.shape[-1], 4, "cpu", "fp32", progress=False).by_layer[-1]
    for image_id, told in enumerate(found):
        for place in (0, 2, 5):
            x1, y1, x2, y2 = told.boxes[place].tolist()
            annotation = {"id": len(document["annotations"]), "image_id": image_id, "bbox": [x1, y1, x2 - x1, y2 - y1]}
            document["annotations"].append(annotation | {"category_id": int(told.labels[place]) + 1})
    (folder / "instances.json").write_text(json.dumps(document), encoding="utf-8")
    return CocoDataset(folder, folder / "instances.json", classes, size=None)


def test_the_folder_and_the_layers_it_keeps_of_the_checkpoint_score_the_same(exported, pictures: CocoDataset) -> None:
    folder = load_model_folder(exported.folder)
    graphs = score_folder(folder, WholeCanvas(folder), pictures)
    torch = score_checkpoint(exported.checkpoint, folder.manifest, pictures, "cpu")
    assert 0.1 < graphs.ap < 1
    ours, theirs = graphs.rows(), torch.rows()
    assert ours == {name: value if value is None else pytest.approx(value, abs=2e-3) for name, value in theirs.items()}
    table = side_by_side("graphs", graphs, "torch", torch)
    assert f"| AP | {graphs.ap:.3f} | {torch.ap:.3f} | {graphs.ap - torch.ap:+.4f} |" in table


def test_a_checkpoint_of_other_classes_is_refused(exported, pictures: CocoDataset) -> None:
    manifest = load_model_folder(exported.folder).manifest
    other = manifest.model_copy(update={"classes": ("one",)})
    with pytest.raises(ValueError, match="the checkpoint's classes are ship, storage tank, vehicle; the model"):
        score_checkpoint(Path(exported.checkpoint), other, pictures, "cpu")
