"""Averaged weights: they generalise better than the last ones, and are the ones that are evaluated and shipped."""

import copy

import torch

from model.detector import Detector


class AveragedDetector:
    """Exponential moving average of a detector; batch-norm statistics are taken as they are."""

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector = copy.deepcopy(detector).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, detector: Detector, step: int) -> None:
        """Move towards the detector's weights; faster in the first steps, when the average is still of noise."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.detector.parameters()), list(detector.parameters()), 1 - decay)
        for average, current in zip(self.detector.buffers(), detector.buffers(), strict=True):
            average.copy_(current)
