"""Box formats, overlaps, anchors and refinement."""

import math

import torch
from torchvision.ops import box_iou, generalized_box_iou

from model.boxes import MAX_LOG_SCALE, anchors, overlaps, refine, to_xyxy


def random_boxes(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 4, generator=generator) * torch.tensor([1.0, 1.0, 0.5, 0.5]) + 0.001


def test_overlaps_are_those_of_torchvision() -> None:
    first, second = to_xyxy(random_boxes(20, 0)), to_xyxy(random_boxes(30, 1))
    iou, giou = overlaps(first[:, None], second[None])
    torch.testing.assert_close(iou, box_iou(first, second), rtol=0, atol=1e-5)
    torch.testing.assert_close(giou, generalized_box_iou(first, second), rtol=0, atol=1e-5)


def test_a_box_of_two_pixels_overlaps_itself_wholly() -> None:
    box = to_xyxy(torch.tensor([0.5, 0.5, 2 / 1024, 2 / 1024]))
    iou, giou = overlaps(box, box)
    assert iou > 0.999
    assert giou > 0.999


def test_boxes_without_area_overlap_without_nan() -> None:
    box = torch.tensor([0.5, 0.5, 0.5, 0.5])
    assert all(torch.isfinite(value) for value in overlaps(box, box))


def test_no_residual_leaves_a_box_where_it_is() -> None:
    boxes = random_boxes(5, 0)
    torch.testing.assert_close(refine(boxes, torch.zeros(5, 4)), boxes)


def test_a_residual_moves_by_half_a_side_and_scales_by_its_exponential() -> None:
    refined = refine(torch.tensor([0.4, 0.5, 0.2, 0.1]), torch.tensor([1.0, -2.0, math.log(2), 0.0]))
    torch.testing.assert_close(refined, torch.tensor([0.5, 0.4, 0.4, 0.1]))


def test_a_residual_cannot_scale_without_bound() -> None:
    refined = refine(torch.tensor([0.5, 0.5, 0.01, 0.01]), torch.tensor([0.0, 0.0, 100.0, -100.0]))
    torch.testing.assert_close(refined[2:], 0.01 * torch.tensor([MAX_LOG_SCALE, -MAX_LOG_SCALE]).exp())


def test_anchors_lie_on_cell_centres_level_by_level_row_by_row() -> None:
    boxes = anchors([(2, 4), (1, 2)], cells=2.0, like=torch.zeros(1))[0]
    assert boxes.shape == (10, 4)
    assert boxes[0].tolist() == [0.125, 0.25, 0.5, 1.0]
    assert boxes[5].tolist() == [0.375, 0.75, 0.5, 1.0]  # row 1, column 1 of the first level
    assert boxes[9].tolist() == [0.75, 0.5, 1.0, 2.0]
