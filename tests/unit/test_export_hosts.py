"""What the graphs of a host without HMPE say; a detector that does not count is refused."""

from pathlib import Path

import pytest
import torch

from export.graphs import DecoderGraph, EncoderGraph, cut_decoder, encoder_outputs
from export.manifest import Card
from export.onnx_graph import graph_specs
from export.pictures import synthetic_canvases
from export.release import Wish, release
from model.checkpoint import save_detector
from model.config import (
    DecoderConfig,
    DeformableEncoderConfig,
    DensityConfig,
    DetectorConfig,
    PlainBackboneConfig,
    QueryConfig,
)
from model.detector import Detector

SIDE = 128
HOST = DetectorConfig(
    classes=("ship", "storage tank"),
    width=32,
    backbone=PlainBackboneConfig(stem=8, channels=(8, 16, 24, 32), blocks=(1, 1, 1, 1)),
    heat=None,
    encoder=DeformableEncoderConfig(layers=1, heads=4, points=2, feedforward=32),
    density=DensityConfig(),
    query=QueryConfig(content="learned", k_min=10, k_max=50),
    decoder=DecoderConfig(layers=2, heads=4, feedforward=32, classification="softmax", look_forward_twice=True),
)


@pytest.fixture
def host() -> Detector:
    """The small host, with random weights."""
    torch.manual_seed(0)
    detector = Detector(HOST)
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return detector.eval()


@torch.no_grad()
def test_the_encoder_graph_shows_what_proposals_think_as_heat(host: Detector) -> None:
    images = torch.from_numpy(synthetic_canvases(SIDE, 114, 1)[0][None])
    outputs = EncoderGraph(host)(images)
    assert len(outputs) == len(encoder_outputs(3))
    for level in range(3):
        class_heat, heat = outputs[7 + level], outputs[10 + level]
        assert class_heat.shape[1:] == (2, *outputs[level].shape[2:])
        most = class_heat.amax(1)
        assert torch.equal(heat, torch.stack([most, 0 * most, most, torch.ones_like(most)], 1))


@torch.no_grad()
def test_softmax_scores_leave_out_the_background(host: Detector) -> None:
    encoded = host.encode(torch.from_numpy(synthetic_canvases(SIDE, 114, 1)[0][None]))
    queries = host.propose(encoded, 12, torch.tensor([10]))
    inputs = (encoded.memory, queries.features, queries.reference_boxes, queries.valid)
    _, scores = DecoderGraph(host)(*inputs)
    logits = host.decode(encoded.memory, queries)[-1].logits
    torch.testing.assert_close(scores[0, :10], logits.softmax(-1)[0, :10, :2])
    assert not scores[0, 10:].any()


@torch.no_grad()
def test_a_host_cut_to_one_decoder_layer_gives_what_the_first_of_two_gives(host: Detector) -> None:
    images = torch.from_numpy(synthetic_canvases(SIDE, 114, 1)[0][None])
    first, second = host(images).layers
    (only,) = cut_decoder(host, 1)(images).layers
    assert torch.equal(only.boxes, first.boxes)
    assert torch.equal(only.logits, first.logits)
    assert not torch.equal(only.boxes, second.boxes)


def test_a_detector_that_does_not_count_is_refused_before_anything_slow(tmp_path: Path) -> None:
    config = HOST.model_copy(update={"density": None})
    save_detector(tmp_path, config, Detector(config).state_dict())
    with pytest.raises(ValueError, match=r"no density head.*train it with \[model.density\]"):
        release(tmp_path, tmp_path / "models" / "host" / "1", Card(), Wish(size=SIDE))
    assert not (tmp_path / "models").exists()


def test_graphs_of_a_detector_that_does_not_count_are_refused() -> None:
    with pytest.raises(ValueError, match="no density head"):
        graph_specs(Detector(HOST.model_copy(update={"density": None})))
