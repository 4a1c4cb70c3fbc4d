"""A folder of all precisions: each goes through release, its gate and the service."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from copied_graphs import copy_graphs
from numpy.typing import NDArray
from PIL import Image

from export.manifest import Card
from export.parity import Report
from export.pictures import synthetic_canvases
from export.release import Wish, release
from service.engines.base import DecoderInputs
from service.engines.onnx import OnnxEngine
from service.manifest import load_model_folder

SIDE = 128


def drawn(folder: Path, count: int) -> Path:
    """A folder of drawn pictures."""
    folder.mkdir()
    for i, canvas in enumerate(synthetic_canvases(SIDE, 114, count)):
        Image.fromarray(canvas.transpose(1, 2, 0)).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def released(exported, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The tiny detector once more, with graphs that were exported before, in all precisions."""
    base = tmp_path_factory.mktemp("precisions")
    out = base / "models" / "tiny" / "8"
    wish = Wish(SIDE, decoder_layers=1, precisions=("fp32", "fp16", "int8"), calibration=drawn(base / "train", 12))
    with pytest.MonkeyPatch.context() as patch:
        copy_graphs(patch, exported.folder)
        return out, release(exported.checkpoint, out, Card(), wish)


def test_every_precision_passed_its_gate(released: tuple[Path, Report]) -> None:
    _, report = released
    assert [(a.precision, a.passed, a.detections > 20) for a in report.agreements] == [
        ("fp16", True, True),
        ("int8", True, True),
    ]
    half, whole = report.agreements
    assert 0 < half.outputs["memory_0"] < whole.outputs["memory_0"]


def test_the_graphs_compute_in_what_they_are_called(released: tuple[Path, Report]) -> None:
    folder, _ = released
    half = onnx.load(folder / "encoder.fp16.onnx").graph
    assert onnx.TensorProto.FLOAT16 in {tensor.data_type for tensor in half.initializer}
    int8 = onnx.load(folder / "encoder.int8.onnx").graph
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in int8.node}


def test_the_manifest_says_what_int8_was_calibrated_on(released: tuple[Path, Report]) -> None:
    folder, _ = released
    manifest = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    assert manifest["graphs"]["int8"] == {"encoder": "encoder.int8.onnx", "decoder": "decoder.onnx"}
    assert manifest["calibration"]["pictures"] == 12
    assert set(manifest["files"]) == {path.name for path in folder.glob("*.onnx")}


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_service_runs_it(released: tuple[Path, Report], precision: str, canvases: NDArray[np.uint8]) -> None:
    engine = OnnxEngine(load_model_folder(released[0], precision))
    engine.check_outputs()
    encoded = engine.encode(canvases)
    assert np.isfinite(engine.decode(DecoderInputs.of_batch(encoded), [20] * len(canvases)).scores).all()


def test_int8_without_pictures_or_with_those_it_is_judged_on_is_refused(exported, tmp_path: Path) -> None:
    out, few = tmp_path / "models" / "tiny" / "9", drawn(tmp_path / "pictures", 2)
    with pytest.raises(ValueError, match="int8 needs --calibration"):
        release(exported.checkpoint, out, Card(), Wish(SIDE, precisions=("int8",)))
    with pytest.raises(ValueError, match="calibrate on other pictures"):
        release(exported.checkpoint, out, Card(), Wish(SIDE, images=few, precisions=("int8",), calibration=few))
    with pytest.raises(ValueError, match="holds 2 pictures; int8 needs"):
        release(exported.checkpoint, out, Card(), Wish(SIDE, precisions=("int8",), calibration=few))
    assert not (tmp_path / "models").exists()
