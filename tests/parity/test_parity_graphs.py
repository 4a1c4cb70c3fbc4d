"""Exported graphs give what the detector gives, whatever the batch, the canvas and the number of objects."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from copied_graphs import copy_graphs
from numpy.typing import NDArray
from PIL import Image

from export.agreement import Tolerance
from export.graphs import boxes_and_scores, encoder_outputs
from export.manifest import Card
from export.matching import Detections, above, match
from export.parity import ParityError, Roads, compare
from export.pictures import picture_paths, real_canvases, synthetic_canvases
from export.release import Wish, release
from export.runtime import Array, Graphs, detect
from model.detector import Detector
from service.manifest import load_model_folder

GRAPHS = ("encoder.onnx", "decoder.onnx", "detector.onnx")
VAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "nwpu-vhr10"
UINT8, FLOAT, INT64, BOOL = 2, 1, 7, 9


def from_torch(detector: Detector, images: NDArray[np.uint8]) -> tuple[Array, Array]:
    """Boxes (B, K, 4) in pixels and scores (B, K, C) of the detector itself."""
    with torch.no_grad():
        output = detector(torch.from_numpy(images))
        finest = output.encoded.memory[0]
        boxes, scores = boxes_and_scores(output.layers[-1], output.queries.valid, finest, detector.config)
    return boxes.numpy(), scores.numpy()


def from_graphs(graphs: Graphs, images: NDArray[np.uint8]) -> tuple[Array, Array]:
    """The same through encoder.onnx, the host and decoder.onnx."""
    return graphs.decode(graphs.decoder_feed(graphs.encode(images)))


def assert_same(first: tuple[Array, Array], second: tuple[Array, Array]) -> None:
    """Row by row: the weights do not tie, so both rank proposals alike."""
    np.testing.assert_allclose(first[0], second[0], atol=0.02)
    np.testing.assert_allclose(first[1], second[1], atol=1e-4)


def assert_single_graph_agrees(roads: Roads, images: NDArray[np.uint8]) -> None:
    """Detection by detection: with its packed kernels, detector.onnx may rank near-equal proposals differently."""
    boxes, scores = from_graphs(roads.graphs, images)
    single = detect(roads.detector, images)
    for row in range(len(images)):
        wanted = single[1][row] > 0.3
        found = Detections(*(output[row][wanted] for output in single))
        result = match(above(boxes[row], scores[row], 0.3, best_class_only=True), found, 0.301, 0.5, 2e-3)
        assert (result.unmatched, result.matched > 0) == (0, True)


def wide_canvases() -> NDArray[np.uint8]:
    """(2, 3, 96, 160)."""
    return np.ascontiguousarray(np.stack(synthetic_canvases(160, 114, 2))[:, :, :96])


def test_the_report_has_passed_on_detections_that_really_exist(exported) -> None:
    assert exported.report.passed
    assert exported.report.detections > 20
    assert exported.report.unmatched == 0


def test_every_encoder_output_agrees_with_torch(exported) -> None:
    outputs = exported.report.outputs
    assert set(outputs) == {*encoder_outputs(3), "boxes", "scores"}
    assert max(value for name, value in outputs.items() if name not in ("boxes", "queries")) < 1e-4


def test_both_graphs_together_agree_with_torch_on_a_batch(exported, canvases) -> None:
    assert_same(from_graphs(exported.graphs, canvases), from_torch(exported.detector, canvases))


def test_one_decoder_layer_gives_what_the_first_of_two_gives(exported, canvases) -> None:
    with torch.no_grad():
        output = exported.uncut(torch.from_numpy(canvases))
        finest = output.encoded.memory[0]
        config = exported.uncut.config
        first, second = (boxes_and_scores(layer, output.queries.valid, finest, config)[0] for layer in output.layers)
    boxes, _ = from_graphs(exported.graphs, canvases)
    np.testing.assert_allclose(boxes, first.numpy(), atol=0.02)
    assert np.abs(boxes - second.numpy()).max() > 1


def test_a_picture_gives_the_same_in_a_batch_and_alone(exported, canvases) -> None:
    boxes, scores = from_graphs(exported.graphs, canvases)
    for row in range(len(canvases)):
        alone = from_graphs(exported.graphs, canvases[row : row + 1])
        count = alone[0].shape[1]
        assert_same((boxes[row : row + 1, :count], scores[row : row + 1, :count]), alone)
        assert not scores[row, count:].any()


def test_k_follows_the_pictures(exported, canvases) -> None:
    valid = exported.graphs.decoder_feed(exported.graphs.encode(canvases))["valid"]
    counts = valid.sum(1)
    assert len(set(counts.tolist())) > 1
    assert counts.min() >= 10
    assert counts.max() == valid.shape[1] <= 50


def test_k_inside_the_single_graph_is_that_of_the_host(exported, canvases) -> None:
    for images in (canvases[:1], canvases[3:], canvases):
        feed = exported.graphs.decoder_feed(exported.graphs.encode(images))
        assert detect(exported.roads.detector, images)[0].shape[1] == feed["valid"].shape[1]


def test_the_single_graph_gives_the_best_class_of_the_two_graph_road(exported, canvases) -> None:
    assert_single_graph_agrees(exported.roads, canvases)


def test_height_and_width_may_differ(exported) -> None:
    images = wide_canvases()
    assert_same(from_graphs(exported.graphs, images), from_torch(exported.detector, images))
    assert_single_graph_agrees(exported.roads, images)


def test_a_plain_grey_picture_gives_finite_outputs(exported, canvases) -> None:
    encoded = exported.graphs.encode(canvases[:1])
    boxes, scores = exported.graphs.decode(exported.graphs.decoder_feed(encoded))
    assert all(np.isfinite(value).all() for value in (*encoded.values(), boxes, scores))
    assert_same((boxes, scores), from_torch(exported.detector, canvases[:1]))


def test_heat_and_density_are_fractions(exported, canvases) -> None:
    encoded = exported.graphs.encode(canvases)
    for name, value in encoded.items():
        if "heat" in name or name == "density":
            assert value.min() >= 0, name
            assert value.max() <= 1, name
    np.testing.assert_allclose(encoded["density"].sum((1, 2, 3)), encoded["count"], rtol=1e-5)


def test_a_canvas_with_fewer_tokens_than_k_max_gives_all_of_them(exported, canvases) -> None:
    small = np.ascontiguousarray(canvases[:, :, 32:64, 32:64])
    encoded = exported.graphs.encode(small)
    assert encoded["queries"].shape == (4, 16 + 4 + 1, 32)
    assert_same(from_graphs(exported.graphs, small), from_torch(exported.detector, small))
    assert exported.graphs.decoder_feed(encoded)["valid"].shape[1] == detect(exported.roads.detector, small)[0].shape[1]


def test_inputs_and_outputs_are_those_of_the_contract(exported) -> None:
    expected = {
        "encoder.onnx": ([("images", UINT8, 4)], [(name, FLOAT) for name in encoder_outputs(3)]),
        "decoder.onnx": (
            [
                *((f"memory_{level}", FLOAT, 4) for level in range(3)),
                ("queries", FLOAT, 3),
                ("reference_boxes", FLOAT, 3),
                ("valid", BOOL, 2),
            ],
            [("boxes", FLOAT), ("scores", FLOAT)],
        ),
        "detector.onnx": ([("images", UINT8, 4)], [("boxes", FLOAT), ("scores", FLOAT), ("labels", INT64)]),
    }
    for file, (inputs, outputs) in expected.items():
        graph = onnx.load(exported.folder / file).graph
        types = [(v.name, v.type.tensor_type.elem_type, len(v.type.tensor_type.shape.dim)) for v in graph.input]
        assert types == inputs
        assert [(v.name, v.type.tensor_type.elem_type) for v in graph.output] == outputs


def test_a_graph_says_what_it_is_and_nothing_of_the_machine(exported) -> None:
    for file in GRAPHS:
        model = onnx.load(exported.folder / file)
        notes = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(notes["classes"]) == list(exported.detector.config.classes)
        assert (notes["name"], notes["version"]) == ("tiny", "7")
        assert notes["commit"]
        content = (exported.folder / file).read_bytes()
        assert str(Path(__file__).resolve().parents[2]).encode() not in content
        assert b"site-packages" not in content


def test_the_service_takes_the_folder(exported) -> None:
    folder = load_model_folder(exported.folder)
    assert folder.manifest.decoder_layers == 1
    assert folder.manifest.input.size == 128
    assert folder.manifest.postprocess.nms_iou is None
    assert folder.manifest.postprocess.class_thresholds == {"ship": 0.4}
    assert folder.manifest.data.citation == ["Nobody, nowhere."]
    assert folder.manifest.licence == "test only"


def test_the_folder_holds_what_the_contract_lists_and_nothing_else(exported) -> None:
    assert {path.name for path in exported.folder.iterdir()} == {*GRAPHS, "deepness.onnx", "model.json", "parity.json"}
    assert [path.name for path in exported.folder.parents[1].iterdir()] == ["tiny"]


def test_drawn_pictures_are_called_so_in_the_report(exported) -> None:
    assert json.loads((exported.folder / "parity.json").read_text())["images_kind"] == "synthetic"


def test_a_failed_comparison_writes_nothing(exported, tmp_path, monkeypatch) -> None:
    copy_graphs(monkeypatch, exported.folder)
    with pytest.raises(ParityError, match="nothing was written"):
        release(
            exported.checkpoint,
            tmp_path / "models" / "tiny" / "1",
            Card(),
            Wish(size=64, decoder_layers=2),  # the copied graphs have one
        )
    assert list(tmp_path.iterdir()) == []


def test_a_comparison_on_pictures_without_detections_fails(exported, canvases) -> None:
    unreachable = Tolerance(threshold=1.0)
    report = compare(exported.detector, exported.roads, [canvases[0]], "synthetic", {}, unreachable, lambda: None)
    assert not report.passed
    assert "no detection above 1" in report.failures[0]


def test_an_existing_version_is_never_written_again(exported) -> None:
    before = {path: path.stat().st_mtime_ns for path in exported.folder.iterdir()}
    with pytest.raises(FileExistsError, match="choose another version"):
        release(exported.checkpoint, exported.folder, Card(), Wish())
    assert {path: path.stat().st_mtime_ns for path in exported.folder.iterdir()} == before


@pytest.mark.skipif(not VAL.is_dir(), reason=f"needs the real pictures of {VAL.name} beside the checkout")
def test_real_pictures_give_the_same_detections(exported, tmp_path) -> None:
    for path in picture_paths(VAL / "instances_val.json")[::25]:
        with Image.open(path) as picture:
            picture.crop((0, 0, 256, 256)).save(tmp_path / f"{path.stem}.png")  # no padding, where all cells tie
    canvases = real_canvases(tmp_path, 256, 114, 6)
    report = compare(exported.detector, exported.roads, canvases, "real", {}, Tolerance(), lambda: None)
    assert report.failures == []
    assert report.images == 6


def test_detections_of_both_roads_pair_up_in_a_batch(exported, canvases) -> None:
    boxes, scores = from_graphs(exported.graphs, canvases)
    expected = from_torch(exported.detector, canvases)
    for row in range(len(canvases)):
        first = above(expected[0][row], expected[1][row], 0.3)
        second = above(boxes[row], scores[row], 0.3)
        assert match(first, second, 0.3, 0.5, 1e-3).unmatched == 0
