"""`python -m export depth`: what each decoder layer brings, and what it costs (HMPE, section 5, table 4).

The encoder graph runs once a picture; decoders cut after one layer, two layers and so on take turns on what it gave,
so that a busy machine disturbs all alike.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from export.accuracy import Accuracy, CocoFile
from export.graphs import cut_decoder
from export.manifest import FP32, PAD_VALUE, input_spec
from export.matching import above
from export.onnx_graph import export_graph, graph_specs, write_graph
from export.pictures import read_canvas
from export.runtime import Array, Graphs, OnnxRunner
from model.checkpoint import load_detector
from model.detector import Detector

LOWEST_SCORE = 0.01
"""Detections below are not scored."""


@dataclass
class Depth:
    """A detector cut after some layers."""

    layers: int
    graphs: Graphs
    seconds: list[float] = field(default_factory=list)
    """Of its decoder, per picture."""
    results: list[dict[str, object]] = field(default_factory=list)
    """Detections as COCO writes them."""

    def figures(self, accuracy: Accuracy, encoder_ms: float) -> "DepthFigures":
        """What this depth gives and costs."""
        decoder_ms = 1e3 * statistics.median(self.seconds)
        return DepthFigures(self.layers, accuracy, decoder_ms, encoder_ms + decoder_ms)


@dataclass(frozen=True)
class DepthFigures:
    """One row of the table; milliseconds are medians over pictures."""

    layers: int
    accuracy: Accuracy
    decoder_ms: float
    whole_ms: float


def add_depth(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the sub-command to the command line."""
    parser = commands.add_parser("depth", help="accuracy and milliseconds after each decoder layer")
    parser.add_argument("checkpoint", type=Path, help="folder RUN/checkpoints/step-*")
    parser.add_argument("--data", type=Path, required=True, metavar="COCO.json", help="pictures in images/ beside it")
    parser.add_argument(
        "--size", type=int, default=640, help="side of the input canvas in pixels (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")


def run_depth(arguments: argparse.Namespace) -> str:
    """Carry out the parsed sub-command; returns a Markdown table.

    Raises:
        FileNotFoundError, ValueError: checkpoint, pictures or boxes are not usable.
    """
    detector = load_detector(arguments.checkpoint)
    input_spec(detector.config, arguments.size)  # refuses a side that the strides do not divide
    truth = CocoFile.read(arguments.data, detector.config.classes)
    with tempfile.TemporaryDirectory() as folder:
        depths = cut_graphs(detector, Path(folder))
        encoding, queries = [], []
        for picture in tqdm(truth.pictures, unit="picture", disable=None):
            canvas = read_canvas(picture.path, arguments.size, PAD_VALUE)
            began = time.perf_counter()
            encoded = depths[0].graphs.encode(canvas[None])
            encoding.append(time.perf_counter() - began)
            feed = depths[0].graphs.decoder_feed(encoded)
            queries.append(feed["valid"].shape[1])
            for depth in depths if len(encoding) % 2 else reversed(depths):
                scores = _decode(depth, feed)
                found = above(*scores, LOWEST_SCORE)
                depth.results += truth.results(picture, found, arguments.size)
    encoder_ms = 1e3 * statistics.median(encoding)
    rows = [depth.figures(truth.accuracy(depth.results), encoder_ms) for depth in depths]
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    return table(rows, encoder_ms, float(np.mean(queries)))


def cut_graphs(detector: Detector, folder: Path) -> list[Depth]:
    """The detector after 1, 2, ... layers, exported; all share one encoder."""
    encoder_spec = graph_specs(detector)[0]
    decoders = range(1, detector.config.decoder.layers + 1)
    cuts = {f"decoder-{layers}.onnx": graph_specs(cut_decoder(detector, layers))[1] for layers in decoders}
    write_graph(export_graph(encoder_spec), folder / FP32.encoder, {})
    encoder = OnnxRunner(folder / FP32.encoder)
    depths = []
    for layers, (file, spec) in zip(decoders, cuts.items(), strict=True):
        write_graph(export_graph(spec), folder / file, {})
        graphs = Graphs(encoder, OnnxRunner(folder / file), detector.config.query, len(detector.config.strides))
        depths.append(Depth(layers, graphs))
    return depths


def _decode(depth: Depth, feed: Mapping[str, Array]) -> tuple[Array, Array]:
    """Boxes (K, 4) and scores (K, C) of one picture, with a note of the time."""
    began = time.perf_counter()
    boxes, scores = depth.graphs.decode(feed)
    depth.seconds.append(time.perf_counter() - began)
    return boxes[0], scores[0]


def table(rows: list[DepthFigures], encoder_ms: float, queries: float) -> str:
    """Markdown: a row per depth."""
    lines = [
        f"K is {queries:.0f} on average; the encoder takes {encoder_ms:.1f} ms. Before suppression of duplicates.",
        "",
        "| decoder layers | AP | AP50 | AP75 | decoder ms | whole ms |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        found, times = row.accuracy, f"{row.decoder_ms:.1f} | {row.whole_ms:.1f}"
        lines.append(f"| {row.layers} | {found.ap:.3f} | {found.ap50:.3f} | {found.ap75:.3f} | {times} |")
    return "\n".join(lines)
