"""Random numbers of a training step, which depend on the seed and the place in the run alone."""

import numpy as np
import torch
from torch import Tensor

from training.denoising import NUMBERS


class DrawOfStep:
    """Random numbers by the seed, the step and the picture's place in it: no matter which process has the picture."""

    def __init__(self, seed: int, step: int, batch_size: int, rows: range) -> None:
        """For these rows of the step's whole batch."""
        # The third number keeps these streams apart from each other and from those of the loader.
        self._seeds = [[seed, step * batch_size + row, 2] for row in rows]
        self._shift_seeds = [[seed, step * batch_size + row, 3] for row in rows]

    def __call__(self, pictures: int, queries: int) -> Tensor:
        assert pictures == len(self._seeds)
        generators = (np.random.default_rng(seed) for seed in self._seeds)
        return torch.from_numpy(np.stack([g.random((queries, NUMBERS), dtype=np.float32) for g in generators]))

    def shifts(self, most: float) -> Tensor:
        """(B, 2), each from 0 to `most`."""
        generators = (np.random.default_rng(seed) for seed in self._shift_seeds)
        return most * torch.from_numpy(np.stack([g.random(2, dtype=np.float32) for g in generators]))
