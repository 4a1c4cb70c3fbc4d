"""Batches: padding of targets, and an order that depends on the seed and the step alone."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import AugmentConfig
from training.data.datasets import CocoDataset
from training.data.loader import AugmentedSamples, pictures_of_step, training_batches
from training.data.samples import Sample, Targets, collate
from training.data.synthetic import CLASSES, synthesize
from training.data.transforms import Augment

AUGMENT = Augment(
    AugmentConfig(
        crop=32, scale=(0.5, 2.0), aspect=1.2, crop_on_object=0.5, min_visible=0.3, mosaic=0.3, flips=True,
        brightness=20, contrast=0.2, colour=0.1, grey=0.1, noise=5, channel_shuffle=0.1, position_shift=0,
    )
)  # fmt: skip


def sample(boxes: list[list[float]], image_id: int = 0, size: tuple[int, int] = (20, 40)) -> Sample:
    image = np.full((*size, 3), image_id, dtype=np.uint8)
    return Sample(image, np.array(boxes, np.float32).reshape(-1, 4), np.arange(len(boxes)), image_id)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """Five synthetic pictures."""
    folder = tmp_path_factory.mktemp("data") / "set"
    synthesize(folder, count=5, size=64, seed=1, progress=False)
    return CocoDataset(folder / "images", folder / "instances.json", CLASSES, size=64)


def batches(
    dataset: CocoDataset, first: int, last: int, workers: int = 0, seed: int = 3
) -> list[tuple[torch.Tensor, Targets]]:
    return list(training_batches(dataset, AUGMENT, seed, 3, first, last, workers))


def assert_same(left: list[tuple[torch.Tensor, Targets]], right: list[tuple[torch.Tensor, Targets]]) -> None:
    assert len(left) == len(right)
    for (images, targets), (other_images, other_targets) in zip(left, right, strict=True):
        torch.testing.assert_close(images, other_images, rtol=0, atol=0)
        torch.testing.assert_close(targets.boxes, other_targets.boxes, rtol=0, atol=0)
        torch.testing.assert_close(targets.labels, other_targets.labels, rtol=0, atol=0)


def test_targets_are_fractions_of_the_picture_padded_to_the_fullest() -> None:
    images, targets = collate([sample([[0, 0, 20, 10], [10, 5, 30, 15]]), sample([[20, 10, 40, 20]])])
    assert images.shape == (2, 3, 20, 40)
    assert images.dtype == torch.uint8
    assert targets.boxes[0].tolist() == [[0.25, 0.25, 0.5, 0.5], [0.5, 0.5, 0.5, 0.5]]
    assert targets.boxes[1, 0].tolist() == [0.75, 0.75, 0.5, 0.5]
    assert targets.labels.tolist() == [[0, 1], [0, -1]]
    assert targets.counts.tolist() == [2, 1]
    assert targets.valid.tolist() == [[True, True], [True, False]]


def test_a_batch_without_any_box_still_has_a_padded_column_with_finite_logs() -> None:
    _, targets = collate([sample([]), sample([])])
    assert targets.boxes.shape == (2, 1, 4)
    assert targets.counts.tolist() == [0, 0]
    assert targets.boxes.log().isfinite().all()


def test_targets_move_to_a_device() -> None:
    targets = collate([sample([[0, 0, 4, 4]])])[1].to("meta")
    assert targets.boxes.device.type == targets.labels.device.type == "meta"


def test_pictures_of_unequal_size_are_an_error() -> None:
    with pytest.raises(ValueError, match="shape"):
        collate([sample([]), sample([], size=(8, 8))])


def test_a_resumed_run_sees_the_batches_of_an_unbroken_one(dataset: CocoDataset) -> None:
    unbroken = batches(dataset, 0, 6)
    assert_same(unbroken[4:], batches(dataset, 4, 6))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_the_batches(dataset: CocoDataset, workers: int) -> None:
    assert_same(batches(dataset, 1, 5), batches(dataset, 1, 5, workers=workers))


def test_another_seed_gives_other_batches(dataset: CocoDataset) -> None:
    first, second = batches(dataset, 0, 1, seed=3)[0][0], batches(dataset, 0, 1, seed=4)[0][0]
    assert not torch.equal(first, second)


def test_each_epoch_visits_every_picture_once_in_its_own_order() -> None:
    pictures = [sample([], image_id) for image_id in range(20)]
    samples = AugmentedSamples(pictures, AUGMENT, seed=0, batch_size=4)
    ids = [samples[j].image_id for j in range(40)]
    assert sorted(ids[:20]) == sorted(ids[20:]) == list(range(20))
    assert ids[:20] != ids[20:]


def test_a_picture_looks_different_in_each_epoch(dataset: CocoDataset) -> None:
    samples = AugmentedSamples(dataset, AUGMENT, seed=0, batch_size=1)
    seen = [samples[j] for j in range(2 * len(dataset))]
    same = [s for s in seen if s.image_id == seen[0].image_id]
    assert len(same) == 2
    assert not np.array_equal(same[0].image, same[1].image)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_state_alone(dataset: CocoDataset, workers: int) -> None:
    before = torch.get_rng_state()
    batches(dataset, 0, 2, workers=workers)
    torch.testing.assert_close(torch.get_rng_state(), before)


def test_batches_have_the_crop_size(dataset: CocoDataset, tmp_path: Path) -> None:
    for images, targets in batches(dataset, 0, math.ceil(len(dataset) / 3)):
        assert images.shape == (3, 3, 32, 32)
        assert targets.boxes.shape[0] == 3


def test_all_crops_of_a_step_have_one_size_and_steps_differ(dataset: CocoDataset) -> None:
    oblong = Augment(AUGMENT.config.model_copy(update={"crop": 96, "crop_aspect": 3.0}))
    whole = [images for images, _ in training_batches(dataset, oblong, 3, 2, 0, 6, 0)]
    assert len({images.shape for images in whole}) > 2
    part = [images for images, _ in training_batches(dataset, oblong, 3, 2, 4, 6, 1, range(1, 2))]
    assert all(torch.equal(rows, step[1:]) for rows, step in zip(part, whole[4:], strict=True))


def test_the_parts_of_several_processes_are_the_batch_of_one(dataset: CocoDataset) -> None:
    whole = batches(dataset, 0, 2)
    parts = [list(training_batches(dataset, AUGMENT, 3, 3, 0, 2, 0, range(row, row + 1))) for row in range(3)]
    for step, (images, targets) in enumerate(whole):
        assert torch.equal(torch.cat([part[step][0] for part in parts]), images)
        assert [int(part[step][1].counts) for part in parts] == targets.counts.tolist()


def test_the_pictures_of_a_step_can_be_named_with_all_parts_of_a_mosaic(dataset: CocoDataset) -> None:
    always = Augment(AUGMENT.config.model_copy(update={"mosaic": 1.0}))
    mosaics = pictures_of_step(dataset, always, seed=3, batch_size=3, step=4)
    assert [len(ids) for ids in mosaics] == [4, 4, 4]
    never = Augment(AUGMENT.config.model_copy(update={"mosaic": 0.0}))
    samples = AugmentedSamples(dataset, never, seed=3, batch_size=3)
    named = pictures_of_step(dataset, never, seed=3, batch_size=3, step=4)
    assert named == [[samples[j].image_id] for j in range(12, 15)]
    assert all(dataset.path_of(i).is_file() for ids in named for i in ids)
