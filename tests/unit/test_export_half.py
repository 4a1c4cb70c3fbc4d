"""Graphs in fp16: features are, and what places or ranks things is not."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import GraphProto, ModelProto, TensorProto, helper, numpy_helper

from export.half import exact_nodes, to_half, write_half
from export.onnx_graph import check_graph


def model_of(nodes: list[onnx.NodeProto], outputs: dict[str, tuple], weights: dict[str, np.ndarray]) -> ModelProto:
    """A graph of `x`, (1, 4, 3), and what else it needs."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 3))
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "test", [x], results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def heads() -> ModelProto:
    """Features, which are an output and feed two heads: boxes, and something that is no matter of place."""
    nodes = [
        helper.make_node("MatMul", ["x", "to_features"], ["memory_0"], "features"),
        helper.make_node("MatMul", ["memory_0", "to_boxes"], ["deltas"], "regress"),
        helper.make_node("Mul", ["deltas", "step"], ["moved"], "scale"),
        helper.make_node("Add", ["moved", "x"], ["boxes"], "move"),
        helper.make_node("Mul", ["memory_0", "step"], ["heat"], "warm"),
    ]
    rng = np.random.default_rng(0)
    weights = {name: rng.standard_normal((3, 3)).astype(np.float32) for name in ("to_features", "to_boxes")}
    weights["step"] = np.full(3, 0.1, dtype=np.float32)  # no number of fp16
    return model_of(nodes, dict.fromkeys(("memory_0", "boxes", "heat"), (1, 4, 3)), weights)


def types(model: ModelProto) -> dict[str, int]:
    """Node to the type of its first output."""
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    return {node.name: kinds[node.output[0]] for node in graph.node}


def constants(graph: GraphProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def run(model: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, {"x": x})]


def test_features_are_half_and_boxes_are_not(heads: ModelProto) -> None:
    found = types(to_half(heads))
    assert {found[name] for name in ("features", "regress", "warm")} == {TensorProto.FLOAT16}
    assert {found[name] for name in ("scale", "move")} == {TensorProto.FLOAT}


def test_inputs_and_outputs_keep_their_types_and_names(heads: ModelProto) -> None:
    half = to_half(heads)
    assert list(half.graph.input) == list(heads.graph.input)
    assert list(half.graph.output) == list(heads.graph.output)
    check_graph("half.onnx", half)


def test_a_constant_that_both_sides_read_is_rounded_for_one_of_them_only(heads: ModelProto) -> None:
    assert {values.dtype for name, values in constants(to_half(heads).graph).items() if "step" in name} == {
        np.dtype(np.float16),
        np.dtype(np.float32),
    }


def test_weights_take_half_the_room(heads: ModelProto) -> None:
    assert {values.dtype for name, values in constants(to_half(heads).graph).items() if name.startswith("to_")} == {
        np.dtype(np.float16)
    }


def test_results_stay_near(heads: ModelProto) -> None:
    x = np.random.default_rng(1).standard_normal((1, 4, 3)).astype(np.float32)
    for expected, found in zip(run(heads, x), run(to_half(heads), x), strict=True):
        assert 0 < np.abs(expected - found).max() < 5e-3


def test_what_is_ranked_is_exact() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["logits"], "classify"),
        helper.make_node("Sigmoid", ["logits"], ["odds"], "squash"),
        helper.make_node("TopK", ["odds", "k"], ["best", "places"], "rank"),
    ]
    weights = {"weight": np.eye(3, dtype=np.float32), "k": np.array([2])}
    model = model_of(nodes, {"best": (1, 4, 2)}, weights)
    assert exact_nodes(model.graph) == {"squash"}
    assert types(to_half(model))["squash"] == TensorProto.FLOAT


def test_where_to_sample_is_exact_in_both_directions() -> None:
    """Boxes are made from boxes: what is computed from an exact value is no feature until it is multiplied again."""
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["deltas"], "regress"),
        helper.make_node("Add", ["deltas", "x"], ["boxes"], "move"),
        helper.make_node("Exp", ["boxes"], ["sizes"], "widen"),
        helper.make_node("MatMul", ["sizes", "weight"], ["embedding"], "embed"),
    ]
    weights = {"weight": np.eye(3, dtype=np.float32)}
    found = types(to_half(model_of(nodes, dict.fromkeys(("boxes", "embedding"), (1, 4, 3)), weights)))
    assert found["move"] == found["widen"] == TensorProto.FLOAT
    assert found["embed"] == TensorProto.FLOAT16


def test_a_graph_is_written(heads: ModelProto, tmp_path: Path) -> None:
    onnx.save(heads, tmp_path / "fp32.onnx")
    write_half(tmp_path / "fp32.onnx", tmp_path / "fp16.onnx")
    assert types(onnx.load(tmp_path / "fp16.onnx"))["features"] == TensorProto.FLOAT16
