"""What may be in a graph file, how kernels are packed, and how many queries the host takes."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.onnx_graph import check_graph
from export.packing import pack_kernels, quantise
from export.runtime import query_counts
from model.config import QueryConfig
from model.queries import query_counts as query_counts_of_the_model
from service.manifest import QuerySpec
from service.queries import query_counts as query_counts_of_the_service


def model_of(nodes: list[onnx.NodeProto], weights: list[TensorProto], kind: int = TensorProto.FLOAT) -> ModelProto:
    """A graph from `x` to `y`, both (1, 8, 6, 6)."""
    x, y = (helper.make_tensor_value_info(name, kind, (1, 8, 6, 6)) for name in "xy")
    graph = helper.make_graph(nodes, "test", [x], [y], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def convolution(kernel: np.ndarray) -> ModelProto:
    node = helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[1, 1, 1, 1])
    return model_of([node], [numpy_helper.from_array(kernel, "kernel")])


@pytest.fixture
def kernel() -> np.ndarray:
    """(16, 8, 3, 3), channels of very different size, one of them empty."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((16, 8, 3, 3)) * np.geomspace(1e-3, 10, 16)[:, None, None, None]
    values[5] = 0
    return values.astype(np.float32)


def test_a_sound_graph_passes() -> None:
    check_graph("a.onnx", model_of([helper.make_node("Relu", ["x"], ["y"])], []))


def test_a_graph_in_double_precision_is_refused() -> None:
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [], TensorProto.DOUBLE)
    with pytest.raises(ValueError, match=r"a\.onnx.*float64"):
        check_graph("a.onnx", model)


def test_a_detour_through_double_precision_is_refused() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Cast", ["wide"], ["y"], to=TensorProto.FLOAT),
    ]
    with pytest.raises(ValueError, match="float64"):
        check_graph("a.onnx", model_of(nodes, []))


def test_a_constant_in_double_precision_is_refused() -> None:
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.ones(1)))
    with pytest.raises(ValueError, match="float64"):
        check_graph("a.onnx", model_of([constant, helper.make_node("Relu", ["x"], ["y"])], []))


def test_weights_in_another_file_are_refused(kernel: np.ndarray, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = convolution(kernel[:8])
    onnx.save(model, "a.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    with pytest.raises(ValueError, match="outside the file"):
        check_graph("a.onnx", onnx.load("a.onnx", load_external_data=False))


def test_a_packed_kernel_is_off_by_half_a_step_at_most(kernel: np.ndarray) -> None:
    integers, scale = quantise(kernel)
    assert integers.dtype == np.int16
    largest = np.abs(kernel).max((1, 2, 3), keepdims=True)
    assert (np.abs(integers * scale - kernel) <= largest / 65_534 * 1.01).all()
    assert not integers[5].any()


def test_a_packed_graph_computes_the_same_in_half_the_bytes() -> None:
    kernel = np.random.default_rng(0).standard_normal((8, 8, 5, 5)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "kernel"], ["y"], pads=[2, 2, 2, 2])
    plain = model_of([node], [numpy_helper.from_array(kernel, "kernel")])
    packed = ModelProto()
    packed.CopyFrom(plain)
    pack_kernels(packed.graph)
    check_graph("a.onnx", packed)
    x = np.random.default_rng(1).standard_normal((1, 8, 6, 6)).astype(np.float32)
    first, second = (
        np.asarray(
            ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]
        )
        for m in (plain, packed)
    )
    np.testing.assert_allclose(first, second, atol=2e-3)
    assert packed.ByteSize() < 0.6 * plain.ByteSize()


def test_small_kernels_are_left_alone() -> None:
    model = convolution(np.ones((8, 8, 1, 1), dtype=np.float32))
    pack_kernels(model.graph)
    assert [node.op_type for node in model.graph.node] == ["Conv"]


@pytest.mark.parametrize("available", [5, 30, 1000])
def test_host_model_and_service_agree_on_k(available: int) -> None:
    config, spec = QueryConfig(k_min=10, k_max=50, t=2.5), QuerySpec(k_min=10, k_max=50, t=2.5)
    count = np.array([0, 3.9, 4.2, 5.0, 5.8, 7.0, 12.3, 19.9, 20, 500], dtype=np.float32)
    host = query_counts(count, config, available)
    assert host.tolist() == query_counts_of_the_model(torch.from_numpy(count), config).clamp_max(available).tolist()
    assert host.tolist() == list(query_counts_of_the_service(count, spec, available))
