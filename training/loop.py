"""The training loop: what happens to a batch. Policy lives in the recipe."""

import math
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_, convert_conv2d_weight_memory_format
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
from training.evaluate import Metrics, evaluate
from training.optimizer import learning_rate, make_optimizer
from training.tracking import Journal, RunFolder, changes, restore

MOST_SKIPPED = 20
"""Steps without a finite loss, one after the other, after which a run gives up."""

NMS_IOU = 0.8
"""Suppression of duplicates during evaluation: what a model is shipped with unless its manifest says otherwise."""


class Trainer:
    """Model, average, optimizer and criterion of one run."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.device = best_device()
        torch.manual_seed(recipe.run.seed)
        config = recipe.model.detector(recipe.data.classes)
        self.detector = Detector(config).to(self.device).train()
        convert_conv2d_weight_memory_format(self.detector, torch.channels_last)
        self.average = AveragedDetector(self.detector, recipe.optimizer.ema_decay)
        self.optimizer = make_optimizer(self.detector, recipe.optimizer)
        self.criterion = SetCriterion(recipe.loss, config)
        self.skipped = 0

    def start_from(self, checkpoint: Path) -> None:
        """Take over the weights whose names and shapes fit, and say how many did."""
        own = self.detector.state_dict()
        weights = read_weights(checkpoint)
        fitting = {name: w for name, w in weights.items() if name in own and own[name].shape == w.shape}
        if not fitting:
            raise ValueError(f"no weight of {checkpoint} fits this model; set run.init to one of a related model")
        self.detector.load_state_dict(fitting, strict=False)
        self.average = AveragedDetector(self.detector, self.recipe.optimizer.ema_decay)
        tqdm.write(f"started from {checkpoint}: {len(fitting)} of {len(own)} tensors fit")

    def restore(self, checkpoint: Path) -> int:
        """Go on exactly where a checkpoint was written; returns the number of steps done by then."""
        return restore(checkpoint, self.detector, self.average, self.optimizer)

    def step(self, number: int, images: Tensor, targets: Targets) -> dict[str, float]:
        """One update; returns its figures. A loss or gradient that is not finite changes nothing."""
        recipe = self.recipe
        rate = learning_rate(number, recipe.run.steps, recipe.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        statistics = [buffer.clone() for buffer in self.detector.buffers()]
        images, targets = images.to(self.device), targets.to(self.device)
        denoising = make_denoising(targets, len(recipe.data.classes), recipe.denoising)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=recipe.run.precision == "bf16"):
            output = self.detector(images, denoising and denoising.queries, targets.counts)
        loss = self.criterion(output, targets, denoising)
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        norm = float(clip_grad_norm_(self.detector.parameters(), recipe.optimizer.clip_norm))
        if self._accepts(loss, norm, number):
            self.optimizer.step()
            self.average.update(self.detector, number)
        else:
            for buffer, before in zip(self.detector.buffers(), statistics, strict=True):
                buffer.copy_(before)
        return {**loss.figures(), "gradient_norm": norm, "learning_rate": rate}

    def _accepts(self, loss: Loss, norm: float, number: int) -> bool:
        """Whether a step is finite; too many others in a row end the run with a FloatingPointError."""
        if torch.isfinite(loss.total) and math.isfinite(norm):
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


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fit(recipe_path: Path, out: Path, resume: bool = False, stop_after: int | None = None) -> Path:
    """Train a recipe in the folder `out`; returns the last checkpoint.

    Args:
        recipe_path: a complete TOML file; the run keeps a copy with absolute paths.
        out: folder of the run.
        resume: go on from the newest checkpoint in `out`; without it, a folder that has one is refused.
        stop_after: end after this many steps in all, as if interrupted; the schedule stays the recipe's.
    Raises:
        FileExistsError: `out` already holds a run and `resume` was not asked for.
        ValueError: a bad recipe, bad data, or a run of another model.
        FloatingPointError: the loss stayed infinite or NaN.
    """
    if stop_after is not None and stop_after < 1:
        raise ValueError(f"cannot stop after {stop_after} steps; the first place to stop is 1")
    recipe = Recipe.from_toml(recipe_path)
    folder = RunFolder(out)
    checkpoint = folder.latest()
    if checkpoint is not None and not resume:
        raise FileExistsError(f"{out} already holds a run up to {checkpoint.name}; pass --resume, or another --out")
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    pictures, val_pictures = train_set(recipe), val_set(recipe)
    trainer, first = Trainer(recipe), 0
    if checkpoint is not None:
        check_same_batches(Recipe.from_toml(out / "recipe.toml"), recipe)
        first = trainer.restore(checkpoint)
    elif recipe.run.init is not None:
        trainer.start_from(recipe.run.init)
    last = recipe.run.steps if stop_after is None else min(recipe.run.steps, stop_after)
    if checkpoint is not None and first >= last:
        tqdm.write(f"nothing to do: {first} steps are done, and {last} are asked for")
        return checkpoint
    (out / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    with closing(Journal(out, first)) as journal:
        return _run(trainer, pictures, val_pictures, folder, journal, range(first, last))


def check_same_batches(before: Recipe, after: Recipe) -> None:
    """Say what a resumed run changes; raise ValueError if it could not tell which pictures it has already seen."""
    differences = list(changes(before, after))
    if refused := [line for line in differences if line.startswith(("run.seed:", "run.batch_size:"))]:
        raise ValueError(f"a run cannot be resumed with {'; '.join(refused)}; begin another one (--out)")
    for line in differences:
        tqdm.write(f"resumed with a change, {line}")


def _run(
    trainer: Trainer,
    pictures: CocoDataset,
    val_pictures: CocoDataset | None,
    folder: RunFolder,
    journal: Journal,
    steps: range,
) -> Path:
    """Some steps, at least one, with checkpoints and evaluations between them; returns the last checkpoint."""
    recipe, run = trainer.recipe, trainer.recipe.run
    first, last = steps.start, steps.stop
    batches = training_batches(pictures, Augment(recipe.augment), run.seed, run.batch_size, first, last, run.workers)
    progress = tqdm(
        batches, initial=first, total=last, desc="training", unit="step", dynamic_ncols=True, smoothing=0.05
    )
    checkpoint = None
    for number, (images, targets) in zip(steps, progress, strict=True):
        figures = trainer.step(number, images, targets)
        done = number + 1
        if done % run.log_every == 0 or done == last:
            journal.write(done, figures)
            progress.set_postfix(loss=f"{figures['loss']:.2f}", refresh=False)
        if done % run.checkpoint_every == 0 or done == last:
            checkpoint = folder.save(done, trainer.detector, trainer.average, trainer.optimizer)
        between = run.evaluate_every > 0 and done % run.evaluate_every == 0
        if val_pictures is not None and (between or done == run.steps):
            metrics = score(trainer.average.detector, val_pictures, recipe)
            tqdm.write(f"after {done} steps\n{metrics.table()}")
            journal.write(done, scalars(metrics))
    assert checkpoint is not None  # the last step wrote one
    return checkpoint


def train_set(recipe: Recipe) -> CocoDataset:
    """The pictures to learn from; says what was left out of them."""
    data = recipe.data
    pictures = CocoDataset(data.train_images, data.train_annotations, data.classes, data.train_size, data.min_box_px)
    tqdm.write(f"train: {pictures.report}")
    return pictures


def val_set(recipe: Recipe) -> CocoDataset | None:
    """The pictures to evaluate on, as they are stored; None if the recipe names none.

    Raises:
        ValueError: there is no box in them, so nothing could be scored.
    """
    data = recipe.data
    if data.val_images is None or data.val_annotations is None:
        return None
    pictures = CocoDataset(data.val_images, data.val_annotations, data.classes, size=None, cache_bytes=0)
    if not pictures.report.boxes:
        raise ValueError(f"{data.val_annotations} has no box: there is nothing to evaluate on")
    return pictures


def score(detector: Detector, pictures: CocoDataset, recipe: Recipe) -> Metrics:
    """Evaluate a detector, wherever it is, as the recipe asks for; always in fp32, as it is shipped."""
    device = next(detector.parameters()).device
    return evaluate(
        detector, pictures, recipe.data.val_size, recipe.run.batch_size, device, precision="fp32", nms_iou=NMS_IOU
    )


def evaluate_on_val(detector: Detector, recipe: Recipe) -> Metrics:
    """Evaluate a detector on the val pictures of a recipe.

    Raises:
        ValueError: the recipe names no val pictures, or the detector knows other classes.
    """
    if detector.config.classes != recipe.data.classes:
        ours, theirs = ", ".join(detector.config.classes), ", ".join(recipe.data.classes)
        raise ValueError(f"the detector's classes are {ours}; the recipe's are {theirs}")
    pictures = val_set(recipe)
    if pictures is None:
        raise ValueError("the recipe names no val pictures: set data.val_images and data.val_annotations")
    return score(detector, pictures, recipe)


def scalars(metrics: Metrics) -> dict[str, float]:
    """The figures of an evaluation that are single numbers, for the journal."""
    return {f"val/{name}": value for name, value in asdict(metrics).items() if isinstance(value, int | float)}
