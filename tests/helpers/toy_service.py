"""A model folder that means something without any training, and clients of the service that use it.

The model sees one thing: how red or how blue a 32 px square of the canvas is. Its outputs have the names and
shapes of real exported graphs, so a red square at a known place must come back as a box at that place.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import uvicorn
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.app import create_app
from service.server import listen, uvicorn_config
from service.settings import Settings

SIDE, STRIDES, CLASSES = 160, (8, 16, 32), ("red square", "blue square")
K_MIN, K_MAX = 4, 16


def _constant(name: str, values: object, dtype: type) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(values, dtype=dtype), name)


def _node(kind: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, outputs, **attributes)  # pyright: ignore[reportArgumentType]


def _float(name: str, *shape: int | str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _finish(graph: onnx.GraphProto) -> bytes:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def build_encoder() -> bytes:
    """Colourfulness of cells as class heat; the 32 px cells are the proposals."""
    red_minus_rest = [[[[1.0]], [[-1.0]], [[-1.0]]], [[[-1.0]], [[-1.0]], [[1.0]]]]  # (2, 3, 1, 1)
    nodes = [
        _node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        _node("Div", ["pixels", "full"], ["unit"]),
        _node("Conv", ["unit", "color_weights"], ["colorful"]),
        _node("Clip", ["colorful", "zero", "one"], ["class_pixels"]),
    ]
    outputs: dict[str, onnx.ValueInfoProto] = {}
    for level, stride in enumerate(STRIDES):
        size = {"kernel_shape": [stride, stride], "strides": [stride, stride]}
        nodes += [
            _node("AveragePool", ["class_pixels"], [f"class_heat_{level}"], **size),
            _node("Concat", [f"class_heat_{level}"] * 2, [f"memory_{level}"], axis=1),
            _node("ReduceMax", [f"class_heat_{level}", "channel_axis"], [f"hottest_{level}"], keepdims=1),
            _node("Mul", [f"hottest_{level}", "half"], [f"box_heat_{level}"]),
            _node("Greater", [f"hottest_{level}", "half"], [f"is_hot_{level}"]),
            _node("Cast", [f"is_hot_{level}"], [f"mask_{level}"], to=TensorProto.FLOAT),
            _node(
                "Concat",
                [f"hottest_{level}", f"box_heat_{level}", f"hottest_{level}", f"mask_{level}"],
                [f"heat_{level}"],
                axis=1,
            ),
        ]
        cells = (f"h{level}", f"w{level}")
        outputs[f"memory_{level}"] = _float(f"memory_{level}", "B", 4, *cells)
        outputs[f"class_heat_{level}"] = _float(f"class_heat_{level}", "B", 2, *cells)
        outputs[f"heat_{level}"] = _float(f"heat_{level}", "B", 4, *cells)
    nodes += [
        _node("Div", ["hottest_0", "cells_per_square"], ["density"]),
        _node("ReduceSum", ["density", "all_but_batch"], ["count"], keepdims=0),
        *_proposal_nodes(),
    ]
    outputs["queries"] = _float("queries", "B", "k", 4)
    outputs["reference_boxes"] = _float("reference_boxes", "B", "k", 4)
    outputs["count"] = _float("count", "B")
    outputs["density"] = _float("density", "B", 1, "h0", "w0")
    order = ["memory", "queries", "reference_boxes", "count", "density", "class_heat", "heat"]
    names = sorted(outputs, key=lambda name: (order.index(name.rstrip("_012")), name))
    constants = [
        _constant("full", 255.0, np.float32),
        _constant("zero", 0.0, np.float32),
        _constant("one", 1.0, np.float32),
        _constant("half", 0.5, np.float32),
        _constant("color_weights", red_minus_rest, np.float32),
        _constant("channel_axis", [1], np.int64),
        _constant("all_but_batch", [1, 2, 3], np.int64),
        _constant("cells_per_square", 16.0, np.float32),
        _constant("k_max", [K_MAX], np.int64),
        _constant("tokens_shape", [0, 4, -1], np.int64),
        _constant("scores_shape", [0, -1], np.int64),
        _constant("last_axis", [2], np.int64),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ("B", 3, "H", "W"))
    return _finish(helper.make_graph(nodes, "encoder", [images], [outputs[name] for name in names], constants))


def _box_nodes() -> list[onnx.NodeProto]:
    """(B, k, 4) cxcywh of the chosen 32 px cells, in fractions of the canvas, whatever its sides."""
    centres = [
        node
        for axis, cells, place in (("x", "columns", "column"), ("y", "rows", "row"))
        for node in (
            _node("Cast", [cells], [f"{cells}_float"], to=TensorProto.FLOAT),
            _node("Cast", [place], [f"{place}_float"], to=TensorProto.FLOAT),
            _node("Add", [f"{place}_float", "half"], [f"{place}_centre"]),
            _node("Div", [f"{place}_centre", f"{cells}_float"], [f"centre_{axis}"]),
            _node("Reciprocal", [f"{cells}_float"], [f"side_{axis}"]),
            _node("Mul", [f"centre_{axis}", "zero"], [f"nothing_{axis}"]),
            _node("Add", [f"nothing_{axis}", f"side_{axis}"], [f"sides_{axis}"]),  # (B, k)
        )
    ]
    parts = ["centre_x", "centre_y", "sides_x", "sides_y"]
    return [
        _node("Div", ["top", "columns"], ["row"]),
        _node("Mod", ["top", "columns"], ["column"]),
        *centres,
        *(_node("Unsqueeze", [part, "last_axis"], [f"{part}_last"]) for part in parts),
        _node("Concat", [f"{part}_last" for part in parts], ["reference_boxes"], axis=2),
    ]


def _proposal_nodes() -> list[onnx.NodeProto]:
    return [
        _node("Reshape", ["hottest_2", "scores_shape"], ["token_scores"]),  # (B, N)
        _node("Shape", ["hottest_2"], ["rows"], start=2, end=3),
        _node("Shape", ["hottest_2"], ["columns"], start=3, end=4),
        _node("Mul", ["rows", "columns"], ["cells"]),
        _node("Min", ["cells", "k_max"], ["k"]),
        _node("TopK", ["token_scores", "k"], ["top_scores", "top"]),
        _node("Reshape", ["memory_2", "tokens_shape"], ["tokens_last"]),  # (B, 4, N)
        _node("Transpose", ["tokens_last"], ["tokens"], perm=[0, 2, 1]),
        _node("Unsqueeze", ["top", "last_axis"], ["top_column"]),
        _node("Concat", ["top_column"] * 4, ["top_wide"], axis=2),  # (B, k, 4)
        _node("GatherElements", ["tokens", "top_wide"], ["queries"], axis=1),
        *_box_nodes(),
    ]


def build_decoder() -> bytes:
    """Boxes where the references are, scores as the queries say, silence beyond the valid ones."""
    nodes = [
        _node("Shape", ["memory_0"], ["finest"], start=2, end=4),  # h_0, w_0
        _node("Cast", ["finest"], ["cells"], to=TensorProto.FLOAT),
        _node("Mul", ["cells", "stride"], ["height_width"]),
        _node("Gather", ["height_width", "xyxy_order"], ["canvas"]),  # w, h, w, h
        _node("MatMul", ["reference_boxes", "to_corners"], ["corners"]),
        _node("Mul", ["corners", "canvas"], ["boxes"]),
        _node("Slice", ["queries", "start", "end", "last"], ["class_scores"]),
        _node("Cast", ["valid"], ["valid_float"], to=TensorProto.FLOAT),
        _node("Unsqueeze", ["valid_float", "last"], ["valid_column"]),
        _node("Mul", ["class_scores", "valid_column"], ["scores"]),
    ]
    to_corners = [[1, 0, 1, 0], [0, 1, 0, 1], [-0.5, 0, 0.5, 0], [0, -0.5, 0, 0.5]]
    constants = [
        _constant("stride", float(STRIDES[0]), np.float32),
        _constant("xyxy_order", [1, 0, 1, 0], np.int64),
        _constant("to_corners", to_corners, np.float32),
        _constant("start", [0], np.int64),
        _constant("end", [2], np.int64),
        _constant("last", [2], np.int64),
    ]
    inputs = [_float(f"memory_{i}", "B", 4, f"h{i}", f"w{i}") for i in range(3)]
    inputs += [_float("queries", "B", "K", 4), _float("reference_boxes", "B", "K", 4)]
    inputs.append(helper.make_tensor_value_info("valid", TensorProto.BOOL, ("B", "K")))
    outputs = [_float("boxes", "B", "K", 4), _float("scores", "B", "K", 2)]
    return _finish(helper.make_graph(nodes, "decoder", inputs, outputs, constants))


def write_model_folder(folder: Path, graphs: dict[str, bytes]) -> Path:
    """Write the graphs with a model.json and a parity.json that agree with them."""
    folder.mkdir(parents=True)
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in graphs.items()}
    for name, data in graphs.items():
        (folder / name).write_bytes(data)
    manifest: dict[str, Any] = {
        "schema_version": 2,
        "name": folder.parent.name,
        "version": folder.name,
        "task": "object-detection",
        "classes": list(CLASSES),
        "input": {
            "size": SIDE,
            "multiple_of": 32,
            "pad_value": 114,
            "channels": "RGB",
            "mean": [0.0, 0.0, 0.0],
            "std": [255.0, 255.0, 255.0],
        },
        "strides": list(STRIDES),
        "query": {"k_min": K_MIN, "k_max": K_MAX, "t": 3.0},
        "postprocess": {"threshold": 0.3, "class_thresholds": {}, "nms_iou": 0.8, "max_detections": 300},
        "decoder_layers": 1,
        "graphs": {"fp32": {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}},
        "calibration": None,
        "resolution_cm": None,
        "parameters": 6,
        "files": {name: {"sha256": hashes[name], "bytes": len(data)} for name, data in graphs.items()},
        "source": {"commit": "unknown", "checkpoint_sha256": "0" * 64, "created": "2026-01-01T00:00:00Z"},
        "data": {"name": "none", "licence": "none", "citation": []},
        "licence": "Apache-2.0",
    }
    parity = {
        "schema_version": 1,
        "passed": True,
        "files": hashes,
        "tolerance": {"boxes_px": 0.5, "scores": 0.001, "threshold": 0.3},
        "runtimes": {"provider": "CPUExecutionProvider"},
        "images": 1,
        "max_box_px": 0.0,
        "max_score": 0.0,
        "unmatched": 0,
    }
    (folder / "model.json").write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    (folder / "parity.json").write_text(json.dumps(parity, indent=2), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def toy_graphs() -> dict[str, bytes]:
    encoder, decoder = build_encoder(), build_decoder()
    return {"encoder.onnx": encoder, "decoder.onnx": decoder, "detector.onnx": encoder}


@pytest.fixture(scope="session", autouse=True)
def no_scenes_elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Services of tests, processes included, keep scenes in a folder of this run and never in the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEATQUERY_SCENES", str(tmp_path_factory.mktemp("scenes")))
        yield


@pytest.fixture
def model_folder(tmp_path: Path, toy_graphs: dict[str, bytes]) -> Path:
    """A sound `<models>/toy/1` of this test's own, free to be damaged."""
    return write_model_folder(tmp_path / "models" / "toy" / "1", toy_graphs)


@pytest.fixture(scope="session")
def toy_models(tmp_path_factory: pytest.TempPathFactory, toy_graphs: dict[str, bytes]) -> Path:
    """A models folder with one sound model, shared and not to be changed."""
    models = tmp_path_factory.mktemp("models")
    write_model_folder(models / "toy" / "1", toy_graphs)
    return models


@dataclass
class RunningService:
    """A real uvicorn server in a thread."""

    server: uvicorn.Server
    thread: threading.Thread
    client: httpx.Client

    @classmethod
    def start(cls, settings: Settings) -> "RunningService":
        settings = settings.model_copy(update={"host": "127.0.0.1", "port": 0})
        listener = listen(settings)
        server = uvicorn.Server(uvicorn_config(create_app(settings), settings, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30)
        wait_until(lambda: server.started)
        wait_until(lambda: "loading" not in client.get("/readyz").text)
        return cls(server, thread, client)

    def stop(self) -> None:
        self.client.close()
        self.server.should_exit = True
        self.thread.join(timeout=10)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still false after {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def make_client(toy_models: Path) -> Iterator[Callable[..., httpx.Client]]:
    """Start a service with some settings; returns its client once the model has loaded or failed."""
    running: list[RunningService] = []

    def make(**changes: Any) -> httpx.Client:
        running.append(RunningService.start(Settings(**{"models": toy_models, "threads": 1, **changes})))
        return running[-1].client

    yield make
    for service in running:
        service.stop()


@pytest.fixture(scope="session")
def client(toy_models: Path) -> Iterator[httpx.Client]:
    """A client of one sound service with default limits, shared by all tests that change nothing."""
    service = RunningService.start(Settings(models=toy_models, threads=1))
    yield service.client
    service.stop()


@pytest.fixture(scope="session")
def draw_scene() -> Callable[..., Image.Image]:
    """Make a grey picture with coloured squares given as (x, y, side, colour)."""

    def draw(width: int, height: int, *squares: tuple[int, int, int, str]) -> Image.Image:
        image = Image.new("RGB", (width, height), (90, 90, 90))
        for x, y, side, color in squares:
            image.paste(color, (x, y, x + side, y + side))
        return image

    return draw


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """Write a Pillow image to bytes."""

    def write(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, kind, **options)
        return buffer.getvalue()

    return write


@pytest.fixture(scope="session")
def scene_png(draw_scene: Callable[..., Image.Image], encode: Callable[..., bytes]) -> bytes:
    """320 x 240: a red square at (64, 64), a blue one at (192, 128), both of 64 px = 32 px on the canvas."""
    return encode(draw_scene(320, 240, (64, 64, 64, "red"), (192, 128, 64, "blue")))
