"""Hungarian matching against trying every assignment."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.boxes import overlaps, to_xyxy
from training.config import LossConfig
from training.data.samples import Targets
from training.losses import tiny_l1
from training.matcher import HungarianMatcher, Matches

WEIGHTS = LossConfig(
    classification=1, tiny_l1=0.5, giou=2, dense=1, density=1, count=1, denoising=1, density_overlap="sum"
)
Objects = list[tuple[int, float, float, float, float]]


def cost(logit: float, box: Tensor, target: Tensor) -> float:
    """Focal cost of the object's class + 0.5 refined L1 - 2 GIoU, for one pair."""
    p = 1 / (1 + math.exp(-logit))
    focal = 2 * (0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p))
    _, giou = overlaps(to_xyxy(box), to_xyxy(target))
    return focal + 0.5 * float(tiny_l1(box, target)) - 2 * float(giou)


def random_objects(generator: torch.Generator, count: int) -> Objects:
    rows = (torch.rand(count, 4, generator=generator) * 0.5 + 0.05).tolist()
    return [(i % 3, *row) for i, row in enumerate(rows)]


def of_image(matches: Matches, image: int) -> list[tuple[int, int]]:
    """(query, object) of one picture."""
    here = matches.image == image
    return list(zip(matches.query[here].tolist(), matches.target[here].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(5))
def test_matching_is_the_cheapest_of_all_assignments(make_targets: Callable[..., Targets], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = make_targets(random_objects(generator, 3), random_objects(generator, 1))
    logits, boxes = torch.randn(2, 5, 3, generator=generator), torch.rand(2, 5, 4, generator=generator) * 0.5 + 0.05
    matches = HungarianMatcher(WEIGHTS)(logits, boxes, torch.ones(2, 5, dtype=torch.bool), targets)
    for i, count in enumerate([3, 1]):
        labels = targets.labels[i].tolist()
        costs = [
            [cost(float(logits[i, q, labels[t]]), boxes[i, q], targets.boxes[i, t]) for q in range(5)]
            for t in range(count)
        ]
        totals = {qs: sum(costs[t][q] for t, q in enumerate(qs)) for qs in itertools.permutations(range(5), count)}
        cheapest = min(totals, key=totals.__getitem__)
        assert sorted(of_image(matches, i), key=lambda pair: pair[1]) == [(q, t) for t, q in enumerate(cheapest)]


def test_an_invalid_query_is_never_matched_however_good_it_is(make_targets: Callable[..., Targets]) -> None:
    targets = make_targets([(0, 0.5, 0.5, 0.2, 0.2)])
    boxes = torch.tensor([[[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.2, 0.2]]])
    logits = torch.tensor([[[-5.0], [5.0]]])
    assert of_image(HungarianMatcher(WEIGHTS)(logits, boxes, torch.tensor([[True, True]]), targets), 0) == [(1, 0)]
    assert of_image(HungarianMatcher(WEIGHTS)(logits, boxes, torch.tensor([[True, False]]), targets), 0) == [(0, 0)]


def test_padding_and_empty_pictures_are_never_matched(make_targets: Callable[..., Targets]) -> None:
    targets = make_targets([], [(0, 0.5, 0.5, 0.2, 0.2)], [(0, 0.2, 0.2, 0.1, 0.1), (1, 0.7, 0.7, 0.1, 0.1)])
    valid = torch.ones(3, 4, dtype=torch.bool)
    matches = HungarianMatcher(WEIGHTS)(torch.randn(3, 4, 2), torch.rand(3, 4, 4), valid, targets)
    assert matches.image.tolist() == [1, 2, 2]
    assert sorted(matches.target.tolist()) == [0, 0, 1]


def test_more_objects_than_valid_queries_leave_some_unmatched(make_targets: Callable[..., Targets]) -> None:
    targets = make_targets(random_objects(torch.Generator().manual_seed(0), 6))
    valid = torch.tensor([[True, True, False, False]])
    matches = HungarianMatcher(WEIGHTS)(torch.randn(1, 4, 3), torch.rand(1, 4, 4), valid, targets)
    assert sorted(matches.query.tolist()) == [0, 1]


def test_predictions_that_are_not_numbers_are_matched_without_a_crash(make_targets: Callable[..., Targets]) -> None:
    targets = make_targets([(0, 0.5, 0.5, 0.2, 0.2)])
    matches = HungarianMatcher(WEIGHTS)(
        torch.full((1, 2, 1), torch.nan), torch.full((1, 2, 4), torch.inf), torch.ones(1, 2, dtype=torch.bool), targets
    )
    assert len(matches.query) == 1
