"""Export a host of D3Q and compare its graphs with torch.

    python benchmarks/host_export.py dino_d3q_r50 --size 832 --json export.json

Weights are random, so scores of proposals come close: two runtimes may rank them differently, and a host whose contents
are learned by rank then decodes other queries. The decoder is therefore judged on equal inputs; what the whole makes
of the ranking is told beside it. Nothing is counted, so that each picture gets the fewest queries.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from benchmarks.book_result import Row, write_rows
from benchmarks.hosts import AI_TOD, HOSTS, count_nothing
from export.agreement import Tolerance
from export.joined import FILE as DETECTOR
from export.joined import detector_graph
from export.manifest import PAD_VALUE
from export.onnx_graph import export_graph, graph_specs, write_graph
from export.parity import Comparison, Roads
from export.pictures import synthetic_canvases
from export.runtime import Graphs, OnnxRunner
from model.detector import Detector
from model.presets import preset

MB = 1e6


@dataclass(frozen=True)
class Written:
    """A graph on the disk."""

    name: str
    megabytes: float
    cpu_s: float
    """CPU time of tracing, making smaller, checking and writing."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Export, compare, print, and write the figures where asked."""
    options = _parser().parse_args(arguments)
    torch.manual_seed(0)
    detector = Detector(preset(options.preset, AI_TOD)).eval()
    stir(detector)
    count_nothing(detector)
    with tempfile.TemporaryDirectory() as folder:
        found = costs(options.preset, write_graphs(detector, Path(folder)))
        comparison = compared(detector, Path(folder), options.size, options.pictures)
    found += differences(options.preset, comparison)
    for row in found:
        print(f"{row.claim}: {row.measured} {row.verdict}".rstrip())
    if options.json:
        write_rows(options.json, found)


@torch.no_grad()
def stir(detector: Detector) -> None:
    """Move the weights away from those that training begins with, where boxes stay and all scores are alike."""
    for name, parameter in detector.named_parameters():
        if not name.startswith("backbone"):
            parameter.add_(0.02 * torch.randn_like(parameter))
    for head in (detector.select_queries.classify, *detector.decoder.classify):
        assert isinstance(head, nn.Linear)
        head.weight.normal_(std=0.1)
        head.bias.zero_()


def write_graphs(detector: Detector, folder: Path) -> list[Written]:
    """encoder.onnx, decoder.onnx and detector.onnx."""
    specs = {spec.name: partial(export_graph, spec) for spec in graph_specs(detector)}
    makers = specs | {DETECTOR: partial(detector_graph, folder, detector.config)}
    written = []
    for name, make in tqdm(makers.items(), desc="export", disable=None):
        begun, path = time.process_time(), folder / name
        write_graph(make(), path, {}, packed=name == DETECTOR)
        written.append(Written(name, path.stat().st_size / MB, time.process_time() - begun))
    return written


def compared(detector: Detector, folder: Path, size: int, pictures: int) -> Comparison:
    """The graphs of a folder against the detector that they were made of, on drawn pictures."""
    graphs = Graphs.load(folder, detector.config.query, len(detector.config.strides))
    comparison = Comparison(detector, Roads(graphs, OnnxRunner(folder / DETECTOR)), Tolerance())
    for canvas in tqdm(synthetic_canvases(size, PAD_VALUE, pictures), desc="compare", disable=None):
        comparison.add_picture(canvas)
    return comparison


def costs(name: str, written: list[Written]) -> list[Row]:
    """What the book tells of the export itself."""
    found = []
    for graph in written:
        found.append(Row(claim=f"{name}, {graph.name}: size", value=graph.megabytes, unit="MB"))
        found.append(Row(claim=f"{name}, {graph.name}: CPU time of the export", value=round(graph.cpu_s), unit="s"))
    return found


def differences(name: str, comparison: Comparison) -> list[Row]:
    """What the book tells of graphs and torch."""
    limits, outputs, roads = comparison.tolerance, comparison.outputs, comparison.roads
    memory = max(value for output, value in outputs.items() if output.startswith("memory"))
    return [
        Row(claim=f"{name}: memory differs from torch by", value=memory),
        Row(claim=f"{name}: boxes of equal queries differ", value=outputs["boxes"], unit="px", at_most=limits.boxes_px),
        Row(claim=f"{name}: scores of equal queries differ", value=outputs["scores"], at_most=limits.scores),
        *(
            Row(claim=f"{name}, {road}: detections {which} a partner", value=number)
            for road, result in roads.items()
            for which, number in (("with", result.matched), ("without", result.unmatched))
        ),
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Export a host of D3Q and compare its graphs with torch.")
    parser.add_argument("preset", choices=HOSTS)
    parser.add_argument("--size", type=int, default=832, help="side of the canvas in pixels (default: %(default)s)")
    parser.add_argument("--pictures", type=int, default=1, help="pictures to compare on (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    return parser


if __name__ == "__main__":
    main()
