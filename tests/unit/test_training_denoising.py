"""Denoising queries: what is noised, by how much, and what it should become."""

from collections.abc import Callable

import pytest
import torch

from training.config import DenoisingConfig
from training.data.samples import Targets
from training.denoising import MOST_GROUPS, DenoisingTask, make_denoising

CONFIG = DenoisingConfig(queries=20, label_noise=0.0, box_noise=0.4)
PLANE, SHIP, TANK = (0, 0.3, 0.3, 0.2, 0.1), (1, 0.6, 0.6, 0.1, 0.2), (2, 0.5, 0.4, 0.1, 0.1)


def task(targets: Targets, **changes: float) -> DenoisingTask:
    torch.manual_seed(0)
    made = make_denoising(targets, 3, CONFIG.model_copy(update=changes))
    assert made is not None
    return made


def test_every_group_holds_each_object_once_to_restore_and_once_to_reject(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE, SHIP, TANK]), queries=6)
    assert made.groups == 2
    assert made.queries.groups.tolist() == [0] * 6 + [1] * 6
    assert made.labels.tolist() == [[0, 1, 2, -1, -1, -1] * 2]
    torch.testing.assert_close(made.boxes[0], torch.tensor([PLANE[1:], SHIP[1:], TANK[1:]]).repeat(4, 1))


@pytest.mark.parametrize(("queries", "groups"), [(1, 1), (6, 2), (9, 3), (1000, MOST_GROUPS)])
def test_as_many_groups_as_the_queries_allow(make_targets: Callable[..., Targets], queries: int, groups: int) -> None:
    assert task(make_targets([PLANE, SHIP, TANK]), queries=queries).groups == groups


def test_positives_move_less_and_negatives_more_than_the_noise(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([TANK] * 10), queries=50)
    box = torch.tensor(TANK[1:])
    shift = (made.queries.boxes[0, :, :2] - box[:2]).abs() / box[2:]
    stretch = (made.queries.boxes[0, :, 2:] / box[2:]).log().abs()
    positive = made.labels[0] >= 0
    for noise in (shift, stretch):
        assert noise[positive].max() <= 0.4 + 1e-4
        assert noise[~positive].min() >= 0.4 - 1e-4
        assert noise[~positive].max() <= 0.8 + 1e-4


def test_without_label_noise_queries_claim_their_true_label(make_targets: Callable[..., Targets]) -> None:
    assert task(make_targets([PLANE, SHIP, TANK])).queries.labels.view(-1, 3).unique(dim=0).tolist() == [[0, 1, 2]]


def test_label_noise_changes_the_claim_but_not_the_answer(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE] * 10), queries=50, label_noise=1.0)
    assert made.queries.labels.unique().tolist() == [0, 1, 2]
    assert made.labels.unique().tolist() == [-1, 0]


def test_a_picture_with_fewer_objects_is_padded_without_weight(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE, SHIP], [TANK], []), queries=2)
    assert made.weight.tolist() == [[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 0, 0]]
    assert made.labels.tolist() == [[0, 1, -1, -1], [2, -1, -1, -1], [-1, -1, -1, -1]]
    assert made.queries.labels.min() >= 0


def test_noised_boxes_stay_in_the_picture(make_targets: Callable[..., Targets]) -> None:
    boxes = task(make_targets([(0, 0.01, 0.99, 0.9, 0.0001)] * 10), box_noise=1.0).queries.boxes
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert boxes[..., 2:].min() >= 1e-3


def test_there_is_no_task_without_objects_or_without_queries(make_targets: Callable[..., Targets]) -> None:
    assert make_denoising(make_targets([], []), 3, CONFIG) is None
    assert make_denoising(make_targets([PLANE]), 3, CONFIG.model_copy(update={"queries": 0})) is None
