"""The encoder in int8: which convolutions are quantised, on what grounds, and what is left of the detections."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from export.calibration import activation_ranges
from export.matching import Detections
from export.onnx_graph import check_graph
from export.pictures import Canvas, synthetic_canvases
from export.quantization import (
    FEWEST_PICTURES,
    convolutions_by_module,
    fuse_silu,
    module_of,
    quantize,
    with_int8,
)
from export.sensitivity import Judge, agreement, choose

SIDE = 32
CELLS = (SIDE // 4) ** 2


def model_of(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple],
    outputs: dict[str, tuple],
    weights: dict[str, np.ndarray],
    kind: int = TensorProto.FLOAT,
) -> ModelProto:
    """A graph with inputs of a type, and outputs in float."""
    given = [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()]
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    tensors = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "test", given, made, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def silu(x: str, y: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Sigmoid", [x], [f"{y}_odds"]), helper.make_node("Mul", [x, f"{y}_odds"], [y], y)]


def small_encoder() -> ModelProto:
    """Stem, a convolution with a residual, a head; a query per cell."""
    rng = np.random.default_rng(0)
    stem, first, head = (
        (f"detector.{name}.weight", rng.standard_normal(shape).astype(np.float32) * 0.2)
        for name, shape in (
            ("backbone.stem.0", (16, 3, 3, 3)),
            ("backbone.stages.0.0.0", (16, 16, 3, 3)),
            ("encoder.laterals.0.0", (16, 16, 1, 1)),
        )
    )
    y, x = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    corners = np.stack([x, y], -1).reshape(1, CELLS, 2) / 8
    boxes = np.concatenate([corners, corners + 1 / 8], -1).astype(np.float32)  # xyxy: this decoder only scales them
    nodes = [
        helper.make_node("Cast", ["images"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["wide", "scale"], ["pixels"]),
        helper.make_node("Conv", ["pixels", stem[0]], ["a"], "stem", strides=[2, 2], pads=[1, 1, 1, 1]),
        *silu("a", "b"),
        helper.make_node("Conv", ["b", first[0]], ["c"], "block", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["residual"], "residual"),
        *silu("residual", "d"),
        helper.make_node("Conv", ["d", head[0]], ["memory_0"], "lateral", strides=[2, 2]),
        helper.make_node("Reshape", ["memory_0", "rows"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["queries"], perm=[0, 2, 1]),
        helper.make_node("Identity", ["boxes"], ["reference_boxes"]),
    ]
    weights = dict([stem, first, head]) | {
        "scale": np.array(1 / 255, dtype=np.float32),
        "rows": np.array([1, 16, CELLS]),
        "boxes": boxes,
    }
    outputs = {"memory_0": (1, 16, 8, 8), "queries": (1, CELLS, 16), "reference_boxes": (1, CELLS, 4)}
    model = model_of(nodes, {"images": (1, 3, SIDE, SIDE)}, outputs, weights, TensorProto.UINT8)
    model.producer_name = "heatquery"
    helper.set_model_props(model, {"name": "small"})
    return model


def small_decoder(bias: float) -> ModelProto:
    """Two classes and a box per query; the bias says how much is found."""
    nodes = [
        helper.make_node("MatMul", ["queries", "classify"], ["products"]),
        helper.make_node("Add", ["products", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Mul", ["reference_boxes", "side"], ["boxes"]),
    ]
    weights = {
        "classify": np.random.default_rng(1).standard_normal((16, 2)).astype(np.float32),
        "bias": np.array(bias, dtype=np.float32),
        "side": np.array(SIDE, dtype=np.float32),
    }
    inputs = {"memory_0": (1, 16, 8, 8), "queries": (1, "K", 16), "reference_boxes": (1, "K", 4)}
    model = model_of(nodes, inputs, {"boxes": (1, "K", 4), "scores": (1, "K", 2)}, weights)
    model.graph.input.append(helper.make_tensor_value_info("valid", TensorProto.BOOL, (1, "K")))
    return model


@pytest.fixture
def canvases() -> list[Canvas]:
    return synthetic_canvases(SIDE, 114, FEWEST_PICTURES)


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    onnx.save(small_encoder(), tmp_path / "encoder.onnx")
    return tmp_path / "encoder.onnx"


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    onnx.save(small_decoder(bias=-1.0), tmp_path / "decoder.onnx")
    return tmp_path / "decoder.onnx"


def run(model: ModelProto, feed: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, feed)[0])


def in_int8(nodes: Collection[str], canvases: list[Canvas], scratch: Path) -> ModelProto:
    model = fuse_silu(small_encoder())
    return with_int8(model, nodes, activation_ranges(model, canvases, scratch, lambda: None))


def test_the_int8_encoder_finds_the_same(encoder: Path, decoder: Path, canvases: list[Canvas], tmp_path: Path) -> None:
    report = quantize(encoder, decoder, tmp_path / "int8.onnx", canvases)
    assert report.kept_in_float == ()
    assert 0 < report.damage <= report.limit
    assert Judge(encoder, decoder, canvases).damage(tmp_path / "int8.onnx") == pytest.approx(report.damage, abs=0.01)


def test_the_int8_file_is_sound_and_says_what_the_other_says(
    encoder: Path, decoder: Path, canvases: list[Canvas], tmp_path: Path
) -> None:
    quantize(encoder, decoder, tmp_path / "int8.onnx", canvases)
    model = onnx.load(tmp_path / "int8.onnx")
    check_graph("int8.onnx", model)
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("name", "small")]
    assert model.producer_name == "heatquery"
    assert [output.name for output in model.graph.output] == ["memory_0", "queries", "reference_boxes"]


def test_quantising_twice_gives_the_same_bytes(
    encoder: Path, decoder: Path, canvases: list[Canvas], tmp_path: Path
) -> None:
    for name in ("first.onnx", "second.onnx"):
        quantize(encoder, decoder, tmp_path / name, canvases)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_the_report_can_be_read_and_written(
    encoder: Path, decoder: Path, canvases: list[Canvas], tmp_path: Path
) -> None:
    report = quantize(encoder, decoder, tmp_path / "int8.onnx", canvases)
    assert "| backbone.stages.0 | 1 |" in report.table()
    assert type(report).model_validate_json(report.model_dump_json()) == report


def test_too_few_pictures_are_refused(encoder: Path, decoder: Path, canvases: list[Canvas], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibrated on 2 pictures, and needs 8"):
        quantize(encoder, decoder, tmp_path / "int8.onnx", canvases[:2])


def test_pictures_on_which_nothing_is_found_are_refused(encoder: Path, canvases: list[Canvas], tmp_path: Path) -> None:
    onnx.save(small_decoder(bias=-50.0), tmp_path / "decoder.onnx")
    with pytest.raises(ValueError, match=r"finds nothing above a score of 0\.1"):
        quantize(encoder, tmp_path / "decoder.onnx", tmp_path / "int8.onnx", canvases)
    assert not (tmp_path / "int8.onnx").exists()


def test_convolutions_are_grouped_by_module_and_the_stem_stays_out() -> None:
    assert convolutions_by_module(small_encoder()) == {"backbone.stages.0": ["block"], "encoder.laterals": ["lateral"]}


@pytest.mark.parametrize(
    ("weights", "module"),
    [
        (["detector.backbone.stages.2.1.first.0.weight", "val_3"], "backbone.stages.2"),
        (["detector.encoder.heat.1.classify.weight"], "encoder.heat"),
        (["detector.density_head.layers.0.weight"], "density_head.layers"),
        (["split_4", "detector.encoder.downward.1.deep.0.bias"], "encoder.downward"),
        (["val_17"], None),
    ],
)
def test_weights_tell_their_module(weights: list[str], module: str | None) -> None:
    assert module_of(weights) == module


def test_a_folded_kernel_goes_with_its_neighbours() -> None:
    model = small_encoder()
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = name.replace("detector.encoder.laterals.0.0.weight", "folded")
    for tensor in model.graph.initializer:
        tensor.name = tensor.name.replace("detector.encoder.laterals.0.0.weight", "folded")
    groups = {"backbone.stages.0": ["block"], "near backbone.stages.0": ["lateral"]}
    assert convolutions_by_module(model) == groups


def test_only_the_chosen_convolutions_are_quantised(canvases: list[Canvas], tmp_path: Path) -> None:
    model = in_int8(["block"], canvases, tmp_path)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer if "weight" in tensor.name}
    assert kinds["detector.backbone.stages.0.0.0.weight_quantized"] == TensorProto.INT8
    assert kinds["detector.encoder.laterals.0.0.weight"] == TensorProto.FLOAT


def test_kernels_have_a_scale_per_channel(canvases: list[Canvas], tmp_path: Path) -> None:
    constants = {tensor.name: tensor for tensor in in_int8(["block"], canvases, tmp_path).graph.initializer}
    assert list(constants["detector.backbone.stages.0.0.0.weight_scale"].dims) == [16]


def test_a_residual_is_added_in_full_precision(canvases: list[Canvas], tmp_path: Path) -> None:
    nodes = {node.name: node for node in in_int8(["block"], canvases, tmp_path).graph.node}
    assert nodes["residual"].input[0] == "b"
    assert nodes["block"].input[0] != "b"


def test_silu_becomes_one_node_with_the_same_result() -> None:
    plain = model_of(silu("x", "y"), {"x": (2, 3)}, {"y": (2, 3)}, {})
    x = np.random.default_rng(2).standard_normal((2, 3)).astype(np.float32)
    before = run(plain, {"x": x})
    assert [node.op_type for node in fuse_silu(plain).graph.node] == ["QuickGelu"]
    np.testing.assert_allclose(run(plain, {"x": x}), before, atol=1e-6)


def test_a_gate_of_something_else_is_no_silu() -> None:
    nodes = [helper.make_node("Sigmoid", ["x"], ["odds"]), helper.make_node("Mul", ["odds", "z"], ["y"])]
    model = model_of(nodes, {"x": (2, 3), "z": (2, 3)}, {"y": (2, 3)}, {})
    assert [node.op_type for node in fuse_silu(model).graph.node] == ["Sigmoid", "Mul"]


def additive(nodes: Collection[str]) -> float:
    """Each node does the damage that its name says, in percent."""
    return sum(int(node) for node in nodes) / 100


def test_the_most_harmful_parts_stay_in_float() -> None:
    lines, damage = choose({"a": ["1"], "b": ["4", "3"], "c": ["2"]}, additive, 0.04, lambda: None)
    assert {line.group: line.kept_in_float for line in lines} == {"a": False, "b": True, "c": False}
    assert damage == pytest.approx(0.03)


def test_within_the_limit_everything_is_quantised() -> None:
    lines, _ = choose({"a": ["1"], "b": ["4"]}, additive, 0.05, lambda: None)
    assert not any(line.kept_in_float for line in lines)


def test_a_network_that_does_not_survive_int8_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the mildest, a, has 0\.1"):
        choose({"a": ["10"], "b": ["40"]}, additive, 0.05, lambda: None)


def detections(*rows: tuple[float, float, int]) -> Detections:
    """(left edge, score, label) of boxes of 10 x 10."""
    boxes = np.array([[left, 0, left + 10, 10] for left, _, _ in rows], dtype=np.float32).reshape(-1, 4)
    scores, labels = ([row[i] for row in rows] for i in (1, 2))
    return Detections(boxes, np.array(scores, dtype=np.float32), np.array(labels, dtype=np.int64))


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        ((0, 0.8, 1), 1.0),
        ((0, 0.4, 1), 0.5),  # half as sure
        ((5, 0.8, 1), 1 / 3),  # half beside it
        ((0, 0.8, 2), 0.0),  # of another class
    ],
)
def test_agreement_is_overlap_times_ratio_of_scores(other: tuple[float, float, int], expected: float) -> None:
    assert agreement(detections((0, 0.8, 1)), detections(other)) == pytest.approx([expected], abs=1e-5)


def test_nothing_agrees_with_an_empty_picture() -> None:
    assert agreement(detections((0, 0.8, 1)), detections()).tolist() == [0.0]
