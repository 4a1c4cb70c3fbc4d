"""Training batches that depend on the seed and the step alone, so that a resumed run sees the same ones."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from training.data.datasets import CocoDataset
from training.data.samples import Sample, Targets, collate
from training.data.transforms import Augment, Pictures


class AugmentedSamples(Dataset[Sample]):
    """Augmented sample j is a pure function of seed, batch size and j = step * batch_size + position in the batch.

    Each epoch, j // len(dataset), visits every picture once in an own random order.
    """

    def __init__(self, dataset: Pictures, augment: Augment, seed: int, batch_size: int) -> None:
        self.dataset = dataset
        self.augment = augment
        self.seed = seed
        self.batch_size = batch_size
        self._order: tuple[int, NDArray[np.int64]] | None = None

    def __getitem__(self, j: int) -> Sample:
        """Sample j, for any j >= 0."""
        epoch, position = divmod(j, len(self.dataset))
        index = int(self._epoch_order(epoch)[position])
        return self.augment(self.dataset, index, self._crop_size(j), np.random.default_rng([self.seed, j]))

    def of_step(self, step: int) -> range:
        """The j of one step."""
        return range(step * self.batch_size, (step + 1) * self.batch_size)

    def _crop_size(self, j: int) -> tuple[int, int]:
        """(width, height), the same for all samples of a step."""
        return self.augment.draw_size(np.random.default_rng([self.seed, j // self.batch_size, 4]))

    def _epoch_order(self, epoch: int) -> NDArray[np.int64]:
        """A permutation of the pictures."""
        if self._order is None or self._order[0] != epoch:
            # The third number keeps this stream apart from those of crop sizes, of a step's draws, and of the samples.
            self._order = (epoch, np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.dataset)))
        return self._order[1]


def training_batches(
    dataset: Pictures,
    augment: Augment,
    seed: int,
    batch_size: int,
    first_step: int,
    last_step: int,
    workers: int,
    part: range | None = None,
) -> Iterator[tuple[Tensor, Targets]]:
    """Batches of the steps first_step, ..., last_step - 1: uint8 (B, 3, H, W) and their targets.

    They do not depend on `workers`, the number of processes that prepare them (0: the calling one), nor on
    where the run was interrupted. The global random state of torch is not touched. With `part`, only these rows of
    each batch: what one of several training processes takes.
    """
    if workers and isinstance(dataset, CocoDataset):
        dataset.preload()  # the forked workers then share one copy of the pictures
    samples = AugmentedSamples(dataset, augment, seed, batch_size)
    rows = part or range(batch_size)
    loader = DataLoader(
        samples,
        batch_sampler=(list(samples.of_step(step)[rows.start : rows.stop]) for step in range(first_step, last_step)),
        num_workers=workers,  # each runs with one torch thread
        prefetch_factor=4 if workers else None,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else the loader draws its workers' seed from the global generator
    )
    return iter(loader)


def pictures_of_step(dataset: Pictures, augment: Augment, seed: int, batch_size: int, step: int) -> list[list[int]]:
    """Ids of the pictures that each sample of a step was made of, more than one in a mosaic; makes them once more."""
    watched = _Watched(dataset)
    samples = AugmentedSamples(watched, augment, seed, batch_size)
    ids = []
    for j in samples.of_step(step):
        watched.ids = []
        samples[j]
        ids.append(watched.ids)
    return ids


class _Watched:
    """A dataset that notes which pictures are taken from it."""

    def __init__(self, dataset: Pictures) -> None:
        self.dataset = dataset
        self.ids: list[int] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        sample = self.dataset[index]
        self.ids.append(sample.image_id)
        return sample
