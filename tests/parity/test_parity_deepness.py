"""deepness.onnx is what the QGIS plugin Deepness reads: one input, one output, and metadata as JSON."""

import json

import numpy as np
import onnxruntime as ort
import pytest
import torch

from export.deepness import deepness_metadata, from_deepness, to_deepness
from export.graphs import boxes_and_scores
from export.manifest import Manifest
from export.matching import above, match
from export.verify import read_json


@pytest.fixture(scope="module")
def session(exported) -> ort.InferenceSession:
    return ort.InferenceSession(exported.folder / "deepness.onnx")


def test_shapes_are_those_that_the_plugin_asks_for(session: ort.InferenceSession) -> None:
    [tile], [output] = session.get_inputs(), session.get_outputs()
    assert (tile.shape, tile.type) == ([1, 3, 128, 128], "tensor(float)")
    assert output.type == "tensor(float)"
    assert (len(output.shape), output.shape[0], output.shape[1]) == (3, 1, 4 + 3)


def test_metadata_is_json_that_the_plugin_understands(session: ort.InferenceSession) -> None:
    metadata = {
        key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items() if key in KEYS
    }
    assert metadata == {
        "model_type": "Detector",
        "det_type": "YOLO_Ultralytics",
        "class_names": {"0": "ship", "1": "storage tank", "2": "vehicle"},
        "resolution": 50,
        "tile_size": 128,
        "tiles_size": 128,
        "tiles_overlap": 15,
        "standardization_mean": [0, 0, 0],
        "standardization_std": [1, 1, 1],
        "det_conf": 0.25,
        "det_iou_thresh": 1.0,
    }


def test_boxes_and_scores_are_those_of_the_detector(exported, session: ort.InferenceSession, canvases) -> None:
    images = canvases[3:]
    with torch.no_grad():
        output = exported.detector(torch.from_numpy(images))
        config, finest = exported.detector.config, output.encoded.memory[0]
        boxes, scores = boxes_and_scores(output.layers[-1], output.queries.valid, finest, config)
    found = above(*from_deepness(np.asarray(session.run(None, to_deepness(images))[0])), 0.299)
    result = match(above(boxes[0].numpy(), scores[0].numpy(), 0.299), found, 0.3, 0.5, 1e-3)
    assert (result.unmatched, result.matched > 5) == (0, True)
    assert exported.report.roads["deepness"].matched > 20


def test_a_tile_is_read_in_8_bits_and_what_is_too_bright_is_white(session: ort.InferenceSession, canvases) -> None:
    tile = to_deepness(canvases[3:])["tile"]
    white = np.ascontiguousarray(np.where(tile > 0.6, np.float32(1), tile))
    for nearly, exactly in ((tile + np.float32(0.001), tile), (np.where(tile > 0.6, np.float32(7), tile), white)):
        found, expected = (session.run(None, {"tile": picture})[0] for picture in (nearly, exactly))
        np.testing.assert_array_equal(found, expected)


def test_a_card_without_ground_resolution_is_refused(exported) -> None:
    manifest = read_json(exported.folder / "model.json", Manifest)
    with pytest.raises(ValueError, match="resolution_cm"):
        deepness_metadata(manifest.model_copy(update={"resolution_cm": None}))


KEYS = {
    *("model_type", "det_type", "class_names", "resolution", "tile_size", "tiles_size", "tiles_overlap"),
    *("standardization_mean", "standardization_std", "det_conf", "det_iou_thresh"),
}
"""What the plugin reads; the file says more, for others."""
