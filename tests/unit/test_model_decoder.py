"""What the decoder's queries may see of each other."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from model.decoder import BLOCKED, attention_bias
from model.detector import Detector
from model.structures import Denoising, DetectorOutput

GROUPS = torch.tensor([0, 0, 1, 1])


def some_denoising(seed: int) -> Denoising:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (2, 4), generator=generator)
    return Denoising(labels, torch.rand(2, 4, 4, generator=generator) * 0.5 + 0.1, GROUPS.expand(2, -1))


@torch.no_grad()
def run(detector: Detector, images: Tensor, denoising: Denoising | None) -> DetectorOutput:
    return detector(images, denoising, torch.tensor([6, 2]))


def test_the_bias_blocks_padding_other_groups_and_denoising() -> None:
    valid = torch.tensor([[True, True], [True, False]])
    bias = attention_bias(valid, Denoising(torch.zeros(2, 3), torch.zeros(2, 3, 4), torch.tensor([[0, 0, 1]] * 2)))
    x = BLOCKED
    of_group_0, of_group_1, real = [0, 0, x, 0, 0], [x, x, 0, 0, 0], [x, x, x, 0, 0]
    assert bias.shape == (2, 1, 5, 5)
    assert bias[0, 0].tolist() == [of_group_0, of_group_0, of_group_1, real, real]
    assert bias[1, 0, :, 4].tolist() == [x] * 5


def test_denoising_leaves_the_real_queries_as_they_are(
    tiny_detector: Detector, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(2)
    without, one, other = (run(tiny_detector, images, d) for d in (None, some_denoising(1), some_denoising(2)))
    for plain, first, second in zip(without.layers, one.layers, other.layers, strict=True):
        assert torch.equal(first.boxes, second.boxes)
        assert torch.equal(first.logits, second.logits)
        torch.testing.assert_close(plain.boxes, first.boxes, rtol=0, atol=1e-6)
        torch.testing.assert_close(plain.logits, first.logits, rtol=0, atol=1e-5)
    assert not torch.equal(one.denoising_layers[-1].boxes, other.denoising_layers[-1].boxes)


def test_denoising_groups_do_not_see_each_other(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    before, second_group = some_denoising(1), GROUPS == 1
    after = replace(
        before,
        labels=torch.where(second_group, (before.labels + 1) % 3, before.labels),
        boxes=torch.where(second_group[:, None], before.boxes * 0.5, before.boxes),
    )
    one, other = (run(tiny_detector, pictures(2), d).denoising_layers[-1].logits for d in (before, after))
    assert torch.equal(one[:, ~second_group], other[:, ~second_group])
    assert not torch.equal(one[:, second_group], other[:, second_group])


def test_without_denoising_there_is_nothing_restored(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    assert run(tiny_detector, pictures(2), None).denoising_layers == []


@torch.no_grad()
def test_a_decoder_cut_short_gives_the_same_layers(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    images = pictures(2)
    whole = run(tiny_detector, images, None).layers
    tiny_detector.decoder.layers = tiny_detector.decoder.layers[:1]
    tiny_detector.decoder.classify = tiny_detector.decoder.classify[:1]
    tiny_detector.decoder.regress = tiny_detector.decoder.regress[:1]
    (only,) = run(tiny_detector, images, None).layers
    assert torch.equal(only.boxes, whole[0].boxes)
    assert torch.equal(only.logits, whole[0].logits)
