"""A small host of the D3Q paper, exported: no HMPE, deformable encoder, softmax, learned contents."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.host_export import Written, compared, costs, differences
from export.graphs import cut_decoder
from export.manifest import Card
from export.parity import Report
from export.pictures import synthetic_canvases
from export.release import Wish, release
from export.runtime import Graphs, OnnxRunner, detect
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
from service.manifest import load_model_folder

SIDE = 128
HOST = DetectorConfig(
    classes=("ship", "storage tank"),
    strides=(16, 32),
    width=64,
    backbone=PlainBackboneConfig(stem=8, channels=(8, 16, 24, 32), blocks=(0, 0, 0, 0)),
    heat=None,
    encoder=DeformableEncoderConfig(layers=1, heads=4, points=2, feedforward=32),
    density=DensityConfig(),
    query=QueryConfig(content="learned", k_min=10, k_max=50),
    decoder=DecoderConfig(layers=2, heads=4, feedforward=32, classification="softmax", look_forward_twice=True),
)


@torch.no_grad()
def lively_host() -> Detector:
    """Random weights whose scores are spread and do not tie."""
    torch.manual_seed(0)
    detector = Detector(HOST)
    for name, parameter in detector.named_parameters():
        if not name.startswith("backbone"):
            parameter.add_(0.1 * torch.randn_like(parameter))
    detector.select_queries.classify.weight.normal_(std=0.3)
    for head in detector.decoder.classify:
        assert isinstance(head, nn.Linear)
        head.weight.normal_(std=0.5)
        head.bias.zero_()
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass gives the running statistics
    detector.train()(torch.from_numpy(np.stack(synthetic_canvases(SIDE, 114, 4))))
    return detector.eval()


@pytest.fixture(scope="module")
def host() -> Detector:
    """The small host."""
    return lively_host()


@pytest.fixture(scope="module")
def released(host: Detector, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """Its model folder with one of two decoder layers, and what the comparison found."""
    base = tmp_path_factory.mktemp("host")
    checkpoint, out = base / "checkpoint", base / "models" / "host" / "1"
    checkpoint.mkdir()
    save_detector(checkpoint, HOST, host.state_dict())
    return out, release(checkpoint, out, Card(), Wish(size=SIDE, decoder_layers=1))


def test_the_graphs_of_a_host_agree_with_torch(released: tuple[Path, Report]) -> None:
    _, report = released
    assert report.passed
    assert report.detections > 20
    assert report.outputs["scores"] < 1e-4


def test_the_graphs_of_a_host_take_a_batch_and_another_size(released: tuple[Path, Report], host: Detector) -> None:
    folder, _ = released
    graphs = Graphs.load(folder, HOST.query, 2)
    images = np.ascontiguousarray(np.stack(synthetic_canvases(192, 114, 2))[:, :, :64])  # (2, 3, 64, 192)
    encoded = graphs.encode(images)
    with torch.no_grad():
        known = cut_decoder(host, 1).encode(torch.from_numpy(images))
    for level, memory in enumerate(known.memory):
        np.testing.assert_allclose(encoded[f"memory_{level}"], memory.numpy(), atol=1e-3)
    boxes, scores = graphs.decode(graphs.decoder_feed(encoded))
    assert (boxes.shape[2], scores.shape[2]) == (4, 2)
    assert detect(OnnxRunner(folder / "detector.onnx"), images)[0].shape[0] == 2


def test_the_service_takes_the_folder_of_a_host(released: tuple[Path, Report]) -> None:
    folder, _ = released
    assert load_model_folder(folder).manifest.decoder_layers == 1


def test_the_benchmark_tells_how_far_the_graphs_of_a_host_are_off(
    released: tuple[Path, Report], host: Detector
) -> None:
    folder, _ = released
    told = {row.claim: row for row in differences("host", compared(cut_decoder(host, 1), folder, SIDE, pictures=2))}
    assert told["host: boxes of equal queries differ"].reached
    assert told["host: scores of equal queries differ"].value < 1e-4
    assert told["host, encoder_decoder: detections with a partner"].value > 10
    assert told["host, detector: detections without a partner"].value == 0


def test_the_benchmark_sees_graphs_of_other_weights(released: tuple[Path, Report], host: Detector) -> None:
    other = cut_decoder(host, 1)
    head = other.decoder.classify[0]
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.bias[0].add_(0.5)
    told = {row.claim: row for row in differences("host", compared(other, released[0], SIDE, pictures=1))}
    assert told["host: scores of equal queries differ"].reached is False


def test_the_benchmark_tells_what_an_export_costs() -> None:
    size, seconds = costs("host", [Written("encoder.onnx", 153.46, 61.7)])
    assert (size.claim, size.measured) == ("host, encoder.onnx: size", "153 MB")
    assert (seconds.claim, seconds.measured) == ("host, encoder.onnx: CPU time of the export", "62 s")
