"""The hosts of the D3Q paper, scaled down: they learn with D3Q on and off, and a picture does not feel its batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import (
    DecoderConfig,
    DeformableEncoderConfig,
    DensityConfig,
    DetectorConfig,
    QueryConfig,
    TimmBackboneConfig,
)
from model.decoder import class_scores
from model.detector import Detector
from model.structures import Denoising, DetectorOutput

DINO = DetectorConfig(
    classes=("plane", "ship", "tank"),
    strides=(4, 8, 16, 32, 64),
    width=64,
    backbone=TimmBackboneConfig(name="resnet18", pretrained=False, freeze_norm=True),
    heat=None,
    encoder=DeformableEncoderConfig(layers=2, heads=4, points=2, feedforward=32),
    density=DensityConfig(),
    query=QueryConfig(content="learned", k_min=4, k_max=40),
    decoder=DecoderConfig(
        layers=2, heads=4, feedforward=32, classification="softmax", look_forward_twice=True, checkpointing=True
    ),
)
DEFORMABLE_DETR = DINO.model_copy(
    update={"decoder": DecoderConfig(layers=2, heads=4, feedforward=32, checkpointing=True)},
)
HOSTS = {
    "DINO": DINO,
    "DINO with D3Q off": DINO.model_copy(update={"density": None}),
    "Deformable DETR": DEFORMABLE_DETR,
    "Deformable DETR with D3Q off": DEFORMABLE_DETR.model_copy(update={"density": None}),
}
TRUE_COUNTS = torch.tensor([1, 20])


@pytest.fixture
def make_host() -> Callable[[str], Detector]:
    """Builds a small host in evaluation mode; nothing in it is zero, as if it had been trained."""

    def make(name: str) -> Detector:
        torch.manual_seed(0)
        detector = Detector(HOSTS[name])
        with torch.no_grad():
            for parameter in detector.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return detector.eval()

    return make


def some_denoising() -> Denoising:
    """Four denoising queries of two groups for two pictures."""
    boxes = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.5 + 0.1
    return Denoising(torch.tensor([[0, 1, 2, 0]] * 2), boxes, torch.tensor([[0, 0, 1, 1]] * 2))


def total(output: DetectorOutput) -> Tensor:
    """A number that depends on every output, for a backward pass."""
    parts = [x for layer in (*output.layers, *output.denoising_layers) for x in (layer.logits, layer.boxes)]
    parts += [output.queries.logits, output.queries.reference_boxes]
    if output.count is not None:
        parts.append(output.count)
    return torch.stack([part.float().square().mean() for part in parts]).sum()


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_learns(make_host: Callable[[str], Detector], pictures: Callable[..., Tensor], name: str) -> None:
    detector = make_host(name).train()
    output = detector(pictures(2, 64, 128), some_denoising(), TRUE_COUNTS)
    total(output).backward()
    learning = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    assert {name for name, p in learning.items() if p.grad is None} == set()
    assert all(torch.isfinite(p.grad).all() for p in learning.values() if p.grad is not None)
    assert len(output.layers) == len(output.denoising_layers) == 2


@pytest.mark.parametrize(("name", "queries"), [("DINO", [4, 30]), ("DINO with D3Q off", [40, 40])])
def test_d3q_gives_each_picture_its_own_queries_and_all_of_them_without(
    make_host: Callable[[str], Detector], pictures: Callable[..., Tensor], name: str, queries: list[int]
) -> None:
    detector = make_host(name)
    if detector.density_head is not None:
        with torch.no_grad():
            detector.get_parameter("density_head.layers.2.bias").fill_(-30)  # no object anywhere
    output = detector(pictures(2, 64, 128), true_counts=TRUE_COUNTS)
    assert output.queries.valid.sum(1).tolist() == queries
    assert (output.count is None) == (detector.config.density is None)


@pytest.mark.parametrize("name", ["DINO", "Deformable DETR with D3Q off"])
@torch.no_grad()
def test_a_picture_of_a_host_gives_alone_what_it_gives_in_a_batch(
    make_host: Callable[[str], Detector], pictures: Callable[..., Tensor], name: str
) -> None:
    detector, images = make_host(name), pictures(2, 64, 128)
    together = detector(images, true_counts=TRUE_COUNTS)
    for i in range(2):
        alone = detector(images[i : i + 1], true_counts=TRUE_COUNTS[i : i + 1])
        kept = int(together.queries.valid[i].sum())
        assert alone.queries.valid.shape[1] == kept
        for one, many in zip(alone.layers, together.layers, strict=True):
            torch.testing.assert_close(one.boxes[0], many.boxes[i, :kept], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(one.logits[0], many.logits[i, :kept], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_denoising_leaves_the_queries_of_a_softmax_host_as_they_are(
    make_host: Callable[[str], Detector], pictures: Callable[..., Tensor]
) -> None:
    detector, images = make_host("DINO"), pictures(2, 64, 128)
    plain, noised = (detector(images, denoising, TRUE_COUNTS) for denoising in (None, some_denoising()))
    for one, other in zip(plain.layers, noised.layers, strict=True):
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=1e-5)
        torch.testing.assert_close(one.logits, other.logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "columns"), [("DINO", 4), ("Deformable DETR", 3)])
@torch.no_grad()
def test_softmax_has_a_column_for_the_background_that_is_no_score(
    make_host: Callable[[str], Detector], pictures: Callable[..., Tensor], name: str, columns: int
) -> None:
    detector = make_host(name)
    output = detector(pictures(2, 64, 128))
    assert output.layers[-1].logits.shape[-1] == columns
    assert output.queries.logits.shape[-1] == 3  # proposals stay with a sigmoid
    assert class_scores(output.layers[-1].logits, detector.config.decoder.classification).shape[-1] == 3


@pytest.mark.parametrize("name", ["DINO", "Deformable DETR"])
def test_queries_of_a_new_host_start_as_background(name: str) -> None:
    detector = Detector(HOSTS[name])
    head = detector.decoder.classify[0]
    assert class_scores(head(torch.zeros(1, 64)), detector.config.decoder.classification).max() < 0.011


@torch.no_grad()
def test_the_heat_of_a_host_without_hmpe_is_what_its_proposals_think(
    make_host: Callable[[str], Detector], pictures: Callable[..., Tensor]
) -> None:
    detector = make_host("DINO")
    encoded = detector.encode(pictures(2, 64, 128))
    assert (encoded.heat, encoded.heat_embedding) == ([], [])
    everything = detector.propose(encoded, 10_000, torch.tensor([4, 4])).logits.sigmoid()
    shown = detector.heat_maps(encoded)
    for (by_class, maps), (h, w) in zip(shown, encoded.shapes, strict=True):
        assert by_class.shape == (2, 3, h, w)
        most = by_class.amax(1)
        expected = torch.stack([most, torch.zeros_like(most), most, torch.ones_like(most)], 1)
        assert torch.equal(maps, expected)
    cells = torch.cat([by_class.flatten(2) for by_class, _ in shown], 2)[0].T  # (N, C)
    torch.testing.assert_close(cells.amax(1).sort().values, everything[0].amax(1).sort().values)


def losses_and_gradients(config: DetectorConfig, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)
    detector = Detector(config).train()
    loss = total(detector(images, some_denoising(), TRUE_COUNTS))
    loss.backward()
    return loss.detach(), {name: p.grad for name, p in detector.named_parameters() if p.grad is not None}


def changed(**changes: Any) -> DetectorConfig:
    return DINO.model_copy(update={"decoder": DINO.decoder.model_copy(update=changes)})


def test_activation_checkpointing_changes_no_gradient_of_a_host(pictures: Callable[..., Tensor]) -> None:
    images = pictures(2, 64, 128)
    loss, gradients = losses_and_gradients(changed(checkpointing=True), images)
    same_loss, same_gradients = losses_and_gradients(changed(checkpointing=False), images)
    assert torch.equal(loss, same_loss)
    assert gradients.keys() == same_gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(gradient, same_gradients[name], rtol=1e-5, atol=1e-7)


def test_looking_forward_twice_changes_what_a_layer_learns_but_not_what_it_says(
    pictures: Callable[..., Tensor],
) -> None:
    images = pictures(2, 64, 128)
    once, twice = (losses_and_gradients(changed(look_forward_twice=value), images) for value in (False, True))
    assert torch.equal(once[0], twice[0])
    first, last = "decoder.regress.0.2.bias", "decoder.regress.1.2.bias"
    assert not torch.allclose(once[1][first], twice[1][first])  # taught by the boxes of the second layer, too
    torch.testing.assert_close(once[1][last], twice[1][last])


def test_a_host_without_d3q_and_with_fewer_tokens_than_queries_uses_all_tokens(
    make_host: Callable[[str], Detector], pictures: Callable[..., Tensor]
) -> None:
    detector = make_host("DINO with D3Q off")
    tokens = 16 + 4 + 1 + 1 + 1
    assert detector(pictures(2, 16, 16)).queries.valid.sum(1).tolist() == [tokens] * 2
