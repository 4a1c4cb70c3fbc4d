"""Denoising queries: what is noised, by how much, and what it should become."""

from collections.abc import Callable

import pytest
import torch

from model.boxes import to_xyxy
from training.config import DenoisingConfig
from training.data.samples import Targets
from training.denoising import PADDING, DenoisingTask, make_denoising
from training.draws import DrawOfStep

CONFIG = DenoisingConfig(queries=20, max_groups=5, label_noise=0.0, box_noise=0.4, box_noise_on="centre")
PLANE, SHIP, TANK = (0, 0.3, 0.3, 0.2, 0.1), (1, 0.6, 0.6, 0.1, 0.2), (2, 0.5, 0.4, 0.1, 0.1)


def task(targets: Targets, **changes: float | str) -> DenoisingTask:
    torch.manual_seed(0)
    made = make_denoising(targets, 3, CONFIG.model_copy(update=changes))
    assert made is not None
    return made


def test_every_group_holds_each_object_once_to_restore_and_once_to_reject(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE, SHIP, TANK]), queries=6)
    assert made.queries.groups.tolist() == [[0] * 6 + [1] * 6]
    assert made.labels.tolist() == [[0, 1, 2, -1, -1, -1] * 2]
    torch.testing.assert_close(made.boxes[0], torch.tensor([PLANE[1:], SHIP[1:], TANK[1:]]).repeat(4, 1))


@pytest.mark.parametrize(("queries", "groups"), [(1, 1), (6, 2), (9, 3), (1000, 5)])
def test_as_many_groups_as_queries_and_limit_allow(
    make_targets: Callable[..., Targets], queries: int, groups: int
) -> None:
    made = task(make_targets([PLANE, SHIP, TANK]), queries=queries)
    assert made.queries.groups.unique().tolist() == list(range(groups))
    assert made.labels.shape == (1, 2 * 3 * groups)


def test_a_limit_of_as_many_groups_as_queries_is_dinos(make_targets: Callable[..., Targets]) -> None:
    assert task(make_targets([PLANE]), queries=100, max_groups=100).labels.shape == (1, 200)


def test_each_picture_has_its_own_number_of_groups(make_targets: Callable[..., Targets]) -> None:
    pictures = [[PLANE], [SHIP] * 3, [TANK] * 30]
    together = task(make_targets(*pictures))
    alone = [task(make_targets(picture)) for picture in pictures]
    for i, own in enumerate(alone):
        size = own.labels.shape[1]
        assert torch.equal(together.labels[i, :size], own.labels[0])
        assert torch.equal(together.boxes[i, :size], own.boxes[0])
        assert torch.equal(together.weight[i, :size], own.weight[0])
        assert torch.equal(together.queries.groups[i, :size], own.queries.groups[0])
        assert (together.queries.groups[i, size:] == PADDING).all()
    assert [int(groups.max()) + 1 for groups in together.queries.groups] == [5, 5, 1]


def test_the_copies_of_an_object_weigh_one_together(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE, SHIP, TANK], [TANK] * 30, []))
    positive = made.labels >= 0
    torch.testing.assert_close((made.weight * positive).sum(1), torch.tensor([3.0, 30.0, 0.0]))
    torch.testing.assert_close((made.weight * ~positive).sum(1), torch.tensor([3.0, 30.0, 0.0]))


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


def test_corners_of_positives_move_less_and_those_of_negatives_more_than_the_noise(
    make_targets: Callable[..., Targets],
) -> None:
    made = task(make_targets([TANK] * 10), queries=50, box_noise_on="corners")
    box = torch.tensor(TANK[1:])
    moved = (to_xyxy(made.queries.boxes[0]) - to_xyxy(box)).abs() / (box[2:].repeat(2) / 2)  # in half sides
    positive = made.labels[0] >= 0
    assert moved[positive].max() <= 0.4 + 1e-4
    assert moved[positive].min() < 0.1
    assert moved[~positive].min() >= 0.4 - 1e-4
    assert moved[~positive].max() <= 0.8 + 1e-4


def test_corners_that_change_sides_leave_a_box_that_can_be_used(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([TANK, (0, 0.02, 0.98, 0.1, 0.1)] * 20), box_noise=1.0, box_noise_on="corners")
    assert made.queries.boxes[..., 2:].min() >= 1e-3 * (1 - 1e-6)
    assert made.queries.boxes.min() >= 0
    assert made.queries.boxes.max() <= 1


def test_without_label_noise_queries_claim_their_true_label(make_targets: Callable[..., Targets]) -> None:
    assert task(make_targets([PLANE, SHIP, TANK])).queries.labels.view(-1, 3).unique(dim=0).tolist() == [[0, 1, 2]]


def test_label_noise_changes_the_claim_but_not_the_answer(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE] * 10), queries=50, label_noise=1.0)
    assert made.queries.labels.unique().tolist() == [0, 1, 2]
    assert made.labels.unique().tolist() == [-1, 0]


def test_padding_has_no_weight_no_answer_and_a_valid_label(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([PLANE, SHIP], [TANK], []), queries=2, max_groups=1)
    assert made.weight.tolist() == [[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0]]
    assert made.labels.tolist() == [[0, 1, -1, -1], [2, -1, -1, -1], [-1, -1, -1, -1]]
    assert made.queries.groups.tolist() == [[0, 0, 0, 0], [0, 0, -1, -1], [-1, -1, -1, -1]]
    assert made.queries.labels.min() >= 0


def test_noised_boxes_stay_in_the_picture(make_targets: Callable[..., Targets]) -> None:
    boxes = task(make_targets([(0, 0.01, 0.99, 0.9, 0.0001)] * 10), box_noise=1.0).queries.boxes
    assert boxes.min() >= 0
    assert boxes.max() <= 1
    assert boxes[..., 2:].min() >= 1e-3


def test_a_batch_without_objects_is_all_padding(make_targets: Callable[..., Targets]) -> None:
    made = task(make_targets([], []))
    assert made.labels.tolist() == [[-1, -1], [-1, -1]]
    assert made.weight.sum() == 0
    assert (made.queries.groups == PADDING).all()


def test_there_is_no_task_without_queries(make_targets: Callable[..., Targets]) -> None:
    assert make_denoising(make_targets([PLANE]), 3, CONFIG.model_copy(update={"queries": 0})) is None


def test_the_noise_of_a_picture_does_not_depend_on_which_process_has_it(make_targets: Callable[..., Targets]) -> None:
    pictures = [[PLANE], [SHIP] * 5, [], [TANK, PLANE]]
    config = CONFIG.model_copy(update={"label_noise": 0.5})
    whole = make_denoising(make_targets(*pictures), 3, config, DrawOfStep(0, 7, 4, range(4)))
    part = make_denoising(make_targets(*pictures[2:]), 3, config, DrawOfStep(0, 7, 4, range(2, 4)))
    other = make_denoising(make_targets(*pictures[2:]), 3, config, DrawOfStep(0, 8, 4, range(2, 4)))
    assert whole is not None
    assert part is not None
    assert other is not None
    size = part.labels.shape[1]
    assert torch.equal(whole.queries.boxes[2:, :size], part.queries.boxes)
    assert torch.equal(whole.queries.labels[2:, :size], part.queries.labels)
    assert not torch.equal(other.queries.boxes, part.queries.boxes)
