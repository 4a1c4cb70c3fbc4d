"""Score a model folder through the service's own code: its image intake, engine and post-processing.

    python benchmarks/accuracy.py service/models/nano-nwpu/1 --data ../shared/data/nwpu-vhr10 --split val

The figures are worked out by training's evaluation: COCO's average precision with AI-TOD's list length and sizes.
Precision and recall are taken at the threshold of model.json, the same for every class.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from service.detections import DetectionOptions
from service.engines.onnx import OnnxEngine
from service.imaging import silence_pillow_warnings
from service.letterbox import FloatArray
from service.manifest import Manifest, load_model_folder
from service.predictor import Predictor
from service.settings import Settings
from training.evaluate import MAX_DETECTIONS, Detections, coco_metrics

LOWEST_THRESHOLD = 0.01


@dataclass(frozen=True)
class Picture:
    """One picture of the data set with its true boxes: (M, 4) xyxy and (M,) class ids of the model."""

    path: Path
    boxes: FloatArray
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What the model said of one picture: counts, and every detection above LOWEST_THRESHOLD."""

    estimated_count: float
    query_count: int
    found: Detections


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    silence_pillow_warnings()
    folder = load_model_folder(options.model_dir.resolve())
    engine = OnnxEngine(folder, options.provider, options.threads)
    defaults = Settings()
    predictor = Predictor(folder, engine, defaults.max_pixels, view_side=defaults.view_side)
    pictures = read_pictures(options.data, options.split, folder.manifest.classes)
    outcomes = [run(predictor, picture) for picture in tqdm(pictures, unit="picture", desc=options.split)]
    figures = {
        "model": f"{folder.manifest.name}/{folder.manifest.version}",
        "model_sha256": folder.sha256,
        "commit": folder.manifest.source.commit,
        "provider": engine.provider,
        "data": options.data.name,
        "split": options.split,
        "pictures": len(pictures),
        "objects": sum(len(picture.labels) for picture in pictures),
        **score(pictures, outcomes, folder.manifest),
    }
    print(report(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def read_pictures(data: Path, split: str, classes: Sequence[str]) -> list[Picture]:
    """The pictures of the annotation file, in its order.

    Raises:
        SystemExit: the data set and the model do not speak of the same classes.
    """
    truth = json.loads((data / f"instances_{split}.json").read_text(encoding="utf-8"))
    names = {category["id"]: category["name"] for category in truth["categories"]}
    if set(names.values()) != set(classes):
        raise SystemExit(f"the data set has classes {sorted(names.values())}, the model {sorted(classes)}")
    boxes: dict[int, list[list[float]]] = {}
    labels: dict[int, list[int]] = {}
    for item in truth["annotations"]:
        x, y, width, height = item["bbox"]
        boxes.setdefault(item["image_id"], []).append([x, y, x + width, y + height])
        labels.setdefault(item["image_id"], []).append(classes.index(names[item["category_id"]]))
    return [
        Picture(
            path=data / "images" / item["file_name"],
            boxes=np.array(boxes.get(item["id"], []), dtype=np.float32).reshape(-1, 4),
            labels=np.array(labels.get(item["id"], []), dtype=np.int64),
        )
        for item in truth["images"]
    ]


def run(predictor: Predictor, picture: Picture) -> Outcome:
    """Send one picture the way a request goes."""
    analysis = predictor.analyse(picture.path.read_bytes())
    found = analysis.detections(DetectionOptions.from_manifest(predictor.manifest, LOWEST_THRESHOLD, MAX_DETECTIONS))
    return Outcome(
        estimated_count=analysis.estimated_count,
        query_count=analysis.query_count,
        found=Detections(found.boxes, found.scores, found.labels),
    )


def score(pictures: Sequence[Picture], outcomes: Sequence[Outcome], manifest: Manifest) -> dict[str, object]:
    """All figures, as training's evaluation works them out."""
    metrics = coco_metrics(
        pictures,
        [outcome.found for outcome in outcomes],
        manifest.classes,
        manifest.postprocess.threshold,
        [outcome.estimated_count for outcome in outcomes],
    )
    return {
        "AP": metrics.ap,
        "AP50": metrics.ap50,
        "AP75": metrics.ap75,
        "AP_by_size": metrics.ap_by_size,
        "by_class": {
            name: {
                "AP": metrics.ap_by_class[name],
                "AP50": metrics.ap50_by_class[name],
                "objects": sum(int((picture.labels == label).sum()) for picture in pictures),
            }
            for label, name in enumerate(manifest.classes)
        },
        "threshold": metrics.operating_threshold,
        "precision": metrics.precision,
        "recall": metrics.recall,
        "count_mae": metrics.count_mae,
        "count_correlation": metrics.count_correlation,
        "mean_query_count": float(np.mean([outcome.query_count for outcome in outcomes])),
    }


def report(figures: dict) -> str:
    """The figures as text for a person."""

    def show(value: float | None) -> str:
        return "    -" if value is None else f"{value:.3f}"

    lines = [
        f"{figures['model']} on {figures['data']} {figures['split']}: "
        f"{figures['pictures']} pictures, {figures['objects']} objects",
        f"AP {show(figures['AP'])}   AP50 {show(figures['AP50'])}   AP75 {show(figures['AP75'])}",
        "   ".join(f"AP {name} {show(value)}" for name, value in figures["AP_by_size"].items()),
        f"at score {figures['threshold']:g}: precision {show(figures['precision'])}   recall {show(figures['recall'])}",
        f"count: mean error {figures['count_mae']:.2f}, correlation {show(figures['count_correlation'])}",
        f"mean queries {figures['mean_query_count']:.0f}",
        "",
        f"{'class':<22}{'objects':>8}{'AP':>8}{'AP50':>8}",
    ]
    lines += [
        f"{name:<22}{row['objects']:>8}{show(row['AP']):>8}{show(row['AP50']):>8}"
        for name, row in figures["by_class"].items()
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances_<split>.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=0, help="threads inside one run; 0: every core")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


if __name__ == "__main__":
    main()
