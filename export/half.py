"""A graph in fp16 inside, with the inputs and outputs of the fp32 one.

Features are fp16. What places, ranks or counts things stays in float32: a fraction of the canvas has steps of a third
of a pixel in fp16. The rule was found by measurement; it, and why no library does this here, is in
docs/decisions/0014-precisions.md.
"""

from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST

FEATURE_OPS = {"Conv", "Gemm", "MatMul", "LayerNormalization"}
"""What makes features. Everything computed from features is a feature too, unless it must be exact."""
FLOAT_OPS = {*DEFAULT_OP_BLOCK_LIST, "GridSample", "Resize"}
"""Operators that some runtime has in float32 only, or with mixed types that runtimes disagree on."""
EXACT_INPUTS = {"GridSample": 1, "TopK": 0}
"""Operator to the input that must be exact: where to sample, what to rank."""
EXACT_OUTPUTS = {"boxes", "scores", "reference_boxes", "count"}
OTHER = {TensorProto.FLOAT: TensorProto.FLOAT16, TensorProto.FLOAT16: TensorProto.FLOAT}


def write_half(source: Path, target: Path) -> None:
    """Read the fp32 graph of an encoder or a decoder, and write it in fp16."""
    onnx.save(to_half(onnx.load(source)), target)


def to_half(model: ModelProto) -> ModelProto:
    """The same graph with features in fp16; float inputs and outputs stay float32.

    Args:
        model: checked, in topological order, with a name on every node.
    """
    half = ModelProto()
    half.CopyFrom(model)
    converter = _Converter(onnx.shape_inference.infer_shapes(model).graph)
    nodes = list(converter.nodes())
    del half.graph.node[:], half.graph.initializer[:], half.graph.value_info[:]
    half.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    half.graph.initializer.extend(tensor for name, tensor in converter.constants.items() if name in read)
    return half


def exact_nodes(graph: GraphProto) -> set[str]:
    """Names of the nodes that lie between features and what must be exact."""
    makers = {name: node for node in graph.node for name in node.output}
    wanted = [output.name for output in graph.output if output.name in EXACT_OUTPUTS]
    wanted += [node.input[EXACT_INPUTS[node.op_type]] for node in graph.node if node.op_type in EXACT_INPUTS]
    exact: set[str] = set()
    while wanted:
        node = makers.get(wanted.pop())
        if node is not None and node.op_type not in FEATURE_OPS and node.name not in exact:
            exact.add(node.name)
            wanted.extend(node.input)
    return exact


class _Converter:
    """Walks through a graph once, and casts where fp16 meets float32."""

    def __init__(self, graph: GraphProto) -> None:
        self._graph = graph
        self._exact = exact_nodes(graph)
        self._outputs = {output.name for output in graph.output}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        given = [value.name for value in graph.input if value.type.tensor_type.elem_type == TensorProto.FLOAT]
        given += [tensor.name for tensor in graph.initializer if tensor.data_type == TensorProto.FLOAT]
        made = [v.name for v in (*graph.value_info, *graph.output) if v.type.tensor_type.elem_type == TensorProto.FLOAT]
        self._float = {*given, *made}
        self._names: dict[tuple[str, TensorProto.DataType], str] = {(name, TensorProto.FLOAT): name for name in given}
        """(value, type) to its name in the new graph, for what is there so far."""
        self._features: set[str] = set()

    def nodes(self) -> Iterator[NodeProto]:
        """The nodes of the new graph, in order."""
        for original in self._graph.node:
            kind = TensorProto.FLOAT16 if self._is_half(original) else TensorProto.FLOAT
            node = NodeProto()
            node.CopyFrom(original)
            for i, name in enumerate(original.input):
                if name in self._float:
                    if (name, kind) not in self._names:
                        yield from self._convert(name, kind)
                    node.input[i] = self._names[name, kind]
            yield from self._with_outputs(node, kind)

    def _is_half(self, node: NodeProto) -> bool:
        if node.op_type in FLOAT_OPS or node.name in self._exact:
            return False
        return node.op_type in FEATURE_OPS or not self._features.isdisjoint(node.input)

    def _convert(self, name: str, kind: TensorProto.DataType) -> Iterator[NodeProto]:
        """Provide a value in the other type: a constant is converted once and for all, anything else is cast."""
        source, target = self._names[name, OTHER[kind]], _copy_name(name, kind)
        self._names[name, kind] = target
        if name in self.constants:
            values = numpy_helper.to_array(self.constants[name])
            self.constants[target] = numpy_helper.from_array(
                values.astype(helper.tensor_dtype_to_np_dtype(kind)), target
            )
        else:
            yield _cast(source, target, kind)

    def _with_outputs(self, node: NodeProto, kind: TensorProto.DataType) -> Iterator[NodeProto]:
        """The node, and casts to float32 of those of its results that the graph gives."""
        casts = []
        for i, name in enumerate(node.output):
            if name not in self._float:
                continue
            if kind == TensorProto.FLOAT16:
                self._features.add(name)
                if name in self._outputs:
                    node.output[i] = _copy_name(name, kind)
                    self._names[name, TensorProto.FLOAT] = name
                    casts.append(_cast(node.output[i], name, TensorProto.FLOAT))
            self._names[name, kind] = node.output[i]
        yield node
        yield from casts


def _copy_name(name: str, kind: TensorProto.DataType) -> str:
    return f"{name}_{'fp16' if kind == TensorProto.FLOAT16 else 'fp32'}"


def _cast(source: str, target: str, kind: TensorProto.DataType) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}_cast", to=kind)
