"""Backbones: levels at the asked strides, weights from a file or from timm, norms that stay frozen."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.backbone import TimmBackbone, build_backbone
from model.checkpoint import load_detector, save_detector
from model.config import BackboneConfig, PlainBackboneConfig, TimmBackboneConfig
from model.detector import Detector

PLAIN = PlainBackboneConfig(stem=4, channels=(4, 6, 8, 10), blocks=(1, 1, 1, 1))
RESNET = TimmBackboneConfig(name="resnet18")
HGNET = TimmBackboneConfig(name="hgnetv2_b0")
STRIDES = (8, 16, 32)
SMALL = "test_resnet"
"""The smallest residual network of timm, made for tests."""


def weights_of(name: str) -> dict[str, Tensor]:
    """State of a whole timm model with a classifier of three classes, every norm as if it had been trained."""
    torch.manual_seed(1)
    state = timm.create_model(name, num_classes=3).state_dict()
    return {key: x + torch.rand_like(x) if "running" in key else x for key, x in state.items()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[[dict[str, Tensor]], Path]:
    """Writes tensors to a file and returns its path."""

    def write(tensors: dict[str, Tensor]) -> Path:
        save_file(tensors, tmp_path / "weights.safetensors")
        return tmp_path / "weights.safetensors"

    return write


@pytest.fixture
def timm_fetches(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Replaces what timm does when it is asked for pre-trained weights; it then goes on without them."""
    original = timm.create_model

    def replace(action: Callable[[], None]) -> None:
        def create(name: str, pretrained: bool = False, **options: Any) -> nn.Module:
            if pretrained:
                action()
            return original(name, **options)

        monkeypatch.setattr(timm, "create_model", create)

    return replace


def no_network() -> None:
    raise ConnectionError("no route to host")


@torch.no_grad()
@pytest.mark.parametrize(
    ("config", "strides", "channels"),
    [
        (PLAIN, (8, 16, 32), [6, 8, 10]),
        (PLAIN, (4, 8, 16, 32, 64), [4, 6, 8, 10, 10]),
        (RESNET, (4, 8, 16, 32), [64, 128, 256, 512]),
        (RESNET, (16, 32, 64), [256, 512, 256]),
        (RESNET, (4, 8), [64, 128]),
        (HGNET, (8, 16, 32), [256, 512, 1024]),
        (HGNET, (4, 8, 16, 32, 64), [64, 256, 512, 1024, 256]),
    ],
)
def test_levels_have_the_asked_strides_and_the_stated_channels(
    config: BackboneConfig, strides: tuple[int, ...], channels: list[int]
) -> None:
    backbone = build_backbone(config, strides).eval()
    assert backbone.channels == channels
    shapes = [tuple(level.shape) for level in backbone(torch.randn(1, 3, 64, 128))]
    assert shapes == [(1, c, 64 // stride, 128 // stride) for c, stride in zip(channels, strides, strict=True)]


@torch.no_grad()
@pytest.mark.parametrize("name", [SMALL, "hgnetv2_b0"])
def test_a_backbone_with_the_weights_of_a_file_is_that_timm_model(
    save: Callable[[dict[str, Tensor]], Path], name: str
) -> None:
    whole: Any = timm.create_model(name, num_classes=3)
    whole.load_state_dict(weights_of(name))
    backbone = build_backbone(TimmBackboneConfig(name=name, pretrained=save(weights_of(name))), STRIDES)
    backbone.load_pretrained()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(backbone.eval()(images)[-1], whole.eval().forward_features(images))


def test_a_file_may_lack_the_counters_of_batches(save: Callable[[dict[str, Tensor]], Path]) -> None:
    weights = {key: x for key, x in weights_of(SMALL).items() if "num_batches_tracked" not in key}
    backbone = build_backbone(TimmBackboneConfig(name=SMALL, pretrained=save(weights)), STRIDES)
    backbone.load_pretrained()
    assert torch.equal(backbone.get_parameter("body.conv1.0.weight"), weights["conv1.0.weight"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer4.0.bn2.running_var"), r"1 of the backbone's 90 tensors .*layer4\.0\.bn2\.running_var"),
        (lambda w: w.update({"conv1.0.weight": torch.zeros(9, 3, 3, 3)}), r"1 of the backbone's 90 .*conv1\.0\.weight"),
        (lambda w: w.clear(), r"75 of the backbone's 90"),
    ],
)
def test_a_file_that_does_not_hold_the_whole_backbone_is_refused(
    save: Callable[[dict[str, Tensor]], Path], change: Callable[[dict[str, Tensor]], Any], message: str
) -> None:
    weights = weights_of(SMALL)
    change(weights)
    backbone = build_backbone(TimmBackboneConfig(name=SMALL, pretrained=save(weights)), STRIDES)
    with pytest.raises(ValueError, match=f"weights.safetensors does not hold timm's {SMALL}: {message}"):
        backbone.load_pretrained()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    backbone = build_backbone(TimmBackboneConfig(name=SMALL, pretrained=tmp_path / "none.safetensors"), STRIDES)
    with pytest.raises(FileNotFoundError, match=r"backbone\.pretrained names .*none\.safetensors"):
        backbone.load_pretrained()


def test_a_damaged_file_is_named(save: Callable[[dict[str, Tensor]], Path]) -> None:
    path = save({"conv1.0.weight": torch.zeros(64)})
    path.write_bytes(path.read_bytes()[:-8])
    backbone = build_backbone(TimmBackboneConfig(name=SMALL, pretrained=path), STRIDES)
    with pytest.raises(ValueError, match=r"weights\.safetensors is no whole safetensors file"):
        backbone.load_pretrained()


def test_weights_that_timm_fetches_are_taken_over(timm_fetches: Callable[[Callable[[], None]], None]) -> None:
    timm_fetches(lambda: torch.manual_seed(5) and None)
    backbone = build_backbone(TimmBackboneConfig(name=SMALL, pretrained=True), STRIDES)
    backbone.load_pretrained()
    torch.manual_seed(5)
    fetched = timm.create_model(SMALL, features_only=True)
    assert torch.equal(backbone.get_parameter("body.conv1.0.weight"), fetched.get_parameter("conv1.0.weight"))


def test_weights_that_cannot_be_fetched_name_the_model_and_the_way_out(
    timm_fetches: Callable[[Callable[[], None]], None],
) -> None:
    timm_fetches(no_network)
    backbone = build_backbone(TimmBackboneConfig(name=SMALL, pretrained=True), STRIDES)
    message = (
        r"weights of test_resnet \(ConnectionError: no route to host\); .*backbone\.pretrained to a safetensors file"
    )
    with pytest.raises(ValueError, match=message):
        backbone.load_pretrained()


def test_a_checkpoint_loads_without_fetching(
    tmp_path: Path, make_detector: Callable[..., Detector], timm_fetches: Callable[[Callable[[], None]], None]
) -> None:
    timm_fetches(no_network)
    detector = make_detector(backbone={"kind": "timm", "name": SMALL, "pretrained": True})
    save_detector(tmp_path, detector.config, detector.state_dict())
    loaded = load_detector(tmp_path)
    assert torch.equal(
        loaded.get_parameter("backbone.body.conv1.0.weight"), detector.get_parameter("backbone.body.conv1.0.weight")
    )


@pytest.mark.parametrize("config", [PLAIN, TimmBackboneConfig(name=SMALL)])
def test_a_backbone_from_scratch_keeps_its_weights(config: BackboneConfig) -> None:
    backbone = build_backbone(config, STRIDES)
    before = {key: x.clone() for key, x in backbone.state_dict().items()}
    backbone.load_pretrained()
    assert all(torch.equal(x, before[key]) for key, x in backbone.state_dict().items())


@pytest.mark.parametrize("freeze", [True, False])
def test_only_frozen_norms_stay_as_they_were_through_a_training_step(freeze: bool) -> None:
    backbone = TimmBackbone(TimmBackboneConfig(name=SMALL, freeze_norm=freeze), STRIDES)
    norms = [module for module in backbone.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    backbone.eval().train()
    before = [norm.get_buffer("running_mean").clone() for norm in norms]
    torch.stack([level.sum() for level in backbone(torch.randn(2, 3, 64, 64))]).sum().backward()
    assert all(norm.training != freeze for norm in norms)
    assert all((norm.weight.grad is None) == freeze for norm in norms)
    for norm, mean in zip(norms, before, strict=True):
        assert torch.equal(norm.get_buffer("running_mean"), mean) == freeze
    assert all(m.training for m in backbone.modules() if not isinstance(m, nn.BatchNorm2d))
    assert backbone.get_parameter("body.conv1.0.weight").grad is not None


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hgnetv2_b9", r"has no model 'hgnetv2_b9'; the nearest is 'hgnetv2_b\d'"),
        ("local-dir:elsewhere", "has no model 'local-dir:elsewhere'"),
        ("resnet18.nobody", r"cannot build resnet18\.nobody .*Invalid pretrained tag"),
        ("vit_tiny_patch16_224", r"gives NCHW maps at strides \(16, 16, 16\), not NCHW at \(8, 16, 32\)"),
        ("swin_tiny_patch4_window7_224", r"gives NHWC maps at strides \(8, 16, 32\), not NCHW"),
    ],
)
def test_a_timm_model_that_cannot_be_a_backbone_is_refused(name: str, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build_backbone(TimmBackboneConfig(name=name), STRIDES)


def test_the_plain_backbone_needs_no_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert build_backbone(PLAIN, STRIDES).channels == [6, 8, 10]
    with pytest.raises(ImportError):
        build_backbone(RESNET, STRIDES)
