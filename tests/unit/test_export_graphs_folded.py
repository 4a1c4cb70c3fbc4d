"""The detector that is exported has its batch norms inside its convolutions, and says the same."""

import torch
from torch import nn

from export.graphs import folded
from export.onnx_graph import graph_specs
from export.pictures import synthetic_canvases
from model.config import DetectorConfig, PlainBackboneConfig
from model.detector import Detector


def trained() -> Detector:
    """A small detector with batch norms that do something."""
    torch.manual_seed(0)
    backbone = PlainBackboneConfig(stem=8, channels=(8, 16, 24, 32), blocks=(1, 1, 1, 1))
    detector = Detector(DetectorConfig(classes=("ship",), width=32, backbone=backbone))
    with torch.no_grad():
        for tensor in (*detector.parameters(), *detector.buffers()):
            if tensor.is_floating_point():
                tensor.add_(0.2 * torch.rand_like(tensor))
    return detector.eval()


def batch_norms(module: nn.Module) -> int:
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@torch.no_grad()
def test_a_folded_detector_says_the_same() -> None:
    detector = trained()
    images = torch.from_numpy(synthetic_canvases(128, 114, 1)[0][None])
    first, second = detector.encode(images), folded(detector).encode(images)
    for expected, found in zip(first.memory, second.memory, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_folding_leaves_the_given_detector_as_it_is() -> None:
    detector = trained()
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    assert batch_norms(folded(detector)) == 0
    assert batch_norms(detector) > 0
    assert all(torch.equal(value, before[name]) for name, value in detector.state_dict().items())


def test_the_exported_graphs_have_no_batch_norm() -> None:
    assert [batch_norms(spec.module) for spec in graph_specs(trained())] == [0, 0]
