"""The whole detector: every configuration runs, and a picture's result does not depend on its batch."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import DensityConfig
from model.density import DensityHead
from model.detector import Detector
from model.encoder import HybridEncoder
from model.structures import DetectorOutput

ENCODER: dict[str, Any] = {"kind": "hybrid", "heads": 2}
QUERY: dict[str, Any] = {"k_min": 3, "k_max": 40}
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "hard mask": {"heat": {"mask": "hard"}},
    "class activation map": {"heat": {"source": "cam", "box": "cam"}},
    "hard class activation map": {"heat": {"source": "cam", "box": "cam", "mask": "hard"}},
    "no MOHFE": {"encoder": ENCODER | {"mohfe": "off"}},
    "no HIDQ": {"query": QUERY | {"content": "memory"}},
    "no heat into the detector": {
        "heat": {"masked_position": "off"},
        "encoder": ENCODER | {"mohfe": "off"},
        "query": QUERY | {"content": "memory"},
    },
    "strides 4, 8, 16": {"strides": (4, 8, 16)},
    "no LSConv": {"encoder": ENCODER | {"lsconv": {"paths": "off"}}},
    "LSConv everywhere": {"encoder": ENCODER | {"lsconv": {"levels": 3}}},
    "one decoder layer": {"decoder": {"layers": 1}},
    "one class": {"classes": ("thing",)},
    "contents of heat alone": {"query": QUERY | {"content": "heat"}},
    "learned contents": {"query": QUERY | {"content": "learned"}},
    "cold cells suppressed": {"query": QUERY | {"suppress_cold": True}},
    "no density": {"density": None},
    "softmax, looking forward twice": {"decoder": {"classification": "softmax", "look_forward_twice": True}},
}


def total(output: DetectorOutput) -> Tensor:
    """A number that depends on every output, for a backward pass."""
    parts = [x for layer in output.layers for x in (layer.logits, layer.boxes)]
    parts += [x for heat in output.encoded.heat for x in (heat.logits, heat.deltas, heat.mixed)]
    parts += [output.queries.logits, output.queries.reference_boxes]
    parts += [] if output.count is None else [output.count]
    return torch.stack([part.float().square().mean() for part in parts]).sum()


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_configuration_learns(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor], name: str
) -> None:
    detector = make_detector(**CONFIGURATIONS[name]).train()
    output = detector(pictures(2), true_counts=torch.tensor([4, 0]))
    total(output).backward()
    unused = {n for n, p in detector.named_parameters() if p.grad is None}
    assert unused == {"decoder.embed_label.weight"}  # for denoising only
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)


def test_a_new_detector_already_learns_beyond_its_zero_initialised_gates(
    tiny_detector: Detector, pictures: Callable[..., Tensor]
) -> None:
    fresh = Detector(tiny_detector.config).train()
    total(fresh(pictures(2))).backward()
    assert isinstance(fresh.encoder, HybridEncoder)
    assert fresh.encoder.gates is not None
    for gate in fresh.encoder.gates:
        assert gate.grad is not None
        assert gate.grad.abs().max() > 0


@pytest.mark.parametrize("training", [True, False])
def test_bfloat16_is_finite_forward_and_backward(
    tiny_detector: Detector, pictures: Callable[..., Tensor], training: bool
) -> None:
    tiny_detector.train(training)
    with torch.autocast("cpu", torch.bfloat16):
        output = tiny_detector(pictures(2))
    assert output.layers[-1].boxes.dtype == torch.float32
    assert output.encoded.density.dtype == torch.float32
    assert all(level.dtype == torch.float32 for level in output.encoded.memory)
    total(output).backward()
    gradients = [p.grad for p in tiny_detector.parameters() if p.grad is not None]
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_bfloat16_is_close_to_full_precision(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    images = pictures(1)
    with torch.no_grad():
        full = tiny_detector.encode(images)
        with torch.autocast("cpu", torch.bfloat16):
            half = tiny_detector.encode(images)
    for one, other in zip(full.heat, half.heat, strict=True):
        torch.testing.assert_close(one.maps(), other.maps(), rtol=0, atol=0.05)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (64, 128), (96, 32)])
@pytest.mark.parametrize("name", ["default", "hard class activation map", "strides 4, 8, 16"])
@torch.no_grad()
def test_a_picture_alone_gives_what_it_gives_in_a_batch(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor], name: str, height: int, width: int
) -> None:
    detector, images = make_detector(**CONFIGURATIONS[name]), pictures(4, height, width)
    true_counts = torch.tensor([2, 20, 0, 26])
    together = detector(images, true_counts=true_counts)
    kept = together.queries.valid.sum(1).tolist()
    assert kept[1] == 30
    assert len(set(kept)) > 2  # the pictures need different numbers of queries
    pixels = torch.tensor([width, height, width, height])
    for i in range(4):
        alone = detector(images[i : i + 1], true_counts=true_counts[i : i + 1])
        assert alone.queries.valid.shape[1] == kept[i]
        torch.testing.assert_close(alone.count[0], together.count[i], rtol=1e-5, atol=1e-5)
        for one, many in zip(alone.layers, together.layers, strict=True):
            boxes = many.boxes[i, : kept[i]] * pixels
            torch.testing.assert_close(one.boxes[0] * pixels, boxes, rtol=1e-5, atol=1e-4)
            torch.testing.assert_close(one.logits[0], many.logits[i, : kept[i]], rtol=1e-4, atol=1e-4)
        for one, many in zip(alone.encoded.heat, together.encoded.heat, strict=True):
            torch.testing.assert_close(one.maps()[0], many.maps()[i], rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_class_heat_of_a_shifted_object_shifts_with_it(tiny_detector: Detector) -> None:
    shift, object_px = 32, torch.randint(0, 256, (3, 16, 16), generator=torch.Generator().manual_seed(1))
    images = torch.full((2, 3, 320, 320), 114, dtype=torch.uint8)
    images[0, :, 144:160, 144:160] = object_px
    images[1, :, 144:160, 144 + shift : 160 + shift] = object_px
    assert isinstance(tiny_detector.encoder, HybridEncoder)
    for read in tiny_detector.encoder.heat:
        read.get_parameter("classify.weight").mul_(20)  # a head that tells the object from the ground
    heat = tiny_detector.encode(images).heat
    for level, stride, border in ((0, 8, 15), (1, 16, 5)):  # cells that the picture's border reaches
        before, after = heat[level].by_class
        moved, size = shift // stride, 320 // stride
        inside, columns = slice(border, size - border), slice(border, size - border - moved)
        shifted = slice(columns.start + moved, columns.stop + moved)
        torch.testing.assert_close(before[:, inside, columns], after[:, inside, shifted], rtol=0, atol=1e-5)
        assert (before[:, inside, columns] - after[:, inside, columns]).abs().max() > 1e-3  # it did move


@torch.no_grad()
def test_the_count_is_the_sum_of_the_density(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    output = tiny_detector(pictures(2))
    assert output.encoded.density is not None
    assert output.encoded.density.shape == (2, 1, 8, 12)
    torch.testing.assert_close(output.count, output.encoded.density.sum((1, 2, 3)))


@torch.no_grad()
def test_the_density_of_a_cell_is_what_a_plain_loop_gives() -> None:
    head, level = DensityHead(4, DensityConfig(hidden=3)), torch.randn(1, 4, 5, 6)
    first, last = (layer for layer in head.layers if isinstance(layer, nn.Conv2d))
    assert first.bias is not None
    assert last.bias is not None
    padded = F.pad(level, (1, 1, 1, 1))[0]  # (4, 7, 8)
    for y, x in ((0, 0), (2, 3), (4, 5)):
        seen = padded[:, y : y + 3, x : x + 3]
        hidden = [max(0.0, float((w * seen).sum() + b)) for w, b in zip(first.weight, first.bias, strict=True)]
        logit = float(last.bias) + sum(float(w) * value for w, value in zip(last.weight[0], hidden, strict=True))
        assert float(head(level)[0, 0, y, x]) == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-6)


@torch.no_grad()
def test_pictures_are_normalised_inside(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor]
) -> None:
    images = pictures(1)
    plain = make_detector(pixel_mean=(0.0, 0.0, 0.0), pixel_std=(1.0, 1.0, 1.0))
    shifted = make_detector(pixel_mean=(10.0, 10.0, 10.0), pixel_std=(0.5, 0.5, 0.5))
    expected = plain.backbone((images.float() - 10) * 2)
    assert plain.density_head is not None
    torch.testing.assert_close(shifted.encode(images).density, plain.density_head(plain.encoder(expected)[0][0]))


def test_weights_that_are_not_numbers_give_a_loss_that_is_none_instead_of_a_crash(
    tiny_detector: Detector, pictures: Callable[..., Tensor]
) -> None:
    with torch.no_grad():
        tiny_detector.get_parameter("backbone.stem.0.weight").fill_(torch.nan)
    count = tiny_detector(pictures(2)).count
    assert count is not None
    assert count.isnan().all()
