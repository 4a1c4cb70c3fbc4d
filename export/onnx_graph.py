"""From a graph in torch to one self-contained ONNX file, with nothing of the exporting machine in it."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxslim
import torch
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper
from torch import nn
from torch.export import Dim

from export.graphs import (
    DecoderGraph,
    EncoderGraph,
    decoder_inputs,
    encoder_outputs,
    folded,
    refuse_without_density,
)
from export.packing import pack_kernels
from model.detector import Detector

OPSET = 18
Metadata = Mapping[str, str | list[str]]
FORBIDDEN_TYPES: dict[int, str] = {TensorProto.DOUBLE: "float64", TensorProto.COMPLEX128: "complex128"}


@dataclass(frozen=True)
class GraphSpec:
    """A graph and how it is exported."""

    name: str
    """Of the file that it becomes, or of its stage in a joined graph."""
    module: nn.Module
    arguments: tuple[Any, ...]
    """Examples; their sizes are dynamic where `dynamic_shapes` says so."""
    dynamic_shapes: tuple[Any, ...]
    """Per argument: axis to dimension."""
    inputs: list[str]
    outputs: list[str]


def graph_specs(detector: Detector) -> list[GraphSpec]:
    """Encoder and decoder of a detector. Batch, queries and sides are dynamic, sides in steps of the coarsest stride.

    Raises:
        ValueError: the detector has no density head.
    """
    config = detector.config
    refuse_without_density(config)
    detector = folded(detector)
    levels, coarsest = len(config.strides), config.strides[-1]
    batch, count, rows, columns = Dim("B", min=1), Dim("K", min=1), Dim("_h", min=1), Dim("_w", min=1)
    canvas = torch.zeros(2, 3, 10 * coarsest, 12 * coarsest, dtype=torch.uint8)
    canvas_shape = {0: batch, 2: coarsest * rows, 3: coarsest * columns}
    scales = [coarsest // stride for stride in config.strides]
    memory = [torch.zeros(2, config.width, 10 * scale, 12 * scale) for scale in scales]
    memory_shapes = [{0: batch, 2: _times(scale, rows), 3: _times(scale, columns)} for scale in scales]
    queries, boxes = torch.zeros(2, 7, config.width), torch.full((2, 7, 4), 0.5)
    valid = torch.ones(2, 7, dtype=torch.bool)
    rows_of_queries = {0: batch, 1: count}
    return [
        GraphSpec(
            "encoder.onnx", EncoderGraph(detector), (canvas,), (canvas_shape,), ["images"], encoder_outputs(levels)
        ),
        GraphSpec(
            "decoder.onnx",
            DecoderGraph(detector),
            (memory, queries, boxes, valid),
            (memory_shapes, rows_of_queries, rows_of_queries, rows_of_queries),
            decoder_inputs(levels),
            ["boxes", "scores"],
        ),
    ]


def export_graph(spec: GraphSpec) -> ModelProto:
    """Trace a graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's remarks on its own deprecated calls and on axis names
        program = torch.onnx.export(
            spec.module.eval(),
            spec.arguments,
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=spec.dynamic_shapes,
            input_names=spec.inputs,
            output_names=spec.outputs,
            verbose=False,
        )
    assert program is not None  # only None when written to a file
    return program.model_proto


def write_graph(model: ModelProto, path: Path, metadata: Metadata, packed: bool = False) -> None:
    """Make a graph smaller, check it and write it.

    Args:
        metadata: kept in the file; lists as JSON.
        packed: store convolution kernels in 16 bits, see `pack_kernels`.
    Raises:
        ValueError: the graph is not one that may ship, see `check_graph`.
    """
    slim = onnxslim.slim(model)
    assert isinstance(slim, ModelProto)  # a file name or None only where a file is asked for
    if packed:
        pack_kernels(slim.graph)
    _strip(slim)
    slim.producer_name = "heatquery"
    helper.set_model_props(slim, {k: v if isinstance(v, str) else json.dumps(v) for k, v in metadata.items()})
    check_graph(path.name, slim)
    onnx.save(slim, path)


def _times(scale: int, dim: Dim) -> Dim:
    """A dimension that is `scale` times another; the exporter refuses a factor of one."""
    return dim if scale == 1 else scale * dim


def _strip(model: ModelProto) -> None:
    """Drop what the exporter notes on nodes and values: stack traces, with paths of this machine."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in _graphs(model.graph):
        del graph.metadata_props[:]
        del graph.value_info[:]
        for item in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            del item.metadata_props[:]
            item.doc_string = ""


def check_graph(name: str, model: ModelProto) -> None:
    """Check that a graph is valid, single-file and free of double precision.

    Raises:
        ValueError: it holds float64 anywhere, or keeps weights in other files.
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: it is no valid ONNX.
    """
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
    for graph in _graphs(inferred.graph):
        for tensor in _tensors(graph):
            if tensor.external_data or tensor.data_location == TensorProto.EXTERNAL:
                raise ValueError(f"{name}: the weights {tensor.name!r} are outside the file; a graph must be one file")
        for value, kind in _types(graph):
            if kind in FORBIDDEN_TYPES:
                raise ValueError(f"{name}: {value!r} is {FORBIDDEN_TYPES[kind]}; a graph computes in float32")


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Weights and constants of a graph."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == AttributeProto.TENSOR)


def _types(graph: GraphProto) -> Iterator[tuple[str, int]]:
    """(name, element type) of every value and constant, and of every cast."""
    for value in (*graph.input, *graph.value_info, *graph.output):
        yield value.name, value.type.tensor_type.elem_type
    for tensor in _tensors(graph):
        yield tensor.name, tensor.data_type
    for node in graph.node:
        yield from ((node.name, attribute.i) for attribute in node.attribute if attribute.name in ("to", "dtype"))
