"""AdamW and its learning-rate schedule."""

import math

import torch
from torch import nn

from training.config import OptimizerConfig


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, but no biases, norms or gates."""
    decayed, free = [], []
    for parameter in model.parameters():
        (decayed if parameter.squeeze().dim() > 1 else free).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then flat, then half a cosine down to `final` of the peak; a pure function of the step."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_start = config.flat * steps
    progress = max(0.0, (step - decay_start) / max(1.0, steps - decay_start))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * (config.final + (1 - config.final) * cosine)
