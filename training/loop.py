"""The training loop: what happens to a batch. Policy lives in the recipe."""

import shutil
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from tqdm import tqdm

from model.checkpoint import read_weights
from model.detector import Detector
from training.config import Recipe
from training.criterion import Loss, SetCriterion
from training.data.datasets import CocoDataset
from training.data.loader import training_batches
from training.data.samples import Targets
from training.data.transforms import Augment
from training.denoising import make_denoising
from training.ema import AveragedDetector
from training.evaluate import evaluate
from training.optimizer import learning_rate, make_optimizer
from training.tracking import Journal, RunFolder, restore

MOST_SKIPPED = 20
"""Steps without a finite loss, one after the other, after which a run gives up."""


class Trainer:
    """Model, average, optimizer and criterion of one run."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(recipe.run.seed)
        config = recipe.model.detector(recipe.data.classes)
        self.detector = Detector(config).to(self.device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        if recipe.run.init is not None:
            start_from(self.detector, recipe.run.init)
        self.average = AveragedDetector(self.detector, recipe.optimizer.ema_decay)
        self.optimizer = make_optimizer(self.detector, recipe.optimizer)
        self.criterion = SetCriterion(recipe.loss, config)
        self.skipped = 0

    def step(self, number: int, images: Tensor, targets: Targets) -> tuple[Loss, float]:
        """One update; returns the loss and the gradient's norm. A loss that is not finite changes nothing."""
        recipe = self.recipe
        rate = learning_rate(number, recipe.run.steps, recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        images, targets = images.to(self.device), targets.to(self.device)
        denoising = make_denoising(targets, len(recipe.data.classes), recipe.denoising)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.run.precision == "bf16"):
            output = self.detector(images, denoising and denoising.queries, targets.counts)
        loss = self.criterion(output, targets, denoising)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = float(clip_grad_norm_(self.detector.parameters(), recipe.optimizer.clip_norm))
        if self._is_finite(loss, norm, number):
            self.optimizer.step()
            self.average.update(self.detector, number)
        return loss, norm

    def _is_finite(self, loss: Loss, norm: float, number: int) -> bool:
        if torch.isfinite(loss.total) and torch.isfinite(torch.tensor(norm)):
            self.skipped = 0
            return True
        self.skipped += 1
        broken = [name for name, term in loss.terms.items() if not torch.isfinite(term)] or ["the gradient"]
        tqdm.write(f"step {number}: {', '.join(broken)} not finite; the step is skipped")
        if self.skipped >= MOST_SKIPPED:
            raise FloatingPointError(
                f"{MOST_SKIPPED} steps in a row had no finite loss ({', '.join(broken)}); "
                "lower optimizer.learning_rate or set run.precision to fp32"
            )
        return False


def start_from(detector: Detector, checkpoint: Path) -> None:
    """Load the weights whose names and shapes fit, and say how many did."""
    own = detector.state_dict()
    fitting = {name: w for name, w in read_weights(checkpoint).items() if name in own and own[name].shape == w.shape}
    detector.load_state_dict(fitting, strict=False)
    tqdm.write(f"started from {checkpoint}: {len(fitting)} of {len(own)} tensors fit")


def fit(recipe_path: Path, out: Path, resume: bool = False, stop_after: int | None = None) -> Path:
    """Train a recipe in the folder `out`; returns the last checkpoint.

    Args:
        recipe_path: a complete TOML file; a copy is kept in the run.
        out: folder of the run.
        resume: go on from the newest checkpoint in `out`; without it, a folder that has one is refused.
        stop_after: end after this many steps in all, as if interrupted; the schedule stays the recipe's.
    Raises:
        FileExistsError: `out` already holds a run and `resume` was not asked for.
        FloatingPointError: the loss stayed infinite or NaN.
    """
    recipe = Recipe.from_toml(recipe_path)
    folder = RunFolder(out)
    checkpoint = folder.latest()
    if checkpoint is not None and not resume:
        raise FileExistsError(f"{out} already holds a run up to {checkpoint.name}; pass --resume, or another --out")
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    data = CocoDataset(
        recipe.data.train_images, recipe.data.train_annotations, recipe.data.classes, recipe.data.train_size,
        recipe.data.min_box_px,
    )  # fmt: skip
    tqdm.write(str(data.report))
    trainer = Trainer(recipe)
    first = restore(checkpoint, trainer.detector, trainer.average, trainer.optimizer) if checkpoint else 0
    if recipe_path.resolve() != (out / "recipe.toml").resolve():
        shutil.copyfile(recipe_path, out / "recipe.toml")
    last = min(recipe.run.steps, stop_after or recipe.run.steps)
    journal = Journal(out)
    try:
        return _run(trainer, data, folder, journal, first, last)
    finally:
        journal.close()


def _run(trainer: Trainer, data: CocoDataset, folder: RunFolder, journal: Journal, first: int, last: int) -> Path:
    """Steps `first` to `last`, with checkpoints and evaluations between them."""
    run = trainer.recipe.run
    batches = training_batches(data, Augment(trainer.recipe.augment), run.seed, run.batch_size, first, last, run.workers)
    progress = tqdm(batches, initial=first, total=last, desc="training", unit="step", dynamic_ncols=True, smoothing=0.05)
    checkpoint = folder.latest()
    for number, (images, targets) in enumerate(progress, start=first):
        loss, norm = trainer.step(number, images, targets)
        done = number + 1
        if done % run.log_every == 0 or done == last:
            figures = {f"loss/{name}": float(term) for name, term in loss.terms.items()}
            rate = trainer.optimizer.param_groups[0]["lr"]
            journal.write(done, {"loss": float(loss.total), **figures, "gradient_norm": norm, "learning_rate": rate})
            progress.set_postfix(loss=f"{float(loss.total):.2f}", refresh=False)
        if done % run.checkpoint_every == 0 or done == last:
            checkpoint = folder.save(done, trainer.detector, trainer.average, trainer.optimizer)
        if run.evaluate_every and done % run.evaluate_every == 0 and done != last:
            journal.write(done, evaluate_on_val(trainer.average.detector, trainer.recipe).figures())
    if checkpoint is None:
        raise ValueError(f"nothing to do: {first} steps are done and run.steps is {run.steps}")
    return checkpoint
