"""Score a model folder through the service's own code: its image intake, engine and post-processing.

    python benchmarks/accuracy.py service/models/nano-nwpu/1 --data ../shared/data/nwpu-vhr10 --split val

Average precision follows COCO with AI-TOD's list length and sizes (by the square root of a box's area).
Precision and recall are taken at the thresholds of model.json, with a match at an overlap of 0.5.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from faster_coco_eval import COCO, COCOeval_faster
from numpy.typing import NDArray
from tqdm import tqdm

from service.detections import DetectionOptions, Detections, pairwise_iou
from service.engines.onnx import OnnxEngine
from service.imaging import silence_pillow_warnings
from service.letterbox import FloatArray
from service.manifest import Manifest, load_model_folder
from service.predictor import Predictor
from service.settings import Settings

LOWEST_THRESHOLD, LONGEST_LIST = 0.01, 1500
MATCH_IOU = 0.5
SIZES_PX = {"very_tiny": (2, 8), "tiny": (8, 16), "small": (16, 32), "medium": (32, 64), "large": (64, 1e5)}


@dataclass(frozen=True)
class Picture:
    """One picture of the data set with its true boxes: (M, 4) xyxy and (M,) class ids of the model."""

    coco_id: int
    path: Path
    boxes: FloatArray
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Outcome:
    """What the model said of one picture: everything above 0.01, and what a caller would get by default."""

    estimated_count: float
    query_count: int
    ranked: Detections
    default: Detections


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    silence_pillow_warnings()
    folder = load_model_folder(options.model_dir.resolve())
    engine = OnnxEngine(folder, options.provider, options.threads)
    defaults = Settings()
    predictor = Predictor(folder, engine, defaults.max_pixels, view_side=defaults.view_side)
    truth = COCO(str(options.data / f"instances_{options.split}.json"))
    category_ids = match_categories(truth, folder.manifest)
    pictures = read_pictures(truth, options.data / "images", category_ids)
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
        **average_precision(truth, pictures, outcomes, category_ids, folder.manifest.classes),
        **precision_and_recall(pictures, outcomes),
        **count_figures(pictures, outcomes),
    }
    print(report(figures))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def match_categories(truth: COCO, manifest: Manifest) -> list[int]:
    """COCO category id of each class of the model, by name.

    Raises:
        SystemExit: the data set and the model do not speak of the same classes.
    """
    ids = {category["name"]: category["id"] for category in truth.dataset["categories"]}
    if set(ids) != set(manifest.classes):
        raise SystemExit(f"the data set has classes {sorted(ids)}, the model {sorted(manifest.classes)}")
    return [ids[name] for name in manifest.classes]


def read_pictures(truth: COCO, images: Path, category_ids: list[int]) -> list[Picture]:
    """The pictures of the annotation file, in its order."""
    boxes: dict[int, list[list[float]]] = {}
    labels: dict[int, list[int]] = {}
    for item in truth.dataset["annotations"]:
        x, y, width, height = item["bbox"]
        boxes.setdefault(item["image_id"], []).append([x, y, x + width, y + height])
        labels.setdefault(item["image_id"], []).append(category_ids.index(item["category_id"]))
    return [
        Picture(
            coco_id=item["id"],
            path=images / item["file_name"],
            boxes=np.array(boxes.get(item["id"], []), dtype=np.float32).reshape(-1, 4),
            labels=np.array(labels.get(item["id"], []), dtype=np.int64),
        )
        for item in truth.dataset["images"]
    ]


def run(predictor: Predictor, picture: Picture) -> Outcome:
    """Send one picture the way a request goes."""
    analysis = predictor.analyse(picture.path.read_bytes())
    ranked = DetectionOptions.from_manifest(predictor.manifest, LOWEST_THRESHOLD, LONGEST_LIST)
    return Outcome(
        estimated_count=analysis.estimated_count,
        query_count=analysis.query_count,
        ranked=analysis.detections(ranked),
        default=analysis.detections(DetectionOptions.from_manifest(predictor.manifest)),
    )


def average_precision(
    truth: COCO,
    pictures: Sequence[Picture],
    outcomes: Sequence[Outcome],
    category_ids: list[int],
    classes: Sequence[str],
) -> dict[str, object]:
    """COCO's figures: overall, by size and by class."""
    results = [
        {
            "image_id": picture.coco_id,
            "category_id": category_ids[label],
            "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
            "score": score,
        }
        for picture, outcome in zip(pictures, outcomes, strict=True)
        for box, score, label in zip(
            outcome.ranked.boxes.tolist(),
            outcome.ranked.scores.tolist(),
            outcome.ranked.labels.tolist(),
            strict=True,
        )
    ]
    if not results:
        raise SystemExit(f"the model found nothing above {LOWEST_THRESHOLD} in {len(pictures)} pictures")
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
    evaluation.params.maxDets = [1, 100, LONGEST_LIST]
    evaluation.params.areaRng = [[0, 1e10], *([low**2, high**2] for low, high in SIZES_PX.values())]
    evaluation.params.areaRngLbl = ["all", *SIZES_PX]
    evaluation.evaluate()
    evaluation.accumulate()
    # (IoU, recall, class, size) at the longest list; -1 where there is nothing to find
    precision = np.asarray(evaluation.eval["precision"])[..., -1]
    rows = {category: row for row, category in enumerate(evaluation.params.catIds)}
    return {
        "AP": mean_known(precision[..., 0]),
        "AP50": mean_known(precision[0, ..., 0]),
        "AP75": mean_known(precision[5, ..., 0]),
        "AP_by_size": {name: mean_known(precision[..., 1 + i]) for i, name in enumerate(SIZES_PX)},
        "by_class": {
            name: {
                "AP": mean_known(precision[:, :, rows[category], 0]),
                "AP50": mean_known(precision[0, :, rows[category], 0]),
                "objects": sum(int((picture.labels == label).sum()) for picture in pictures),
            }
            for label, (name, category) in enumerate(zip(classes, category_ids, strict=True))
        },
    }


def mean_known(precision: NDArray[np.float64]) -> float | None:
    """Mean over what is defined; None where there is nothing to find."""
    known = precision[precision > -1]
    return float(known.mean()) if known.size else None


def precision_and_recall(pictures: Sequence[Picture], outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Over all classes together, of the list that a caller gets by default."""
    matched = sum(count_matches(picture, outcome.default) for picture, outcome in zip(pictures, outcomes, strict=True))
    found = sum(len(outcome.default) for outcome in outcomes)
    true = sum(len(picture.labels) for picture in pictures)
    return {"precision": matched / max(1, found), "recall": matched / max(1, true)}


def count_matches(picture: Picture, found: Detections) -> int:
    """Detections, best first, that each take a free true box of their class; the one they overlap most."""
    overlap = pairwise_iou(found.boxes, picture.boxes)  # (M, N)
    overlap[found.labels[:, None] != picture.labels[None, :]] = 0
    matches = 0
    for row in range(len(found)):
        if len(picture.labels) == 0:
            break
        best = int(overlap[row].argmax())
        if overlap[row, best] >= MATCH_IOU:
            matches += 1
            overlap[:, best] = 0
    return matches


def count_figures(pictures: Sequence[Picture], outcomes: Sequence[Outcome]) -> dict[str, float | None]:
    """How well the density map counts, and what the decoder is spent on."""
    true = np.array([len(picture.labels) for picture in pictures], dtype=np.float64)
    estimated = np.array([outcome.estimated_count for outcome in outcomes])
    varied = true.std() > 0 and estimated.std() > 0
    return {
        "count_mae": float(np.abs(estimated - true).mean()),
        "count_correlation": float(np.corrcoef(true, estimated)[0, 1]) if varied else None,
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
        f"precision {show(figures['precision'])}   recall {show(figures['recall'])}   at the model's thresholds",
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
