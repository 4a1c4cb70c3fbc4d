"""Density maps that sum to the count, and the cells that answer for an object."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.boxes import anchors
from training.data.samples import Targets
from training.targets import CANDIDATES, CELLS_PER_BOX, SIGMA_CELLS, DenseAssignment, assign_dense, density_targets

SHAPES, STRIDES, SIDE = [(32, 32), (16, 16), (8, 8)], (8, 16, 32), 256


@pytest.mark.parametrize(
    "box",
    [
        [0.5, 0.5, 0.1, 0.1],
        [0.0, 0.5, 0.02, 0.3],  # at a border
        [1.0, 1.0, 0.01, 0.01],  # in a corner
        [0.001, 0.999, 0.9, 0.9],  # larger than what is left of the picture
        [0.5, 0.5, 1.0, 1.0],
        [0.37, 0.61, 1e-6, 1e-6],
    ],
)
@pytest.mark.parametrize("size", [(20, 30), (7, 3)])
def test_the_density_of_one_object_sums_to_one(box: list[float], size: tuple[int, int]) -> None:
    density = density_targets(torch.tensor([box]), size)
    assert density.shape == size
    assert density.min() >= 0
    assert density.sum() == pytest.approx(1, abs=1e-5)


def test_the_density_of_a_crowd_sums_to_the_count() -> None:
    crowd = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)) * 0.1  # all in one corner
    assert density_targets(crowd, (40, 40)).sum() == pytest.approx(500, rel=1e-5)


def test_taking_the_maximum_loses_count_in_a_crowd() -> None:
    pair = torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.52, 0.5, 0.1, 0.1]])
    assert density_targets(pair, (20, 20), "max").sum() < 1.6
    assert density_targets(pair[:1], (20, 20), "max").sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("overlap", ["sum", "max"])
def test_an_empty_picture_has_no_density(overlap: str) -> None:
    assert torch.equal(density_targets(torch.zeros(0, 4), (5, 6), overlap), torch.zeros(5, 6))


def test_the_density_is_a_gaussian_around_the_centre() -> None:
    density = density_targets(torch.tensor([[0.3, 0.7, 0.3, 0.4]]), (30, 40))
    y, x = torch.meshgrid(torch.arange(30) + 0.5, torch.arange(40) + 0.5, indexing="ij")
    sigma_x, sigma_y = 0.3 * 40 / 6, 0.4 * 30 / 6
    slow = torch.exp(-((x - 12) ** 2) / (2 * sigma_x**2) - (y - 21) ** 2 / (2 * sigma_y**2))
    torch.testing.assert_close(density, slow / slow.sum(), rtol=1e-4, atol=1e-7)


def test_the_density_of_two_touching_objects_can_be_said_by_cells_between_zero_and_one() -> None:
    pair = torch.tensor([[0.5, 0.5, 1e-6, 1e-6]] * 4)
    assert SIGMA_CELLS[0] == 0.8
    assert density_targets(pair, (21, 21)).max() <= 1


def assign(targets: Targets, scores: Tensor | None = None, boxes: Tensor | None = None) -> DenseAssignment:
    known = anchors(SHAPES, cells=2.0, like=torch.zeros(1))  # (1, N, 4)
    batch, tokens = len(targets.labels), known.shape[1]
    cell_sizes = torch.cat([torch.full((h * w,), float(s)) for (h, w), s in zip(SHAPES, STRIDES, strict=True)])
    return assign_dense(
        torch.full((batch, tokens, 3), 0.01) if scores is None else scores,
        known.expand(batch, -1, -1) if boxes is None else boxes,
        known[0], cell_sizes, torch.tensor([float(SIDE), float(SIDE)]), targets,
    )  # fmt: skip


def levels_of(assignment: DenseAssignment) -> list[int]:
    """Which levels have positive cells in the first picture."""
    parts = assignment.labels[0].split([h * w for h, w in SHAPES])
    return [level for level, part in enumerate(parts) if (part >= 0).any()]


@pytest.mark.parametrize("px", [2, 9, 40, 120, 256])
def test_an_object_gets_at_most_the_candidates(make_targets: Callable[..., Targets], px: int) -> None:
    side = px / SIDE
    assigned = assign(make_targets([(1, 0.5, 0.5, side, side)]))
    positive = assigned.labels[0] >= 0
    assert 1 <= positive.sum() <= CANDIDATES
    assert (assigned.labels[0][positive] == 1).all()
    assert (assigned.boxes[0][positive] == torch.tensor([0.5, 0.5, side, side])).all()
    assert (assigned.quality[0][~positive] == 0).all()
    assert (assigned.quality[0][positive] > 0).all()
    assert (assigned.quality[0][positive] <= 1).all()


@pytest.mark.parametrize("x", [0.002, 0.1251, 0.4999, 0.5, 0.998])
@pytest.mark.parametrize("y", [0.002, 0.33, 0.998])
def test_a_tiny_object_always_gets_a_cell(make_targets: Callable[..., Targets], x: float, y: float) -> None:
    assert (assign(make_targets([(0, x, y, 0.001, 0.001)])).labels >= 0).any()


def test_a_huge_object_goes_to_the_coarsest_level(make_targets: Callable[..., Targets]) -> None:
    side = (CELLS_PER_BOX * STRIDES[1] + 1) / SIDE
    assert levels_of(assign(make_targets([(0, 0.5, 0.5, side, 0.1)]))) == [2]


def test_an_object_too_large_for_a_level_gets_no_cell_there(make_targets: Callable[..., Targets]) -> None:
    side = (CELLS_PER_BOX * STRIDES[0] + 1) / SIDE
    assert 0 not in levels_of(assign(make_targets([(0, 0.5, 0.5, side, side)])))


def test_cells_that_already_do_well_answer(make_targets: Callable[..., Targets]) -> None:
    targets = make_targets([(2, 0.5, 0.5, 0.1, 0.1)])
    known = anchors(SHAPES, cells=2.0, like=torch.zeros(1))
    centre = 16 * 32 + 16  # the cell right below and right of the middle
    boxes, scores = known.clone(), torch.full((1, known.shape[1], 3), 0.01)
    boxes[0, centre], scores[0, centre, 2] = targets.boxes[0, 0], 0.9
    assigned = assign(targets, scores, boxes)
    assert assigned.quality[0].argmax() == centre
    assert assigned.quality[0, centre] == pytest.approx(1, abs=1e-3)


def test_a_cell_wanted_by_two_objects_answers_for_one(make_targets: Callable[..., Targets]) -> None:
    assigned = assign(make_targets([(0, 0.5, 0.5, 0.1, 0.1), (1, 0.51, 0.5, 0.1, 0.1)]))
    for label, x in ((0, 0.5), (1, 0.51)):
        cells = assigned.labels[0] == label
        assert (assigned.boxes[0][cells][:, 0] == x).all()


def test_an_empty_picture_is_all_background(make_targets: Callable[..., Targets]) -> None:
    assigned = assign(make_targets([], [(1, 0.5, 0.5, 0.1, 0.1)]))
    assert (assigned.labels[0] == -1).all()
    assert (assigned.quality[0] == 0).all()
    assert (assigned.labels[1] == 1).any()


def test_padding_is_no_object(make_targets: Callable[..., Targets]) -> None:
    alone = assign(make_targets([(1, 0.2, 0.2, 0.1, 0.1)]))
    beside = assign(make_targets([(1, 0.2, 0.2, 0.1, 0.1)], [(0, 0.5, 0.5, 0.1, 0.1), (0, 0.7, 0.5, 0.1, 0.1)]))
    assert torch.equal(alone.labels[0], beside.labels[0])
    assert torch.equal(alone.quality[0], beside.quality[0])
