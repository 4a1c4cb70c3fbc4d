"""A run: which steps are made, and what is kept, measured and said between them. A step is in training/trainer.py."""

import math
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from model.detector import Detector
from training.config import Recipe
from training.data.datasets import CocoDataset
from training.data.loader import pictures_of_step, training_batches
from training.data.samples import Targets
from training.data.transforms import Augment
from training.evaluation.evaluate import Findings, Metrics, detect
from training.parallel import Processes
from training.pictures.history import draw_history
from training.tracking import BAD_BATCHES, Journal, RunFolder, changes, write_whole
from training.trainer import Trainer

MOST_SKIPPED = 20
"""Steps without a finite loss, one after the other, after which a run gives up."""

NMS_IOU = 0.8
"""Suppression of duplicates during evaluation: what a model is shipped with unless its manifest says otherwise."""


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
        OSError: something could not be read or, on a full disk, written.
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
    processes = Processes()
    if recipe.run.threads:
        torch.set_num_threads(recipe.run.threads)
    pictures, val_pictures = train_set(recipe), val_set(recipe)
    processes.say(f"train: {pictures.report}")
    trainer = Trainer(recipe, processes)
    if recipe.run.precision == "bf16" and trainer.device.type == "cpu" and not _has_bf16(torch.cpu.get_capabilities()):
        processes.say('this CPU has no instructions for bf16: precision = "fp32" under [run] is several times as fast')
    first = begin(trainer, checkpoint, out)
    last = recipe.run.steps if stop_after is None else min(recipe.run.steps, stop_after)
    if checkpoint is not None and first >= last:
        processes.say(f"nothing to do: {first} steps are done, and {last} are asked for")
        processes.part_ways()
        return checkpoint
    with ExitStack() as closed_in_the_end:
        journal = None
        if processes.is_main:
            write_whole(out / "recipe.toml", recipe.to_toml())
            journal = closed_in_the_end.enter_context(closing(Journal(out, first)))
        Run(trainer, pictures, val_pictures, folder, journal).carry_out(range(first, last))
    processes.part_ways()
    final = folder.latest()
    assert final is not None  # the last step wrote one
    processes.say(f"checkpoint: {final}")
    return final


def _has_bf16(capabilities: Mapping[str, object]) -> bool:
    """Whether a CPU multiplies in bf16 by itself; of other makes than x86 it is not known, and taken for granted."""
    return any(capabilities.get(name, True) for name in ("avx512_bf16", "amx_bf16"))


def begin(trainer: Trainer, checkpoint: Path | None, out: Path) -> int:
    """Bring the trainer to where it starts; returns the number of steps done by then."""
    recipe, say = trainer.recipe, trainer.processes.say
    if checkpoint is not None:
        for line in checked_changes(out / "recipe.toml", recipe):
            say(f"resumed with a change, {line}")
        first = trainer.restore(checkpoint)
        say(f"{out} goes on after {first} steps")
        return first
    if recipe.run.init is not None:
        trainer.start_from(recipe.run.init)
    else:
        trainer.start_fresh()
    say(f"{out} begins: {out / 'metrics.jsonl'} for scripts, {out / 'tensorboard'} for eyes")
    return 0


def checked_changes(kept: Path, recipe: Recipe) -> list[str]:
    """What a resumed run changes against the recipe that it keeps, which may be of an older version of this code.

    Raises:
        ValueError: the run could not tell which pictures it has already seen.
    """
    before, after = (tomllib.loads(text) for text in (kept.read_text(encoding="utf-8"), recipe.to_toml()))
    differences = list(changes(before, after))
    if refused := [line for line in differences if line.startswith(("run.seed:", "run.batch_size:"))]:
        raise ValueError(f"a run cannot be resumed with {'; '.join(refused)}; begin another one (--out)")
    return differences


@dataclass(frozen=True)
class Run:
    """A trainer with all that it needs around it."""

    trainer: Trainer
    pictures: CocoDataset
    val_pictures: CocoDataset | None
    folder: RunFolder
    journal: Journal | None
    """Of the main process, which alone writes; None in the others."""

    def carry_out(self, steps: range) -> None:
        """Some steps, at least one, with checkpoints and evaluations between them, and a picture at the end."""
        for number, (images, targets) in zip(steps, self._batches(steps), strict=True):
            figures = self.trainer.step(number, images, targets)
            if self.trainer.skipped:
                self._skip(number, figures)
            if self.journal is not None:
                self._keep(self.journal, number + 1, figures, is_last=number + 1 == steps.stop)
        if self.journal is not None:
            draw_history(self.folder.path)

    def _batches(self, steps: range) -> Iterator[tuple[Tensor, Targets]]:
        """The process's part of each batch; the main process shows a bar."""
        trainer, run = self.trainer, self.trainer.recipe.run
        augment, rows = Augment(trainer.recipe.augment), trainer.rows
        batches = training_batches(
            self.pictures, augment, run.seed, run.batch_size, steps.start, steps.stop, run.workers, rows
        )
        if self.journal is None:
            return batches
        bar = tqdm(
            batches,
            initial=steps.start,
            total=steps.stop,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            smoothing=0.05,
        )
        return iter(bar)

    def _keep(self, journal: Journal, done: int, figures: dict[str, float], is_last: bool) -> None:
        """Journal, checkpoint and evaluation after `done` steps, each when it is due."""
        trainer, run = self.trainer, self.trainer.recipe.run
        if done % run.log_every == 0 or is_last:
            journal.write(done, figures)
        if done % run.checkpoint_every == 0 or is_last:
            self.folder.save(done, trainer.detector, trainer.average, trainer.optimizer)
        between = run.evaluate_every > 0 and done % run.evaluate_every == 0
        if self.val_pictures is not None and (between or done == run.steps):
            metrics = look_at(self.val_pictures, trainer.average.detector, trainer.recipe).metrics()
            tqdm.write(f"after {done} steps\n{metrics.table()}")
            journal.write(done, scalars(metrics))

    def _skip(self, number: int, figures: dict[str, float]) -> None:
        """Note the pictures of a step that was not finite. Raises FloatingPointError after too many in a row."""
        trainer, run = self.trainer, self.trainer.recipe.run
        terms = {name: value for name, value in figures.items() if name.startswith("loss")}
        broken = [name.removeprefix("loss/") for name, value in terms.items() if not math.isfinite(value)]
        what = ", ".join(name for name in broken if name != "loss") or "the gradient"
        if self.journal is not None:
            augment = Augment(trainer.recipe.augment)
            samples = pictures_of_step(self.pictures, augment, run.seed, run.batch_size, number)
            named = [[{"id": i, "path": str(self.pictures.path_of(i))} for i in ids] for ids in samples]
            self.folder.note_bad_batch(number, terms, named)
        pictures = f"its pictures are listed in {self.folder.path / BAD_BATCHES}"
        if trainer.skipped >= MOST_SKIPPED:
            raise FloatingPointError(
                f"{MOST_SKIPPED} steps in a row had no finite loss ({what}), the last of them step {number}; "
                f"{pictures}; lower optimizer.learning_rate or set run.precision to fp32"
            )
        trainer.processes.say(f"step {number}: {what} not finite; the step is skipped; {pictures}")


def train_set(recipe: Recipe) -> CocoDataset:
    """The pictures to learn from."""
    data = recipe.data
    return CocoDataset(data.train_images, data.train_annotations, data.classes, data.train_size, data.min_box_px)


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


def look_at(pictures: CocoDataset, detector: Detector, recipe: Recipe, every_layer: bool = False) -> Findings:
    """What a detector, wherever it is, says of pictures, as the recipe asks for; always in fp32, as it is shipped."""
    device = next(detector.parameters()).device
    side, batch = recipe.data.val_size, recipe.run.batch_size
    return detect(detector, pictures, side, batch, device, precision="fp32", nms_iou=NMS_IOU, every_layer=every_layer)


def matching_val_set(detector: Detector, recipe: Recipe) -> CocoDataset:
    """The val pictures of a recipe, for a detector that may be of another one.

    Raises:
        ValueError: the recipe names no val pictures, or the detector knows other classes.
    """
    if detector.config.classes != recipe.data.classes:
        ours, theirs = ", ".join(detector.config.classes), ", ".join(recipe.data.classes)
        raise ValueError(f"the detector's classes are {ours}; the recipe's are {theirs}")
    pictures = val_set(recipe)
    if pictures is None:
        raise ValueError("the recipe names no val pictures: set data.val_images and data.val_annotations")
    return pictures


def scalars(metrics: Metrics) -> dict[str, float]:
    """The figures of an evaluation that are single numbers, for the journal."""
    return {f"val/{name}": value for name, value in asdict(metrics).items() if isinstance(value, int | float)}
