"""Hungarian matching against trying every assignment."""

import itertools
import math
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from torch import Tensor
from torchvision.ops import generalized_box_iou

from model.boxes import to_xyxy
from training.config import MatcherConfig
from training.data.samples import Targets
from training.matcher import HungarianMatcher, Matches

WEIGHTS = MatcherConfig(classification=2, tiny_l1=0.5, l1=0, giou=2)
RT_DETR = MatcherConfig(classification=2, tiny_l1=0, l1=5, giou=2)
ALL = MatcherConfig(classification=1.5, tiny_l1=0.3, l1=0.7, giou=1.1)
ONLY_CLASS = MatcherConfig(classification=1, tiny_l1=0, l1=0, giou=0)
Objects = list[tuple[int, float, float, float, float]]


def class_cost(logits: Tensor, label: int, classification: str) -> float:
    """Minus the probability for a softmax, the focal loss as a positive less that as a negative for sigmoids."""
    if classification == "softmax":
        return -math.exp(logits[label]) / sum(math.exp(x) for x in logits.tolist())
    p = 1 / (1 + math.exp(-logits[label]))
    return 0.25 * (1 - p) ** 2 * -math.log(p) - 0.75 * p**2 * -math.log(1 - p)


def cost(logits: Tensor, label: int, box: Tensor, target: Tensor, weights: MatcherConfig, classification: str) -> float:
    """What it costs that one query answers for one object."""
    a, b = box.tolist(), target.tolist()
    plain = sum(abs(x - y) for x, y in zip(a, b, strict=True))
    refined = abs(a[0] - b[0]) + abs(a[1] - b[1]) + abs(math.log(a[2] / b[2])) + abs(math.log(a[3] / b[3]))
    giou = float(generalized_box_iou(to_xyxy(box)[None], to_xyxy(target)[None]))
    scores = weights.classification * class_cost(logits, label, classification)
    return scores + weights.tiny_l1 * refined + weights.l1 * plain - weights.giou * giou


def random_objects(generator: torch.Generator, count: int) -> Objects:
    rows = (torch.rand(count, 4, generator=generator) * 0.5 + 0.05).tolist()
    return [(i % 3, *row) for i, row in enumerate(rows)]


def of_image(matches: Matches, image: int) -> list[tuple[int, int]]:
    """(query, object) of one picture."""
    here = matches.image == image
    return list(zip(matches.query[here].tolist(), matches.target[here].tolist(), strict=True))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("weights", [WEIGHTS, RT_DETR, ALL, ONLY_CLASS])
@pytest.mark.parametrize("classification", ["sigmoid", "softmax"])
def test_matching_is_the_cheapest_of_all_assignments(
    make_targets: Callable[..., Targets],
    seed: int,
    weights: MatcherConfig,
    classification: Literal["sigmoid", "softmax"],
) -> None:
    generator = torch.Generator().manual_seed(seed)
    targets = make_targets(random_objects(generator, 3), random_objects(generator, 1))
    logits, boxes = torch.randn(2, 5, 4, generator=generator), torch.rand(2, 5, 4, generator=generator) * 0.5 + 0.05
    valid = torch.ones(2, 5, dtype=torch.bool)
    matches = HungarianMatcher(weights)(logits, boxes, valid, targets, classification)
    for i, count in enumerate([3, 1]):
        labels = targets.labels[i].tolist()
        costs = [
            [cost(logits[i, q], labels[t], boxes[i, q], targets.boxes[i, t], weights, classification) for q in range(5)]
            for t in range(count)
        ]
        totals = {qs: sum(costs[t][q] for t, q in enumerate(qs)) for qs in itertools.permutations(range(5), count)}
        cheapest = min(totals, key=totals.__getitem__)
        assert sorted(of_image(matches, i), key=lambda pair: pair[1]) == [(q, t) for t, q in enumerate(cheapest)]


def test_a_softmax_is_matched_by_probability_and_not_by_logit(make_targets: Callable[..., Targets]) -> None:
    targets, boxes = make_targets([(0, 0.5, 0.5, 0.2, 0.2)]), torch.full((1, 2, 4), 0.5)
    logits = torch.tensor([[[3.0, 0.0, 9.0], [1.0, 0.0, 0.0]]])  # the first is surely background
    valid = torch.ones(1, 2, dtype=torch.bool)
    assert of_image(HungarianMatcher(ONLY_CLASS)(logits, boxes, valid, targets, "softmax"), 0) == [(1, 0)]
    assert of_image(HungarianMatcher(ONLY_CLASS)(logits, boxes, valid, targets, "sigmoid"), 0) == [(0, 0)]


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


def test_predictions_in_half_precision_are_matched_as_in_full(make_targets: Callable[..., Targets]) -> None:
    generator = torch.Generator().manual_seed(0)
    targets, valid = make_targets(random_objects(generator, 3)), torch.ones(1, 6, dtype=torch.bool)
    logits, boxes = torch.randn(1, 6, 3, generator=generator).half(), torch.rand(1, 6, 4, generator=generator).half()
    matcher = HungarianMatcher(WEIGHTS)
    half, full = (matcher(x, y, valid, targets) for x, y in ((logits, boxes), (logits.float(), boxes.float())))
    assert of_image(half, 0) == of_image(full, 0)
