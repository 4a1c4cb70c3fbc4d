"""Score a model folder through the service's own code: its image intake, engine and post-processing.

    python benchmarks/accuracy.py service/models/nano-nwpu/5 --data ../shared/data/nwpu-vhr10 --split val

The figures are worked out by training's evaluation: COCO's average precision with AI-TOD's list length and sizes.
Precision and recall are taken at the threshold of model.json, the same for every class. With `--checkpoint`, the
checkpoint that the graphs were exported from runs in torch on the same pictures, canvas and post-processing, and the
two stand side by side: both on the whole canvas, as in training, where the service on a CPU leaves the padding away.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from model.checkpoint import load_detector
from service.detections import DetectionOptions
from service.engines.onnx import OnnxEngine
from service.errors import ServiceError
from service.imaging import silence_pillow_warnings
from service.manifest import Manifest, ModelFolder, load_model_folder
from service.predictor import Predictor
from service.settings import Settings
from training.data.datasets import CocoDataset
from training.evaluation.evaluate import LOWEST_SCORE, detect
from training.evaluation.matches import Detections, Truth
from training.evaluation.metrics import MAX_DETECTIONS, Metrics, coco_metrics, shown


def main(arguments: Sequence[str] | None = None) -> None:
    """Score, print, and write the figures where asked; a mistake in the input ends in one clear line."""
    options = _parser().parse_args(arguments)
    silence_pillow_warnings()
    try:
        run(options)
    except (OSError, ValueError, ServiceError) as error:
        sys.exit(f"{type(error).__name__}: {error}")


def run(options: argparse.Namespace) -> None:
    """Carry out the parsed command."""
    folder = load_model_folder(options.model_dir.resolve(), options.precision)
    manifest = folder.manifest
    annotations = options.data / f"instances_{options.split}.json"
    pictures = CocoDataset(options.data / "images", annotations, manifest.classes, size=None, cache_bytes=0)
    engine = (WholeCanvas if options.checkpoint else OnnxEngine)(folder, options.provider, options.threads)
    metrics = score_folder(folder, engine, pictures)
    figures = {
        "model": f"{manifest.name}/{manifest.version}",
        "model_sha256": folder.sha256,
        "commit": manifest.source.commit,
        "provider": engine.provider,
        "graphs": folder.precision,
        "data": options.data.name,
        "split": options.split,
        **asdict(metrics),
    }
    where = f"{folder.precision}, {engine.provider}"
    print(f"{figures['model']} ({where}) on {options.data.name} {options.split}\n\n{metrics.table()}")
    if options.checkpoint:
        beside = score_checkpoint(options.checkpoint, manifest, pictures, options.provider)
        figures["checkpoint"] = {"name": options.checkpoint.name, **asdict(beside)}
        print(f"\n{side_by_side(figures['model'], metrics, options.checkpoint.name, beside)}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


class WholeCanvas(OnnxEngine):
    """An engine that is given the padding, too, as training gives it."""

    @property
    def cuts_canvas(self) -> bool:
        return False


def score_folder(folder: ModelFolder, engine: OnnxEngine, pictures: CocoDataset) -> Metrics:
    """Send each picture the way a request goes, and score what comes back."""
    defaults, manifest = Settings(), folder.manifest
    predictor = Predictor(folder, engine, defaults.max_pixels, defaults.max_tiles)
    wanted = DetectionOptions.from_manifest(manifest, LOWEST_SCORE, MAX_DETECTIONS)
    truths, detections, counts, queries = [], [], [], []
    for index in tqdm(range(len(pictures)), unit="picture", desc="model folder"):
        analysis = predictor.analyse(pictures.paths[index].read_bytes())
        found, sample = analysis.detections(wanted), pictures[index]
        detections.append(Detections(found.boxes, found.scores, found.labels))
        truths.append(Truth(sample.boxes, sample.labels))
        counts.append(analysis.estimated_count)
        queries.append(analysis.query_count)
    metrics = coco_metrics(truths, detections, manifest.classes, manifest.postprocess.threshold, counts)
    return replace(metrics, mean_queries=float(np.mean(queries)))


def score_checkpoint(checkpoint: Path, manifest: Manifest, pictures: CocoDataset, device: str) -> Metrics:
    """Run a checkpoint in torch with the canvas, decoder layers, suppression and threshold of the model folder.

    Raises:
        ValueError: it knows other classes.
    """
    detector = load_detector(checkpoint).to(device)
    if detector.config.classes != manifest.classes:
        ours, theirs = ", ".join(detector.config.classes), ", ".join(manifest.classes)
        raise ValueError(f"the checkpoint's classes are {ours}; the model folder's are {theirs}")
    spec = manifest.postprocess
    findings = detect(
        detector,
        pictures,
        manifest.input.size,
        batch_size=4,
        device=device,
        precision="fp32",
        nms_iou=spec.nms_iou,
        every_layer=True,
    )
    return findings.metrics(spec.threshold, layer=manifest.decoder_layers)  # the folder may keep a part of the layers


def side_by_side(name: str, metrics: Metrics, other_name: str, other: Metrics) -> str:
    """Markdown: all figures of two evaluations of the same pictures, and their differences."""
    lines = [f"| | {name} | {other_name} | difference |", "|---|---:|---:|---:|"]
    pairs = [(row, value, other.rows()[row]) for row, value in metrics.rows().items()]
    pairs += [(f"AP50 {row}", figures.ap50, other.by_class[row].ap50) for row, figures in metrics.by_class.items()]
    for row, ours, theirs in pairs:
        difference = "-" if ours is None or theirs is None else f"{ours - theirs:+.4f}"
        lines.append(f"| {row} | {shown(ours)} | {shown(theirs)} | {difference} |")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model_dir", type=Path, help="<models>/<name>/<version>")
    parser.add_argument("--data", type=Path, required=True, help="folder with images/ and instances_<split>.json")
    parser.add_argument("--split", default="val")
    parser.add_argument("--checkpoint", type=Path, help="RUN/checkpoints/step-*, to be measured beside the folder")
    parser.add_argument("--provider", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("fp32", "fp16", "int8"), default="fp32", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, default=0, help="threads inside one run; 0: every core")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser


if __name__ == "__main__":
    main()
