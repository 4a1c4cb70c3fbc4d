"""Averaged weights: they generalise better than the last ones, and are the ones that are evaluated and shipped."""

import copy

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from model.detector import Detector


class AveragedDetector:
    """Exponential moving average of a detector's weights, and of the batch-norm statistics that belong to them.

    The statistics of the latest weights do not fit the average of many: early in a run they cost points of AP.
    """

    def __init__(self, detector: Detector, decay: float) -> None:
        """Begin with the detector's weights, which must go on living in the tensors that they are in now."""
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay = decay
        self._own, self._followed = _split(self.detector), _split(detector)

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the detector's weights; faster in the first steps, when the average is still of noise."""
        decay = min(self.decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(self._own[0], self._followed[0], step)
        self._copy_counts()

    @torch.no_grad()
    def restart(self) -> None:
        """Begin anew with the detector's present weights."""
        copy_each(self._followed[0], self._own[0])
        self._copy_counts()

    def _copy_counts(self) -> None:
        """Whole numbers, such as how many batches a norm has seen, have no average."""
        copy_each(self._followed[1], self._own[1])


def _split(detector: Detector) -> tuple[list[Tensor], list[Tensor]]:
    """The tensors of the state that are of floating point, and the others."""
    tensors = list(detector.state_dict().values())
    return [t for t in tensors if t.is_floating_point()], [t for t in tensors if not t.is_floating_point()]


def copy_each(sources: list[Tensor], targets: list[Tensor]) -> None:
    """Copy tensors into others of the same shapes, on a GPU in few kernels, as PyTorch's optimizers do."""
    torch._foreach_copy_(targets, sources)  # pyright: ignore[reportPrivateImportUsage]
