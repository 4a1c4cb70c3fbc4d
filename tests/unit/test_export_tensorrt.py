"""TensorRT engines: what the parser and the builder take, what the cache keeps, and what an error says.

The library without a GPU is TensorRT-RTX, whose parser and builder need none. What runs an engine is tested on a GPU.
"""

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx.parser
import onnxruntime as ort
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper
from tqdm import tqdm

import export.engines.build as building
from engine_key import BUILT, KEY
from export.engines.build import Built, build_engine
from export.engines.cache import EngineCache
from export.engines.command import BATCH, add_engines, build_engines, run_engines
from export.engines.graph import for_tensorrt
from export.engines.library import EngineError, EnginePrecision, TensorRT, load_tensorrt
from export.engines.profile import Profile, Range, refuse_outside
from export.engines.run import Engine
from export.engines.sampling import BILINEAR
from export.manifest import FP32, Card, FileSpec, Manifest, describe
from export.runtime import OnnxRunner
from model.checkpoint import save_detector
from model.config import DetectorConfig, QueryConfig
from model.detector import Detector

ROOT = Path(__file__).parents[2]
SHIPPED = max((ROOT / "service" / "models").glob("*/*/model.json"), key=lambda path: int(path.parent.name)).parent
SHIPPED_GRAPHS = sorted(path.name for role in ("encoder", "decoder") for path in SHIPPED.glob(f"{role}*.onnx"))
ENCODER = """<ir_version: 10, opset_import: ["": 18]>
encoder (uint8[B, 3, H, W] images) => (float[B, 3, h, w] density) {
    values = Cast <to: int = 1> (images)
    density = AveragePool <kernel_shape: ints = [8, 8], strides: ints = [8, 8]> (values)
}"""
DECODER = """<ir_version: 10, opset_import: ["": 18]>
decoder (
    float[B, 16, h0, w0] memory_0, float[B, 16, h1, w1] memory_1, float[B, 16, h2, w2] memory_2,
    float[B, K, 16] queries, float[B, K, 4] reference_boxes, bool[B, K] valid
) => (float[B, K, 4] boxes, float[B, K, 16] scores) {
    mean_0 = GlobalAveragePool (memory_0)
    mean_1 = GlobalAveragePool (memory_1)
    mean_2 = GlobalAveragePool (memory_2)
    mean = Sum (mean_0, mean_1, mean_2)
    row = Constant <value_ints: ints = [0, 1, 16]> ()
    context = Reshape (mean, row)
    logits = Add (queries, context)
    scores = Sigmoid (logits)
    known = Cast <to: int = 1> (valid)
    last = Constant <value_ints: ints = [2]> ()
    column = Unsqueeze (known, last)
    boxes = Mul (reference_boxes, column)
}"""


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    pytest.importorskip("tensorrt_rtx_bindings", reason="tensorrt-rtx is not installed")
    return load_tensorrt("tensorrt-rtx")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder as far as engines need it: the graphs have the contract's inputs and hardly anything inside."""
    config = DetectorConfig(classes=("ship", "vehicle"), width=16, query=QueryConfig(k_min=3, k_max=40))
    detector = Detector(config)
    checkpoint, folder = tmp_path_factory.mktemp("checkpoint"), tmp_path_factory.mktemp("tiny")
    save_detector(checkpoint, config, detector.state_dict())
    for name, text in (("encoder.onnx", ENCODER), ("decoder.onnx", DECODER)):
        onnx.save(onnx.parser.parse_model(text), folder / name)
    files = {name: FileSpec.of(folder / name) for name in ("encoder.onnx", "decoder.onnx")}
    manifest = describe(detector, checkpoint, "tiny", "1", 64, Card()).model_copy(update={"files": files})
    (folder / "model.json").write_text(manifest.model_dump_json(), encoding="utf-8")
    return folder


@pytest.fixture
def manifest(folder: Path) -> Manifest:
    return Manifest.model_validate_json((folder / "model.json").read_text(encoding="utf-8"))


@pytest.fixture
def build_graph(rtx: TensorRT) -> Callable[..., Built]:
    """Builds a graph whose inputs have fixed shapes."""

    def build(graph: ModelProto, precision: EnginePrecision = "fp32") -> Built:
        return build_engine(rtx, graph.SerializeToString(), {}, precision, title="a.onnx")

    return build


def graph_of(nodes: list[onnx.NodeProto], *weights: TensorProto) -> ModelProto:
    """A graph from `x` to `y`, both (1, 4, 8, 8)."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 4, 8, 8)) for name in "xy")
    graph = helper.make_graph(nodes, "test", [x], [y], weights)
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def outputs_of(graph: ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def quantised_convolution() -> ModelProto:
    """A convolution as ONNX Runtime quantises it: uint8 around 7, int8 kernels per channel, an int32 bias."""
    rng = np.random.default_rng(0)
    constants = {
        "x_scale": np.float32(0.05),
        "x_zero": np.uint8(7),
        "kernel": rng.integers(-127, 128, (4, 4, 3, 3)).astype(np.int8),
        "kernel_scale": np.geomspace(0.001, 0.01, 4).astype(np.float32),
        "kernel_zero": np.zeros(4, np.int8),
        "bias": rng.integers(-1000, 1000, 4).astype(np.int32),
        "bias_scale": (0.05 * np.geomspace(0.001, 0.01, 4)).astype(np.float32),
        "bias_zero": np.zeros(4, np.int32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "x_scale", "x_zero"], ["x_q"]),
        helper.make_node("DequantizeLinear", ["x_q", "x_scale", "x_zero"], ["x_d"]),
        helper.make_node("DequantizeLinear", ["kernel", "kernel_scale", "kernel_zero"], ["kernel_d"], axis=0),
        helper.make_node("DequantizeLinear", ["bias", "bias_scale", "bias_zero"], ["bias_d"], "bias_node", axis=0),
        helper.make_node("Conv", ["x_d", "kernel_d", "bias_d"], ["y"], pads=[1, 1, 1, 1]),
    ]
    return graph_of(nodes, *(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()))


# The library


def test_an_absent_library_is_told_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"tensorrt is not installed .*NVIDIA GPU.*\[export,tensorrt\]"):
        load_tensorrt()


def test_tensorrt_without_a_gpu_is_told_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EngineError, match="--library tensorrt-rtx"):
        TensorRT("tensorrt", module=None).gpu()


# Sizes


def test_a_profile_takes_queries_and_canvas_from_the_model(manifest: Manifest) -> None:
    profile = Profile.of(manifest, BATCH)
    assert (profile.queries, profile.side) == (Range(3, 3, 40), Range(64, 64, 64))


def test_a_canvas_with_fewer_tokens_than_queries_limits_them(manifest: Manifest) -> None:
    assert Profile.of(manifest, BATCH, side=Range(32, 32, 32)).queries == Range(3, 3, 16 + 4 + 1)


def test_inputs_get_their_shapes_by_name(folder: Path, manifest: Manifest) -> None:
    profile = Profile.of(manifest, Range(1, 2, 4), typical_queries=10, side=Range(32, 64, 128))
    shapes = profile.shapes(onnx.load(folder / "decoder.onnx"))
    assert shapes["memory_1"] == ((1, 16, 2, 2), (2, 16, 4, 4), (4, 16, 8, 8))
    assert shapes["queries"] == ((1, 3, 16), (2, 10, 16), (4, 40, 16))
    assert shapes["valid"] == ((1, 3), (2, 10), (4, 40))


@pytest.mark.parametrize("sizes", [(0, 1, 1), (2, 1, 3), (1, 5, 4)])
def test_sizes_out_of_order_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="smallest, typical, largest"):
        Range(*sizes)


def test_a_canvas_off_the_stride_is_refused(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="100 is not a multiple of the largest stride 32"):
        Profile.of(manifest, BATCH, side=Range(64, 64, 100))


def test_queries_that_the_model_never_decodes_are_refused(manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="41 queries: the model decodes 3 to 40"):
        Profile.of(manifest, BATCH, typical_queries=41)


# Parser and builder


@pytest.mark.parametrize("file", SHIPPED_GRAPHS)
def test_the_shipped_graphs_parse_and_build(rtx: TensorRT, file: str) -> None:
    described = json.loads((SHIPPED / "model.json").read_text(encoding="utf-8"))
    size, query = described["input"]["size"], described["query"]
    queries = Range(query["k_min"], query["k_min"], query["k_max"])
    profile = Profile(BATCH, queries, Range(size, size, size), tuple(described["strides"]))
    graph = for_tensorrt(onnx.load(SHIPPED / file))
    built = build_engine(rtx, graph.SerializeToString(), profile.shapes(graph), "fp32", title=file)
    assert len(built.engine) > 1_000_000


def test_both_graphs_build_for_a_range_of_canvases(
    rtx: TensorRT, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    profile = Profile.of(manifest, Range(1, 2, 4), side=Range(32, 64, 128))
    engines = build_engines(folder, manifest, "fp32", tmp_path, profile, library="tensorrt-rtx")
    assert {role: path.exists() for role, path in engines.items()} == {"encoder": True, "decoder": True}


def test_an_operator_that_tensorrt_lacks_is_named(build_graph: Callable[..., Built]) -> None:
    graph = graph_of([helper.make_node("Strange", ["x"], ["y"], "odd_one", domain="com.microsoft")])
    with pytest.raises(EngineError, match=r"a\.onnx: tensorrt-rtx .* cannot parse node 'odd_one' \(Strange\)"):
        build_graph(graph)


def test_a_file_that_is_no_graph_is_refused(rtx: TensorRT) -> None:
    with pytest.raises(EngineError, match=r"a\.onnx: .* cannot parse the file"):
        build_engine(rtx, b"not a graph", {}, "fp32", title="a.onnx")


def test_a_profile_outside_the_graph_is_told_the_reason(rtx: TensorRT) -> None:
    graph = graph_of([helper.make_node("Relu", ["x"], ["y"])])
    graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "B"
    graph.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "B"
    wrong = (1, 5, 8, 8)
    with pytest.raises(EngineError, match=r"cannot build it: \w+"):
        build_engine(rtx, graph.SerializeToString(), {"x": (wrong, wrong, wrong)}, "fp32", title="a.onnx")


def test_bf16_without_weak_typing_is_told_the_way_out(build_graph: Callable[..., Built]) -> None:
    with pytest.raises(EngineError, match=r"--precision fp16, or TensorRT 10"):
        build_graph(graph_of([helper.make_node("Relu", ["x"], ["y"])]), "bf16")


def test_what_tensorrt_says_is_logged(build_graph: Callable[..., Built], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="heatquery.tensorrt")
    build_graph(graph_of([helper.make_node("Relu", ["x"], ["y"])]))
    assert any("network tensors" in record.message for record in caplog.records)


def test_interrupting_a_build_leaves_nothing(
    rtx: TensorRT, folder: Path, manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tqdm, "update", lambda *_: signal.raise_signal(signal.SIGINT))
    inherited = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        with pytest.raises(KeyboardInterrupt):
            build_engines(folder, manifest, "fp32", tmp_path, Profile.of(manifest, BATCH), library="tensorrt-rtx")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, inherited)
    assert not list(tmp_path.iterdir())


def test_timings_of_another_gpu_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Config:
        taken: bytes

        def create_timing_cache(self, content: bytes) -> bytes:
            return content

        def set_timing_cache(self, timings: bytes, ignore_mismatch: bool) -> bool:
            self.taken = timings
            return not timings and not ignore_mismatch

    path, config = tmp_path / "timing.cache", Config()
    path.write_bytes(b"of another GPU")
    building._read_timings(config, path)
    assert config.taken == b""
    assert "timed anew" in caplog.text


# int8


def test_a_graph_quantised_for_the_cpu_builds_when_rewritten(build_graph: Callable[..., Built]) -> None:
    with pytest.raises(EngineError, match="zero point"):
        build_graph(quantised_convolution())
    assert build_graph(for_tensorrt(quantised_convolution()), "int8").engine


def test_a_rewritten_graph_stays_within_its_coarser_step() -> None:
    graph = quantised_convolution()
    x = np.random.default_rng(1).uniform(-0.3, 12, (1, 4, 8, 8)).astype(np.float32)
    kernel = 127 * 0.01 * 4 * 9  # the largest weights that a value can meet
    found, expected = outputs_of(for_tensorrt(graph), x), outputs_of(graph, x)
    assert np.abs(found - expected).max() < kernel * 12.4 / 127
    assert np.abs(found - expected).mean() < 0.05 * np.abs(expected).mean()


def test_silu_by_another_name_is_written_out(build_graph: Callable[..., Built]) -> None:
    graph = graph_of([helper.make_node("QuickGelu", ["x"], ["y"], "silu", domain="com.microsoft", alpha=1.0)])
    x = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(outputs_of(for_tensorrt(graph), x), outputs_of(graph, x), atol=1e-6)
    assert build_graph(for_tensorrt(graph)).engine


def test_a_graph_in_float_is_not_rewritten(folder: Path) -> None:
    graph = onnx.load(folder / "encoder.onnx")
    assert for_tensorrt(graph) == graph


# Sampling


def sampling(**attributes: Any) -> ModelProto:
    """Any values at any places."""
    ends = "(float[N, C, H, W] x, float[N, P, Q, 2] places) => (float[N, C, P, Q] y)"
    graph = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 18]> test {ends} {{ y = Identity (x) }}')
    graph.graph.node[0].CopyFrom(helper.make_node("GridSample", ["x", "places"], ["y"], "sampler", **attributes))
    return graph


def test_sampling_written_out_gives_the_same() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 5, 7, 9)).astype(np.float32)
    places = rng.uniform(-1.5, 1.5, (3, 11, 4, 2)).astype(np.float32)
    places[0, :3, 0] = [(-1, -1), (1, 1), (-100, 100)]  # corners, and far outside
    native, written = (
        np.asarray(ort.InferenceSession(graph.SerializeToString()).run(None, {"x": x, "places": places})[0])
        for graph in (sampling(**BILINEAR), for_tensorrt(sampling(**BILINEAR)))
    )
    np.testing.assert_allclose(written, native, atol=1e-5)


def test_no_shipped_graph_samples_by_tensorrt() -> None:
    for file in SHIPPED_GRAPHS:
        nodes = for_tensorrt(onnx.load(SHIPPED / file)).graph.node
        assert not [node.name for node in nodes if node.op_type == "GridSample"]
        assert any(node.op_type == "GatherND" for node in nodes)


def test_sampling_of_another_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'sampler' samples with .*nearest"):
        for_tensorrt(sampling(mode="nearest", padding_mode="zeros", align_corners=0))


# The command


def run_command(*arguments: object) -> dict[str, Path]:
    root = argparse.ArgumentParser()
    add_engines(root.add_subparsers())
    return run_engines(root.parse_args(["engines", *map(str, arguments)]))


def test_the_command_builds_both_and_finds_them_again(
    rtx: TensorRT, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = folder, "--cache", tmp_path / "cache", "--library", "tensorrt-rtx", "--batch", 1, 1, 2
    engines = run_command(*arguments)
    assert "MiB of memory" in capsys.readouterr().out
    assert run_command(*arguments) == engines
    assert capsys.readouterr().out.count("was there") == 2
    record = json.loads(engines["decoder"].with_suffix(".json").read_text(encoding="utf-8"))
    assert record["key"]["shapes"]["queries"] == [[1, 3, 16], [1, 3, 16], [2, 40, 16]]


def test_a_graph_that_precisions_share_is_built_once(
    rtx: TensorRT, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    shared = manifest.model_copy(update={"graphs": {"fp32": FP32, "int8": FP32}})
    profile = Profile.of(manifest, BATCH)
    engines = [
        build_engines(folder, shared, precision, tmp_path, profile, library="tensorrt-rtx")
        for precision in ("fp32", "int8")
    ]
    assert engines[0] == engines[1]


def test_a_precision_that_the_folder_lacks_is_refused(rtx: TensorRT, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="graphs in fp32, not in int8"):
        run_command(folder, "--cache", tmp_path, "--library", "tensorrt-rtx", "--precision", "int8")


def test_a_graph_that_changed_since_export_is_refused(
    rtx: TensorRT, folder: Path, manifest: Manifest, tmp_path: Path
) -> None:
    for name in ("encoder.onnx", "decoder.onnx"):
        (tmp_path / name).write_bytes((folder / name).read_bytes() + b"\n")
    with pytest.raises(ValueError, match="does not have the sha256"):
        build_engines(tmp_path, manifest, "fp32", tmp_path, Profile.of(manifest, BATCH), library="tensorrt-rtx")


# Running


@pytest.mark.parametrize(
    ("shape", "complaint"),
    [
        ((5, 3, 64, 64), r"from \(1, 3, 64, 64\) to \(4, 3, 64, 64\), not \(5, 3, 64, 64\)"),
        ((1, 3, 32, 64), "not"),
        ((3, 64, 64), "not"),
    ],
)
def test_shapes_outside_the_engine_are_told_its_range(shape: tuple[int, ...], complaint: str) -> None:
    refuse_outside(KEY.shapes, {"images": (2, 3, 64, 64)})
    with pytest.raises(ValueError, match=complaint):
        refuse_outside(KEY.shapes, {"images": shape})


def test_an_input_that_the_engine_lacks_is_named() -> None:
    with pytest.raises(ValueError, match=r"takes \['images'\], not \['pictures'\]"):
        refuse_outside(KEY.shapes, {"pictures": (1, 3, 64, 64)})


def test_an_engine_without_a_gpu_is_told_so(rtx: TensorRT, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    key = KEY.model_copy(update={"library": "tensorrt-rtx", "version": rtx.version})
    with pytest.raises(EngineError, match="runs on NVIDIA L4, and torch finds no GPU"):
        Engine(EngineCache(tmp_path).put(key, BUILT))


def test_an_engine_of_another_version_is_refused(rtx: TensorRT, tmp_path: Path) -> None:
    key = KEY.model_copy(update={"library": "tensorrt-rtx", "version": "1.0"})
    with pytest.raises(EngineError, match=r"built with tensorrt-rtx 1\.0.* build it again"):
        Engine(EngineCache(tmp_path).put(key, BUILT))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU, to run what was built")
def test_an_engine_gives_what_onnxruntime_gives(folder: Path, manifest: Manifest, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt", reason="needs the extra `tensorrt`")
    engines = build_engines(folder, manifest, "fp32", tmp_path, Profile.of(manifest, BATCH))
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 64, 64)).astype(np.uint8)
    images = np.repeat(picture, 3, axis=0)
    found = Engine(engines["encoder"]).run({"images": images})["density"]
    expected = OnnxRunner(folder / "encoder.onnx").run({"images": images})["density"]
    np.testing.assert_allclose(found, expected, atol=1e-3)
