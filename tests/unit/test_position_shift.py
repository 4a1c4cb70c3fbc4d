"""A crop that stands for any part of a larger picture: its positions are moved at random in training."""

from collections.abc import Callable

import torch
from torch import Tensor

from model.detector import Detector
from model.layers import sine_encoding
from training.draws import DrawOfStep


def test_an_encoding_with_an_origin_is_a_part_of_a_larger_one() -> None:
    larger = sine_encoding(9, 12, 16, like=torch.zeros(1))
    origin = torch.tensor([[4.0, 2.0], [0.0, 5.0]])  # x, y
    part = sine_encoding(3, 5, 16, like=torch.zeros(1), origin=origin)
    torch.testing.assert_close(part[0], larger[0, :, 2:5, 4:9])
    torch.testing.assert_close(part[1], larger[0, :, 5:8, 0:5])


@torch.no_grad()
def test_a_box_is_embedded_where_it_would_be_in_the_larger_picture(tiny_detector: Detector) -> None:
    crop, whole = torch.zeros(1, 16, 4, 4), torch.zeros(1, 16, 8, 8)  # finest levels, 8 px a cell
    in_crop = torch.tensor([[[0.5, 0.25, 0.125, 0.25]]])
    shift = torch.tensor([[16.0, 24.0]])
    in_whole = torch.tensor([[[32 / 64, 32 / 64, 4 / 64, 8 / 64]]])
    decoder = tiny_detector.decoder
    torch.testing.assert_close(decoder._position(in_crop, crop, shift), decoder._position(in_whole, whole, None))


@torch.no_grad()
def test_a_shift_moves_only_the_picture_it_is_given_for(
    tiny_detector: Detector, pictures: Callable[..., Tensor]
) -> None:
    images = pictures(2)
    still = tiny_detector(images).layers[-1].logits
    moved = tiny_detector(images, shift=torch.tensor([[0.0, 0.0], [70.0, 30.0]])).layers[-1].logits
    torch.testing.assert_close(moved[0], still[0])
    assert not torch.allclose(moved[1], still[1], atol=1e-3)


def test_a_picture_is_shifted_alike_whichever_process_has_it() -> None:
    whole = DrawOfStep(0, 7, 4, range(4)).shifts(100)
    assert torch.equal(DrawOfStep(0, 7, 4, range(2, 4)).shifts(100), whole[2:])
    assert not torch.equal(DrawOfStep(0, 8, 4, range(4)).shifts(100), whole)


def test_shifts_lie_between_nothing_and_the_most() -> None:
    shifts = torch.cat([DrawOfStep(0, step, 8, range(8)).shifts(640) for step in range(20)])
    assert shifts.shape == (160, 2)
    assert shifts.min() >= 0
    assert 600 < shifts.max() <= 640
