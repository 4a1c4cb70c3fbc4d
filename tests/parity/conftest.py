"""A tiny detector whose untrained weights do not tie, and its exported model folder, made once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.graphs import cut_decoder
from export.manifest import Card, Data, Postprocess
from export.parity import Report, Roads
from export.pictures import synthetic_canvases
from export.release import Wish, release
from export.runtime import Graphs, OnnxRunner
from model.checkpoint import save_detector
from model.config import DecoderConfig, DetectorConfig, HybridEncoderConfig, PlainBackboneConfig, QueryConfig
from model.detector import Detector

SIDE = 128
CONFIG = DetectorConfig(
    classes=("ship", "storage tank", "vehicle"),
    width=32,
    backbone=PlainBackboneConfig(stem=8, channels=(8, 16, 24, 32), blocks=(1, 1, 1, 1)),
    encoder=HybridEncoderConfig(feedforward=64),
    query=QueryConfig(k_min=10, k_max=50, t=3.0),
    decoder=DecoderConfig(layers=2, feedforward=64),
)
CARD = Card(
    data=Data(name="drawn scenes", licence="none", citation=("Nobody, nowhere.",)),
    licence="test only",
    postprocess=Postprocess(threshold=0.25, class_thresholds={"ship": 0.4}, nms_iou=None),
    resolution_cm=50,
)


@dataclass(frozen=True)
class Exported:
    """One export: what went in, and what came out."""

    uncut: Detector
    """The detector of the checkpoint, with two decoder layers."""
    detector: Detector
    """The same with the one layer that was asked for."""
    checkpoint: Path
    folder: Path
    report: Report
    roads: Roads

    @property
    def graphs(self) -> Graphs:
        """encoder.onnx and decoder.onnx."""
        return self.roads.graphs


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny detector, its checkpoint, and its model folder with one of the two decoder layers."""
    base = tmp_path_factory.mktemp("export")
    checkpoint, folder = base / "checkpoint", base / "models" / "tiny" / "7"
    checkpoint.mkdir()
    detector = lively_detector()
    save_detector(checkpoint, CONFIG, detector.state_dict())
    report = release(checkpoint, folder, CARD, Wish(size=SIDE, decoder_layers=1, deepness=True))
    roads = Roads(Graphs.load(folder, CONFIG.query, 3), OnnxRunner(folder / "detector.onnx"))
    return Exported(detector, cut_decoder(detector, 1), checkpoint, folder, report, roads)


@pytest.fixture(scope="session")
def canvases() -> NDArray[np.uint8]:
    """Four drawn pictures, (4, 3, SIDE, SIDE); the first one is plain grey."""
    pictures = synthetic_canvases(SIDE, 114, 4)
    pictures[0] = np.full_like(pictures[0], 114)
    return np.stack(pictures)


@torch.no_grad()
def lively_detector() -> Detector:
    """Random weights, spread as after training: no gate is shut, scores reach from 0 to 1, and counts differ."""
    torch.manual_seed(0)
    detector = Detector(CONFIG)
    for name, parameter in detector.named_parameters():
        if parameter.ndim == 1 or "gates" in name:
            parameter.add_(0.2 * torch.randn_like(parameter))
        elif not parameter.any():
            parameter.normal_(std=0.1)
    for head in (detector.select_queries.classify, *detector.decoder.classify):
        assert isinstance(head, nn.Linear)
        head.weight.normal_(std=0.25)
        head.bias.fill_(-1.5)
    pictures = torch.from_numpy(np.stack(synthetic_canvases(SIDE, 114, 8)))
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # one pass gives the running statistics
    detector.train()(pictures)
    _spread_counts(detector.eval(), pictures)
    return detector


def _spread_counts(detector: Detector, pictures: Tensor) -> None:
    """Fit the density head to how uneven each cell's pixels are, so that busy pictures count more than plain ones."""
    assert detector.density_head is not None
    *hidden, last, _ = detector.density_head.layers
    cells = nn.Sequential(*hidden)(detector.encode(pictures).memory[0]).movedim(1, -1).flatten(0, 2)  # (cells, hidden)
    stride = CONFIG.strides[0]
    patches = pictures.float().mean(1).unfold(1, stride, stride).unfold(2, stride, stride).flatten(3)  # (B, h, w, 64)
    uneven = (patches.std(-1).flatten() > 12).float()  # plain noise is not, an edge is
    inputs = torch.cat([cells, torch.ones_like(cells[:, :1])], 1)
    fitted = torch.linalg.lstsq(inputs, uneven[:, None]).solution[:, 0]  # (hidden + 1,)
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    last.weight.copy_(14 * fitted[None, :-1, None, None])
    last.bias.copy_(14 * fitted[-1] - 6)
