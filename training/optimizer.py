"""AdamW and its learning-rate schedule."""

import math

import torch

from model.detector import Detector
from training.config import OptimizerConfig

FALL = 0.1
"""What a milestone leaves of the learning rate."""


def make_optimizer(detector: Detector, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW that decays matrices and kernels, but no biases, norms or gates; frozen parameters are left out.

    A group's `factor` says how its learning rate relates to the schedule's.
    """
    groups = []
    for in_backbone, factor in ((True, config.backbone_factor), (False, 1.0)):
        named = detector.named_parameters()
        learnt = [p for name, p in named if p.requires_grad and name.startswith("backbone.") == in_backbone]
        matrices = [p for p in learnt if p.squeeze().dim() > 1]
        others = [p for p in learnt if p.squeeze().dim() <= 1]
        for parameters, decay in ((matrices, config.weight_decay), (others, 0.0)):
            groups.append({"params": parameters, "weight_decay": decay, "factor": factor})
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=config.learning_rate, fused=True)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of the schedule's rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def learning_rate(step: int, steps: int, config: OptimizerConfig) -> float:
    """Linear warm-up, then what the schedule says; a pure function of the step."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    match config.schedule:
        case "cosine":
            share = _flat_then_cosine(step, steps, config.flat, config.final)
        case "step":
            share = FALL ** sum(step >= milestone * steps for milestone in config.milestones)
    return config.learning_rate * warm * share


def _flat_then_cosine(step: int, steps: int, flat: float, final: float) -> float:
    """1, then half a cosine down to `final`."""
    decay_start = flat * steps
    progress = max(0.0, (step - decay_start) / max(1.0, steps - decay_start))
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
