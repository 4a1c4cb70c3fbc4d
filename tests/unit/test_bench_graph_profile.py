"""The profile of a graph of two nodes, and what it makes of the profiler's events."""

from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import ModelProto, numpy_helper

from benchmarks.graph_profile import modules, node_times, profile, report


@pytest.fixture
def model() -> ModelProto:
    """y = sin(x W), with the weights of a module."""
    text = '<ir_version: 10, opset_import: ["" : 18]> g (float[2, 3] x) => (float[2, 4] y) '
    model = onnx.parser.parse_model(text + "{ [product] h = MatMul(x, w) [wave] y = Sin(h) }")
    weight = numpy_helper.from_array(np.ones((3, 4), dtype=np.float32), "detector.decoder.head.weight")
    model.graph.initializer.append(weight)
    model.graph.node[0].input[1] = weight.name
    return model


def event(microseconds: int, node: str = "7", name: str = "conv_nchwc_kernel_time") -> dict:
    shapes = {"input_type_shape": [{"float": [1, 2]}, {"float": []}], "output_type_shape": [{"float": [3]}]}
    return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": "Conv", "node_index": node, **shapes}}


def test_a_node_belongs_to_the_module_of_its_weights_or_comes_after_it(model: ModelProto) -> None:
    expected = {"product": "decoder.head", "h": "decoder.head", "wave": "< decoder.head", "y": "< decoder.head"}
    assert modules(model.graph) == expected


def test_the_quickest_round_counts_and_the_dearest_node_comes_first() -> None:
    others = [{"cat": "Session", "name": "run", "dur": 9}, event(9, name="conv_fence_before")]
    dearer = event(3000, node="8", name="other_kernel_time")
    times = node_times([event(2000), *others, event(1000), dearer], {"conv": "encoder.stem"})
    assert [(time.milliseconds, time.module) for time in times] == [(3.0, ""), (1.0, "encoder.stem")]
    assert times[1].shapes == "1x2 () -> 3"


def test_a_graph_is_run_and_every_node_is_reported(model: ModelProto, tmp_path: Path) -> None:
    onnx.save(model, tmp_path / "a.onnx")
    times, outputs = profile(tmp_path / "a.onnx", {"x": np.ones((2, 3), dtype=np.float32)}, rounds=2)
    np.testing.assert_allclose(outputs["y"], np.sin(3), atol=1e-6)
    assert {time.kind for time in times} == {"MatMul", "Sin"}
    text = report("a.onnx", times, dearest=1)
    assert "in 2 nodes" in text
    assert text.count("decoder.head") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
