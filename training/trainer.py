"""What happens to one batch. The recipe says how; the loop (training/loop.py) says when."""

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, convert_conv2d_weight_memory_format

from model.checkpoint import read_weights
from model.detector import Detector
from training.config import Recipe
from training.criterion import SetCriterion
from training.data.samples import Targets
from training.denoising import make_denoising
from training.draws import DrawOfStep
from training.ema import AveragedDetector, copy_each
from training.optimizer import learning_rate, make_optimizer, set_learning_rate
from training.parallel import Processes
from training.tracking import restore


class Trainer:
    """Model, average, optimizer and criterion of one run."""

    def __init__(self, recipe: Recipe, processes: Processes) -> None:
        self.recipe, self.processes = recipe, processes
        self.device = processes.device
        self.rows = processes.part(recipe.run.batch_size)
        torch.manual_seed(recipe.run.seed)
        config = recipe.model.detector(recipe.data.classes)
        self.detector = Detector(config).to(self.device).train()
        convert_conv2d_weight_memory_format(self.detector, torch.channels_last)
        self.average = AveragedDetector(self.detector, recipe.optimizer.ema_decay)
        self.optimizer = make_optimizer(self.detector, recipe.optimizer)
        self.criterion = SetCriterion(recipe.loss, recipe.matcher, config, processes.mean)
        self.skipped = 0
        """Steps that were skipped since the last good one."""
        if recipe.run.compile:  # in place, so that the names of the weights stay
            self.detector.backbone.compile()
            self.detector.encoder.compile()
        self.model = processes.wrap(self.detector)
        self._statistics = list(self.detector.buffers())
        self._statistics_before = [buffer.clone() for buffer in self._statistics]

    def start_fresh(self) -> None:
        """Take over the pre-trained weights of the backbone, if the recipe asks for any."""
        self.detector.backbone.load_pretrained()
        self.average.restart()

    def start_from(self, checkpoint: Path) -> None:
        """Take over the weights whose names and shapes fit, and say how many did."""
        own = self.detector.state_dict()
        weights = read_weights(checkpoint)
        fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
        if not fitting:
            raise ValueError(f"no weight of {checkpoint} fits this model; set run.init to one of a related model")
        self.detector.load_state_dict(fitting, strict=False)
        self.average.restart()
        self.processes.say(f"started from {checkpoint}: {len(fitting)} of {len(own)} tensors fit")

    def restore(self, checkpoint: Path) -> int:
        """Go on exactly where a checkpoint was written; returns the number of steps done by then."""
        return restore(checkpoint, self.detector, self.average, self.optimizer)

    def step(self, number: int, images: Tensor, targets: Targets) -> dict[str, float]:
        """One update; returns its figures, of all processes. A loss or gradient that is not finite changes nothing.

        Args:
            number: of the step, from 0.
            images: this process's rows of the batch, uint8 (B, 3, H, W).
            targets: what is in them.
        """
        recipe, run = self.recipe, self.recipe.run
        rate = learning_rate(number, run.steps, recipe.optimizer)
        set_learning_rate(self.optimizer, rate)
        images, targets = images.to(self.device, non_blocking=True), targets.to(self.device)
        draw = DrawOfStep(run.seed, number, run.batch_size, self.rows)
        denoising = make_denoising(targets, len(recipe.data.classes), recipe.denoising, draw)
        shift = draw.shifts(recipe.augment.position_shift).to(self.device)
        copy_each(self._statistics, self._statistics_before)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=run.precision == "bf16"):
            output = self.model(images, denoising and denoising.queries, targets.counts, shift)
        loss = self.criterion(output, targets, denoising)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = float(clip_grad_norm_(self.detector.parameters(), recipe.optimizer.clip_norm))
        figures = self.processes.mean_figures(loss.figures())
        if math.isfinite(figures["loss"]) and math.isfinite(norm):
            self.optimizer.step()
            self.average.update(number)
            self.skipped = 0
        else:
            copy_each(self._statistics_before, self._statistics)
            self.skipped += 1
        return {**figures, "gradient_norm": norm, "learning_rate": rate}
