"""The int8 graph as TensorRT takes it: it is quantised for ONNX Runtime on the CPU, which knows more.

TensorRT's int8 has zero point 0: it takes neither uint8 nor an int32 that stands for a float (TensorRT documentation,
"Explicit Quantization"; its parser names both). Values stay what they are, but for a coarser step where the old range
was lopsided: 0.28 below zero and 10 above, as after SiLU, cost one bit.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def around_zero(graph: ModelProto) -> ModelProto:
    """A copy of a graph with its int8 in TensorRT's terms; a graph without int8 is copied as it is.

    Constants that are not int8 become float32. Activations in uint8 become int8 around zero, over a range that holds
    all of the old one. ONNX Runtime's own name for SiLU becomes the two operators that it stands for.
    """
    rewritten = ModelProto()
    rewritten.CopyFrom(graph)
    constants = {item.name: item for item in rewritten.graph.initializer}
    del rewritten.graph.node[:]
    for node in graph.graph.node:
        match node.op_type:
            case "QuickGelu" if helper.get_node_attr_value(node, "alpha") == 1:
                rewritten.graph.node.extend(_silu(node))
            case "DequantizeLinear" if _is_constant_beside_int8(node, constants):
                constants[node.output[0]] = _unquantised(node, constants)
            case "QuantizeLinear" | "DequantizeLinear":
                rewritten.graph.node.append(_around_zero(node, constants))
            case _:
                rewritten.graph.node.append(node)
    used = {name for node in rewritten.graph.node for name in node.input}
    del rewritten.graph.initializer[:]
    rewritten.graph.initializer.extend(item for name, item in constants.items() if name in used)
    return rewritten


def _silu(node: NodeProto) -> list[NodeProto]:
    gate = f"{node.output[0]}_gate"
    return [
        helper.make_node("Sigmoid", node.input, [gate], f"{node.name}_gate"),
        helper.make_node("Mul", [node.input[0], gate], node.output, node.name),
    ]


def _is_constant_beside_int8(node: NodeProto, constants: dict[str, TensorProto]) -> bool:
    return node.input[0] in constants and constants[node.input[0]].data_type != TensorProto.INT8


def _unquantised(node: NodeProto, constants: dict[str, TensorProto]) -> TensorProto:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
    stored, scale, *zero = (numpy_helper.to_array(constants[name]) for name in node.input)
    return numpy_helper.from_array(dequantise(stored, scale, zero[0] if zero else None, axis), node.output[0])


def _around_zero(node: NodeProto, constants: dict[str, TensorProto]) -> NodeProto:
    """The node, with new constants if its values were uint8."""
    copy = NodeProto()
    copy.CopyFrom(node)
    if len(node.input) == 3 and constants[node.input[2]].data_type == TensorProto.UINT8:
        scale = symmetric_scale(*(numpy_helper.to_array(constants[name]) for name in node.input[1:]))
        for place, value in ((1, scale), (2, np.zeros(scale.shape, np.int8))):
            copy.input[place] = f"{node.input[place]}_around_zero"
            constants[copy.input[place]] = numpy_helper.from_array(value, copy.input[place])
    return copy


def dequantise(
    stored: NDArray[np.generic], scale: NDArray[np.float32], zero: NDArray[np.generic] | None, axis: int
) -> NDArray[np.float32]:
    """Integers to what they stand for; scale and zero point are one number, or one per entry of the axis."""
    along = [1] * stored.ndim
    if scale.size > 1:
        along[axis] = -1
    offset = np.zeros(scale.shape, np.float32) if zero is None else zero.astype(np.float32)
    return (stored.astype(np.float32) - offset.reshape(along)) * scale.reshape(along)


def symmetric_scale(scale: NDArray[np.float32], zero: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The step with which -127 to 127 covers what 0 to 255 around the zero point did."""
    offset = zero.astype(np.float32)
    return np.asarray(np.maximum(offset, 255 - offset) * scale / 127, np.float32)
