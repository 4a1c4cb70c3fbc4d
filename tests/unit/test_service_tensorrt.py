"""What ONNX Runtime's TensorRT provider is told; no GPU is needed to say it."""

from pathlib import Path

import onnxruntime as ort
import pytest

from service.engines.onnx import EngineLoadError, OnnxEngine
from service.engines.tensorrt import TensorRTPlan, decoder_shapes, encoder_shapes, tensorrt_options
from service.manifest import ModelFolder, load_model_folder


@pytest.fixture
def folder(toy_models: Path) -> ModelFolder:
    return load_model_folder(toy_models / "toy" / "1")


def test_each_graph_has_a_folder_of_its_own(tmp_path: Path) -> None:
    paths = {tensorrt_options(tmp_path, graph, {})["trt_engine_cache_path"] for graph in (b"a", b"b")}
    assert len(paths) == 2
    assert all(Path(path).is_dir() for path in paths)


def test_a_profile_names_every_input_with_its_sizes(tmp_path: Path) -> None:
    options = tensorrt_options(tmp_path, b"", {"a": ((1, 2), (1, 3), (4, 5)), "b": ((1,), (1,), (4,))})
    assert [options[f"trt_profile_{end}_shapes"] for end in ("min", "opt", "max")] == [
        "a:1x2,b:1",
        "a:1x3,b:1",
        "a:4x5,b:4",
    ]


def test_the_shapes_are_those_of_the_inputs_of_both_graphs(folder: ModelFolder) -> None:
    for name, shapes in (
        (folder.loaded.encoder, encoder_shapes(folder.manifest, 4)),
        (folder.loaded.decoder, decoder_shapes(folder.manifest, 4, width=3)),
    ):
        session = ort.InferenceSession(folder.graphs[name], providers=["CPUExecutionProvider"])
        ranks = {item.name: len(item.shape) for item in session.get_inputs()}
        assert {name: len(shape[0]) for name, shape in shapes.items()} == ranks


def test_tensorrt_asked_for_and_absent_is_an_error(folder: ModelFolder, tmp_path: Path) -> None:
    with pytest.raises(EngineLoadError, match="TensorrtExecutionProvider was asked for"):
        OnnxEngine(folder, "tensorrt", tensorrt=TensorRTPlan(tmp_path, 4))
