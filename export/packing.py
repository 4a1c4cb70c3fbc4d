"""Smaller files: convolution kernels as 16-bit integers that a runtime widens once, when it loads the graph.

detector.onnx repeats the weights of the other two graphs, so it is the place to save bytes. It computes in float32 all
the same. float16 would be 8 times coarser: there, scores of a trained model moved by 7e-4, close to the tolerance.
"""

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

MIN_PACKED = 1024
"""Kernels with fewer values stay as they are: they weigh nothing."""
LARGEST = 32767


def pack_kernels(graph: GraphProto) -> None:
    """Replace large convolution kernels, in place, by integers times a scale per output channel.

    A kernel is then off by at most 1/65,534 of the largest value of its channel.
    """
    kernels = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    packed = [
        tensor
        for tensor in graph.initializer
        if tensor.name in kernels and tensor.data_type == TensorProto.FLOAT and np.prod(tensor.dims) >= MIN_PACKED
    ]
    widening: list[NodeProto] = []
    for tensor in packed:
        name = tensor.name
        integers, scale = quantise(numpy_helper.to_array(tensor))
        stored, scales, wide = f"{name}_int16", f"{name}_scale", f"{name}_wide"
        tensor.CopyFrom(numpy_helper.from_array(integers, stored))
        graph.initializer.append(numpy_helper.from_array(scale, scales))
        widening.append(helper.make_node("Cast", [stored], [wide], name=f"widen {name}", to=TensorProto.FLOAT))
        widening.append(helper.make_node("Mul", [wide, scales], [name], name=f"scale {name}"))
    nodes = [*widening, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def quantise(kernel: NDArray[np.float32]) -> tuple[NDArray[np.int16], NDArray[np.float32]]:
    """(O, I, h, w) to integers of the same shape and scales (O, 1, 1, 1); their product is the kernel."""
    largest = np.abs(kernel).max(axis=(1, 2, 3), keepdims=True)
    scale = np.where(largest > 0, largest / LARGEST, 1).astype(np.float32)
    return np.rint(kernel / scale).astype(np.int16), scale
