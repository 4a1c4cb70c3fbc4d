"""detector.onnx and deepness.onnx: encoder and decoder with the host's cut between them, joined as ONNX graphs.

Tracing the whole once more would take as long as both parts together.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx
import torch
from onnx import ModelProto, compose
from torch import Tensor, nn
from torch.export import Dim

from export.graphs import decoder_inputs
from export.onnx_graph import GraphSpec, export_graph
from model.config import DetectorConfig, QueryConfig
from model.queries import query_counts

FILE = "detector.onnx"
CUT_INPUTS = ["queries", "reference_boxes", "count"]
CUT_OUTPUTS = {"queries": "kept_queries", "reference_boxes": "kept_boxes", "valid": "valid"}
"""Inputs of the decoder, and what the cut calls them."""
TAIL_INPUTS = ["all_boxes", "all_scores"]
"""The decoder's boxes and scores."""


class Cut(nn.Module):
    """As many of the encoder's proposals as the pictures ask for, the work of the host between both graphs."""

    def __init__(self, config: QueryConfig) -> None:
        super().__init__()
        self.config = config

    def forward(self, queries: Tensor, reference_boxes: Tensor, count: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cut.

        Args:
            queries: (B, Q, D), best first.
            reference_boxes: (B, Q, 4).
            count: (B,), estimated objects.
        Returns:
            The first K of both, K the most that a picture asks for and at most Q, and (B, K), bool, false where a
            picture asks for fewer.
        """
        counts = query_counts(count, self.config)
        most = cast(int, counts.amax(0).item())
        torch._check(most >= self.config.k_min)  # what the exporter may assume of a number it cannot see
        torch._check(most <= self.config.k_max)
        kept = torch.sym_min(most, queries.shape[1])  # a number, symbolic in an export
        valid = torch.arange(kept)[None] < counts[:, None]
        return queries[:, :kept], reference_boxes[:, :kept], valid


class BestClass(nn.Module):
    """Of all scores of a query the best, and its class."""

    def forward(self, boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, K, 4) and (B, K, C) to the boxes, the best score (B, K), and its label (B, K), int64."""
        best, labels = scores.max(-1)
        return boxes.clone(), best, labels  # an output of a graph is not its input


@dataclass(frozen=True)
class Stage:
    """A graph on the way from the first input to the last output."""

    name: str
    model: ModelProto
    takes: Mapping[str, str]
    """Each of its inputs: the output of a stage before it, as STAGE.OUTPUT, which no other stage takes."""


def detector_graph(folder: Path, config: DetectorConfig) -> ModelProto:
    """`images` to `boxes` (B, K, 4), xyxy in pixels of the canvas, `scores` (B, K), 0 beyond a picture's own number of
    queries, and `labels` (B, K), int64, of the encoder.onnx and decoder.onnx of a folder."""
    batch, count = Dim("B", min=1), Dim("K", min=1)
    rows = {0: batch, 1: count}
    arguments = torch.zeros(2, 7, 4), torch.zeros(2, 7, len(config.classes))
    best = GraphSpec("best", BestClass(), arguments, (rows, rows), TAIL_INPUTS, ["boxes", "scores", "labels"])
    encoder = Stage("encoder", onnx.load(folder / "encoder.onnx"), {})
    return join([encoder, *decoding(folder, config), tail(best)])


def decoding(folder: Path, config: DetectorConfig) -> list[Stage]:
    """The cut and the decoder, which follow a stage `encoder`."""
    memory = [name for name in decoder_inputs(len(config.strides)) if name not in CUT_OUTPUTS]
    takes = {name: f"encoder.{name}" for name in memory} | {name: f"cut.{kept}" for name, kept in CUT_OUTPUTS.items()}
    return [
        Stage("cut", cut_graph(config), {name: f"encoder.{name}" for name in CUT_INPUTS}),
        Stage("decoder", onnx.load(folder / "decoder.onnx"), takes),
    ]


def cut_graph(config: DetectorConfig) -> ModelProto:
    """The cut alone."""
    batch, proposals = Dim("B", min=1), Dim("Q", min=1)
    rows = {0: batch, 1: proposals}
    arguments = torch.zeros(2, 7, config.width), torch.zeros(2, 7, 4), torch.ones(2)
    spec = GraphSpec("cut", Cut(config.query), arguments, (rows, rows, {0: batch}), CUT_INPUTS, [*CUT_OUTPUTS.values()])
    return export_graph(spec)


def tail(spec: GraphSpec) -> Stage:
    """What is made of the decoder's boxes and scores."""
    return Stage(
        spec.name, export_graph(spec), dict(zip(TAIL_INPUTS, ("decoder.boxes", "decoder.scores"), strict=True))
    )


def join(stages: list[Stage]) -> ModelProto:
    """One graph with the inputs of the first stage and the outputs of the last."""
    first, *others = stages
    *_, last = stages
    joined = compose.add_prefix(first.model, f"{first.name}.", rename_inputs=False)
    for stage in others:
        model = compose.add_prefix(stage.model, f"{stage.name}.", rename_outputs=stage is not last)
        links = [(source, f"{stage.name}.{name}") for name, source in stage.takes.items()]
        outputs = [output.name for output in model.graph.output] if stage is last else None
        joined = compose.merge_models(joined, model, links, outputs=outputs)
    return joined
