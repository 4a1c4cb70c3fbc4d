"""Density maps that sum to the count, and the cells that answer for an object."""

import math
from collections.abc import Callable, Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor

from model.boxes import anchors
from training.data.samples import Targets
from training.targets import (
    CANDIDATES,
    CELLS_PER_BOX,
    SIGMA_CELLS,
    DenseAssignment,
    assign_dense,
    density_targets,
    gaussian_radius,
)

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
@pytest.mark.parametrize("spread", ["box", "paper"])
def test_the_density_of_one_object_sums_to_one(
    box: list[float], size: tuple[int, int], spread: Literal["box", "paper"]
) -> None:
    density = density_targets(torch.tensor([box]), size, spread)
    assert density.shape == size
    assert density.min() >= 0
    assert density.sum() == pytest.approx(1, abs=1e-5)


def test_the_density_of_a_crowd_sums_to_the_count() -> None:
    crowd = torch.rand(500, 4, generator=torch.Generator().manual_seed(0)) * 0.1  # all in one corner
    assert density_targets(crowd, (40, 40)).sum() == pytest.approx(500, rel=1e-5)


def test_taking_the_maximum_loses_count_in_a_crowd() -> None:
    pair = torch.tensor([[0.5, 0.5, 0.1, 0.1], [0.52, 0.5, 0.1, 0.1]])
    assert density_targets(pair, (20, 20), overlap="max").sum() < 1.6
    assert density_targets(pair[:1], (20, 20), overlap="max").sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("spread", ["box", "paper"])
@pytest.mark.parametrize("overlap", ["sum", "max"])
def test_an_empty_picture_has_no_density(spread: Literal["box", "paper"], overlap: Literal["sum", "max"]) -> None:
    assert torch.equal(density_targets(torch.zeros(0, 4), (5, 6), spread, overlap), torch.zeros(5, 6))


def some_boxes(count: int) -> Tensor:
    """Boxes of 1 to 30 cells on a map of 24 x 40, in double precision."""
    boxes = torch.rand(count, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    boxes[:, 2:] = boxes[:, 2:] ** 2 * 0.7 + 0.03
    return boxes


def moves(w: float, h: float, r: float) -> Iterator[float]:
    """IoU of a box with itself, its corners moved by r the same way, both inwards, both outwards."""
    shared = (w - r) * (h - r)
    yield shared / (2 * w * h - shared)
    yield (w - 2 * r) * (h - 2 * r) / (w * h)
    yield w * h / ((w + 2 * r) * (h + 2 * r))


def slow_radius(w: float, h: float, least: float) -> float:
    """The largest radius at which all three moves keep the IoU, by halving an interval."""
    low, high = 0.0, min(w, h) / 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if min(moves(w, h, middle)) >= least else (low, middle)
    return low


@pytest.mark.parametrize("least", [0.3, 0.7])
def test_the_radius_is_how_far_corners_may_move(least: float) -> None:
    sides = some_boxes(30)[:, 2:] * 40
    for got, (w, h) in zip(gaussian_radius(sides, least).tolist(), sides.tolist(), strict=True):
        assert got == pytest.approx(slow_radius(w, h, least), abs=1e-6)


def sigmas(spread: str, w: float, h: float) -> tuple[float, float]:
    if spread == "box":
        return min(max(w / 6, 0.8), 2.5), min(max(h / 6, 0.8), 2.5)
    radius = max(1, int(slow_radius(w, h, 0.3)))
    return (2 * radius + 1) / 6, (2 * radius + 1) / 6


def slow_density(boxes: Tensor, size: tuple[int, int], spread: str, overlap: str) -> list[list[float]]:
    """Cell by cell and object by object."""
    (h, w), maps = size, []
    for cx, cy, bw, bh in boxes.tolist():
        sx, sy = sigmas(spread, bw * w, bh * h)
        x, y = cx * w, cy * h
        one = [
            [math.exp(-((j + 0.5 - x) ** 2) / (2 * sx**2) - (i + 0.5 - y) ** 2 / (2 * sy**2)) for j in range(w)]
            for i in range(h)
        ]
        mass = sum(map(sum, one))
        maps.append([[cell / mass for cell in row] for row in one])
    combine = sum if overlap == "sum" else max
    return [[combine(one[i][j] for one in maps) for j in range(w)] for i in range(h)]


@pytest.mark.parametrize("spread", ["box", "paper"])
@pytest.mark.parametrize("overlap", ["sum", "max"])
def test_the_density_follows_its_formula(spread: Literal["box", "paper"], overlap: Literal["sum", "max"]) -> None:
    boxes, size = some_boxes(12), (24, 40)
    expected = torch.tensor(slow_density(boxes, size, spread, overlap), dtype=torch.float64)
    torch.testing.assert_close(density_targets(boxes, size, spread, overlap), expected, rtol=1e-6, atol=1e-12)


def test_the_papers_gaussian_of_a_tiny_object_has_a_radius_of_one_cell() -> None:
    tiny, small = torch.tensor([[0.5, 0.5, 0.01, 0.01]]), torch.tensor([[0.5, 0.5, 0.1, 0.1]])  # 0.2 and 2 cells
    assert torch.equal(density_targets(tiny, (21, 21), "paper"), density_targets(small, (21, 21), "paper"))


def test_the_maximum_of_a_crowd_is_taken_over_all_of_it() -> None:
    crowd = torch.rand(300, 4, generator=torch.Generator().manual_seed(0)) * 0.5
    alone = torch.stack([density_targets(box[None], (10, 10), "paper") for box in crowd])
    together = density_targets(crowd, (10, 10), "paper", "max")
    torch.testing.assert_close(together, alone.amax(0))


def test_the_density_of_two_touching_objects_can_be_said_by_cells_between_zero_and_one() -> None:
    pair = torch.tensor([[0.5, 0.5, 1e-6, 1e-6]] * 4)
    assert SIGMA_CELLS[0] == 0.8
    assert density_targets(pair, (21, 21)).max() <= 1


def assign(targets: Targets, scores: Tensor | None = None, boxes: Tensor | None = None) -> DenseAssignment:
    known = anchors(SHAPES, cells=2.0, like=targets.boxes)  # (1, N, 4)
    batch, tokens = len(targets.labels), known.shape[1]
    cell_sizes = torch.cat([known.new_full((h * w,), s) for (h, w), s in zip(SHAPES, STRIDES, strict=True)])
    return assign_dense(
        torch.full((batch, tokens, 3), 0.01) if scores is None else scores,
        known.expand(batch, -1, -1) if boxes is None else boxes,
        known[0], cell_sizes, known.new_tensor([SIDE, SIDE]), targets,
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


def slow_overlaps(a: list[float], b: list[float]) -> tuple[float, float]:
    """IoU and GIoU of two boxes, cxcywh."""
    low, high = ([[c[k] + s * c[k + 2] / 2 for c in (a, b)] for k in (0, 1)] for s in (-1, 1))
    shared = math.prod(max(0.0, min(high[k]) - max(low[k])) for k in (0, 1))
    union = a[2] * a[3] + b[2] * b[3] - shared
    hull = math.prod(max(high[k]) - min(low[k]) for k in (0, 1))
    return shared / union, shared / union - (hull - union) / hull


def may_answer(anchor: list[float], stride: int, box: list[float]) -> bool:
    """Inside the object, or within a cell of its centre, on a level that is meant for its size."""
    x, y, w, h = (v * SIDE for v in box)
    if max(w, h) > CELLS_PER_BOX * stride and stride != STRIDES[-1]:
        return False
    dx, dy = abs(anchor[0] * SIDE - x), abs(anchor[1] * SIDE - y)
    return dx <= max(0.45 * w, stride) and dy <= max(0.45 * h, stride)


def slow_assignment(scores: Tensor, boxes: Tensor, known: Tensor, targets: Targets) -> list[tuple[int, float]]:
    """(object or -1, quality) of every cell of one picture, object by object."""
    strides = [s for (h, w), s in zip(SHAPES, STRIDES, strict=True) for _ in range(h * w)]
    claims: list[dict[int, float]] = [{} for _ in strides]
    strongest, best_fit = [], []
    for g, (truth, label) in enumerate(zip(targets.boxes[0].tolist(), targets.labels[0].tolist(), strict=True)):
        aligned, fits = {}, {}
        for n, stride in enumerate(strides):
            iou, giou = slow_overlaps(boxes[0, n].tolist(), truth)
            fits[n] = min(max((iou + giou + 1) / 3, 0.0), 1.0)
            if may_answer(known[0, n].tolist(), stride, truth):
                aligned[n] = float(scores[0, n, label]) ** 0.5 * ((giou + 1) / 2) ** 3 + 1e-9
        chosen = sorted(aligned, key=aligned.__getitem__, reverse=True)[:CANDIDATES]
        strongest.append(max(aligned[n] for n in chosen))
        best_fit.append(max(fits[n] for n in chosen))
        for n in chosen:
            claims[n][g] = aligned[n]
    owners = [max(claim, key=claim.__getitem__) if claim else -1 for claim in claims]
    return [
        (g, claim[g] / strongest[g] * best_fit[g]) if g >= 0 else (-1, 0.0)
        for g, claim in zip(owners, claims, strict=True)
    ]


@pytest.mark.parametrize("seed", range(3))
def test_the_dense_assignment_follows_its_rules(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    known = anchors(SHAPES, cells=2.0, like=torch.zeros(1, dtype=torch.float64))
    rows = torch.rand(6, 4, generator=generator, dtype=torch.float64)
    rows[:, 2:] = rows[:, 2:] ** 2 * 0.5 + 0.01
    rows[5, :2] = rows[4, :2] + 0.01  # two that want the same cells
    targets = Targets(rows[None], torch.tensor([[0, 1, 2, 0, 1, 2]]))
    scores = torch.rand(1, known.shape[1], 3, generator=generator, dtype=torch.float64)
    boxes = known * (1 + 0.2 * torch.rand(known.shape, generator=generator, dtype=torch.float64))
    assigned = assign(targets, scores, boxes)
    expected = slow_assignment(scores, boxes, known, targets)
    labels = [-1 if g < 0 else int(targets.labels[0, g]) for g, _ in expected]
    assert assigned.labels[0].tolist() == labels
    torch.testing.assert_close(
        assigned.quality[0], torch.tensor([q for _, q in expected], dtype=torch.float64), rtol=0, atol=1e-6
    )
    for n, (g, _) in enumerate(expected):
        assert g < 0 or torch.equal(assigned.boxes[0, n], targets.boxes[0, g])


def test_pictures_are_assigned_alike_a_few_at_a_time(
    monkeypatch: pytest.MonkeyPatch, make_targets: Callable[..., Targets]
) -> None:
    crowd = [(0, 0.2 + 0.1 * i, 0.5, 0.1, 0.1) for i in range(5)]
    targets = make_targets([(0, 0.5, 0.5, 0.2, 0.2)], [], crowd)
    anchor_boxes = anchors([(8, 8)], 2.0, like=torch.zeros(1))
    torch.manual_seed(0)
    scores, boxes = torch.rand(3, 64, 2), anchor_boxes.expand(3, -1, -1)
    given = (scores, boxes, anchor_boxes[0], torch.full((64,), 8.0), torch.tensor([64.0, 64.0]), targets)
    together = assign_dense(*given)
    assert (together.labels >= 0).any(1).tolist() == [True, False, True]
    monkeypatch.setattr("training.targets.MOST_PAIRS", 1)
    alone = assign_dense(*given)
    assert torch.equal(alone.labels, together.labels)
    assert torch.equal(alone.quality, together.quality)
