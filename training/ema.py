"""Averaged weights: they generalise better than the last ones, and are the ones that are evaluated and shipped."""

import copy

import torch

from model.detector import Detector


class AveragedDetector:
    """Exponential moving average of a detector's weights, and of the batch-norm statistics that belong to them.

    The statistics of the latest weights do not fit the average of many: early in a run they cost points of AP.
    """

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, detector: Detector, step: int) -> None:
        """Move towards the detector's weights; faster in the first steps, when the average is still of noise."""
        decay = min(self.decay, (1 + step) / (10 + step))
        current = detector.state_dict()
        for name, average in self.detector.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - decay)
            else:  # how many batches a norm has seen
                average.copy_(current[name])
