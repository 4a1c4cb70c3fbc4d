"""Detectors and ground truth small enough for any test."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import DetectorConfig, HybridEncoderConfig, PlainBackboneConfig, QueryConfig
from model.detector import Detector
from training.data.samples import Targets

# Fixtures that several folders of tests share.
pytest_plugins = ["both_clients", "ray_cluster", "redis_server", "toy_service"]


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and those around one costly export, too."""
    for item in items:
        around_export = item.path.parent.name == "parity" and "exported" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("parity" if around_export else str(item.path)))


TINY = DetectorConfig(
    classes=("plane", "ship", "tank"),
    width=16,
    backbone=PlainBackboneConfig(stem=4, channels=(8, 8, 16, 16), blocks=(1, 1, 1, 1)),
    encoder=HybridEncoderConfig(heads=2, feedforward=16),
    query=QueryConfig(k_min=3, k_max=40),
)


@pytest.fixture
def make_detector() -> Callable[..., Detector]:
    """Builds a tiny detector in evaluation mode; nothing in it is zero, as if it had been trained."""

    def make(**changes: Any) -> Detector:
        torch.manual_seed(0)
        detector = Detector(DetectorConfig.model_validate(TINY.model_dump() | changes))
        with torch.no_grad():
            for parameter in detector.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return detector.eval()

    return make


@pytest.fixture
def tiny_detector(make_detector: Callable[..., Detector]) -> Detector:
    """The tiny detector: three classes, strides 8/16/32, 3 to 40 queries."""
    return make_detector()


@pytest.fixture
def pictures() -> Callable[..., Tensor]:
    """Makes uint8 noise (B, 3, H, W)."""

    def make(batch: int, height: int = 64, width: int = 96, seed: int = 0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, 256, (batch, 3, height, width), generator=generator, dtype=torch.uint8)

    return make


@pytest.fixture
def make_targets() -> Callable[..., Targets]:
    """Makes the ground truth of a batch from one list of (label, cx, cy, w, h) per picture, as `collate` pads it."""

    def make(*objects: list[tuple[int, float, float, float, float]]) -> Targets:
        most = max(1, *(len(picture) for picture in objects))
        targets = Targets(torch.full((len(objects), most, 4), 0.5), torch.full((len(objects), most), -1))
        for row, picture in enumerate(objects):
            for column, (label, *box) in enumerate(picture):
                targets.labels[row, column] = label
                targets.boxes[row, column] = torch.tensor(box)
        return targets

    return make
