"""What a run leaves behind: checkpoints that survive kill -9 and a full disk, curves, a log that scripts can read.

A checkpoint is a folder `checkpoints/step-000500`: the averaged weights and their configuration, as `model.checkpoint`
reads them, and beside them all that an exact resume needs. It is written under another name and renamed when whole.
"""

import json
import math
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from model.checkpoint import read_config, read_weights, save_detector
from model.detector import Detector
from training.ema import AveragedDetector

STATE = "training.safetensors"
PARTIAL = ".tmp"
"""Ending of a folder that is being written or deleted; whatever bears it after a crash is waste."""
KEPT = 2
"""Newest checkpoints that stay on disk."""
BAD_BATCHES = "bad-batch.json"
KEPT_BAD = 100
"""Newest bad batches that are remembered."""


class RunFolder:
    """The folder of one training run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.checkpoints.mkdir(parents=True, exist_ok=True)

    def latest(self) -> Path | None:
        """The newest whole checkpoint, or None."""
        return max(self._whole(), key=steps_done, default=None)

    def save(self, step: int, detector: Detector, average: AveragedDetector, optimizer: torch.optim.Optimizer) -> Path:
        """Write the checkpoint after `step` steps, then drop those that are no longer needed.

        Raises:
            OSError: it could not be written, as on a full disk; the earlier ones are as they were.
        """
        for waste in self.checkpoints.glob(f"step-*{PARTIAL}"):
            shutil.rmtree(waste)
        final = self.checkpoints / f"step-{step:06d}"
        partial = final.with_suffix(PARTIAL)
        weights, state = average.detector.state_dict(), _state(detector, optimizer)
        try:
            partial.mkdir()
            save_detector(partial, detector.config, weights)
            save_file(state, partial / STATE)
            partial.rename(final)
        except (OSError, SafetensorError) as error:  # safetensors wraps what the system says in an error of its own
            shutil.rmtree(partial, ignore_errors=True)
            raise OSError(self._unwritten(final, [*weights.values(), *state.values()], error)) from error
        for old in sorted(self._whole(), key=steps_done)[:-KEPT]:
            shutil.rmtree(old.rename(old.with_suffix(PARTIAL)))
        return final

    def note_bad_batch(self, step: int, terms: dict[str, float], pictures: list[list[dict[str, Any]]]) -> Path:
        """Add a batch whose loss was not finite to the newest ones in `bad-batch.json`.

        Args:
            step: of the batch, from 0; with the seed, it says all about the batch.
            terms: the loss and its terms; null stands for what is not finite.
            pictures: id and path of the pictures that each sample of the batch was made of.
        """
        path = self.path / BAD_BATCHES
        known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        batch = {"step": step, "terms": {name: finite(value) for name, value in terms.items()}, "samples": pictures}
        write_whole(path, json.dumps([*known, batch][-KEPT_BAD:], indent=1) + "\n")
        return path

    def _unwritten(self, final: Path, tensors: list[Tensor], error: Exception) -> str:
        """What to do about a checkpoint that could not be written."""
        needed = sum(tensor.nbytes for tensor in tensors) / 1e6
        free = shutil.disk_usage(self.path).free / 1e6
        kept = self.latest()
        way_out = "begin again" if kept is None else f"resume from {kept.name} with --resume"
        return (
            f"{final} could not be written ({error}): it needs {needed:.1f} MB, and {free:.1f} MB are free; "
            f"make room, then {way_out}"
        )

    def _whole(self) -> Iterator[Path]:
        return (path for path in self.checkpoints.glob("step-*") if path.suffix != PARTIAL)


def steps_done(checkpoint: Path) -> int:
    """How many steps the weights in a checkpoint folder have seen, by its name."""
    return int(checkpoint.name.removeprefix("step-"))


def restore(checkpoint: Path, detector: Detector, average: AveragedDetector, optimizer: torch.optim.Optimizer) -> int:
    """Put model, average, optimizer and random state back; returns the number of steps done.

    Raises:
        FileNotFoundError: a file of the checkpoint is missing.
        ValueError: a file is damaged, or the checkpoint is of a detector with another configuration.
    """
    differences = list(changes(read_config(checkpoint).model_dump(), detector.config.model_dump()))
    if differences:
        raise ValueError(
            f"{checkpoint} cannot be resumed with this recipe: {'; '.join(differences)}. "
            "Undo the change, or begin another run (--out) with run.init set to this checkpoint"
        )
    average.detector.load_state_dict(read_weights(checkpoint))
    state = _read_state(checkpoint / STATE)
    detector.load_state_dict({name: state[f"model.{name}"] for name in detector.state_dict()})
    for name, parameter in detector.named_parameters():
        prefix = f"optimizer.{name}."
        slots = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        optimizer.state[parameter] = {slot: _as_used(slot, value, parameter) for slot, value in slots.items()}
    torch.set_rng_state(state["random.cpu"])
    if "random.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random.cuda"])
    return steps_done(checkpoint)


def changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """Every value that differs between two tables, as "name: value in the run, value in the recipe"."""
    was, now = dict(_flat(before)), dict(_flat(after))
    for name in dict.fromkeys([*was, *now]):
        old, new = (table.get(name, "nothing") for table in (was, now))
        if old != new:
            yield f"{name}: {old} in the run, {new} in the recipe"


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: these weights can be used, but the run cannot be resumed")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); delete its folder to resume from the one before") from error


def _as_used(slot: str, value: Tensor, parameter: Tensor) -> Tensor:
    """An optimizer's slot on its parameter's device, with its parameter's strides: else the last bit may differ."""
    return value.to(parameter.device) if slot == "step" else torch.empty_like(parameter.detach()).copy_(value)


def _state(detector: Detector, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Everything an exact resume needs beyond the averaged weights, by name."""
    tensors = {f"model.{name}": tensor for name, tensor in detector.state_dict().items()}
    for name, parameter in detector.named_parameters():
        tensors |= {f"optimizer.{name}.{slot}": value for slot, value in optimizer.state[parameter].items()}
    tensors["random.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


class Journal:
    """Writes each figure twice: to TensorBoard, and to `metrics.jsonl`."""

    def __init__(self, path: Path, done: int) -> None:
        """Go on after `done` steps; entries of later ones, from before a crash, are dropped."""
        self.board = SummaryWriter(str(path / "tensorboard"), purge_step=done + 1)
        self.path = path / "metrics.jsonl"
        if self.path.exists():
            write_whole(self.path, "".join(_entries_until(done, self.path.read_text(encoding="utf-8"))))
        self.lines = self.path.open("a", encoding="utf-8")

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Record figures of one step; in the log, null stands for what is not finite.

        Raises:
            OSError: the disk is full, say; what was written before stays, and the run can be resumed.
        """
        entry = {"step": step} | {name: finite(value) for name, value in figures.items()}
        try:
            self.lines.write(json.dumps(entry) + "\n")
            self.lines.flush()
            for name, value in figures.items():
                self.board.add_scalar(name, value, step)
        except OSError as error:
            raise OSError(
                f"the figures of step {step} could not be written to {self.path} ({error}); "
                "make room, then go on from the newest checkpoint with --resume"
            ) from error

    def close(self) -> None:
        """Close both; what a full disk leaves unwritten was reported by `write`."""
        for file in (self.board, self.lines):
            with suppress(OSError):
                file.close()


def finite(value: float) -> float | None:
    """The number, or None for JSON, which has no word for infinity."""
    return value if math.isfinite(value) else None


def write_whole(path: Path, text: str) -> None:
    """Replace a file by a new one, or leave it as it is: a full disk does not cut it short."""
    partial = path.with_name(path.name + PARTIAL)
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def _entries_until(done: int, log: str) -> Iterator[str]:
    """The whole lines of a log, up to a step; a crash can cut the last one."""
    for line in log.splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= done:
            yield line
