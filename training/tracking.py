"""What a run leaves behind: checkpoints that survive kill -9, curves for TensorBoard, a log that scripts can read.

A checkpoint is a folder `checkpoints/step-000500`: the averaged weights and their configuration, as `model.checkpoint`
reads them, and beside them all that an exact resume needs. It is written under another name and renamed when whole.
"""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.tensorboard.writer import SummaryWriter

from model.checkpoint import read_config, read_weights, save_detector
from model.config import Config
from model.detector import Detector
from training.ema import AveragedDetector

STATE = "training.safetensors"
PARTIAL = ".tmp"
"""Ending of a folder that is being written or deleted; whatever bears it after a crash is waste."""
KEPT = 2
"""Newest checkpoints that stay on disk."""


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
        """Write the checkpoint after `step` steps, then drop those that are no longer needed."""
        for waste in self.checkpoints.glob(f"step-*{PARTIAL}"):
            shutil.rmtree(waste)
        final = self.checkpoints / f"step-{step:06d}"
        partial = final.with_suffix(PARTIAL)
        partial.mkdir()
        save_detector(partial, detector.config, average.detector.state_dict())
        save_file(_state(detector, optimizer), partial / STATE)
        partial.rename(final)
        for old in sorted(self._whole(), key=steps_done)[:-KEPT]:
            shutil.rmtree(old.rename(old.with_suffix(PARTIAL)))
        return final

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
    differences = list(changes(read_config(checkpoint), detector.config))
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


def changes(before: Config, after: Config) -> Iterator[str]:
    """Every field that differs, as "name: value in the run, value in the recipe"."""
    was, now = (dict(_flat(config.model_dump())) for config in (before, after))
    yield from (f"{name}: {was[name]} in the run, {now[name]} in the recipe" for name in was if was[name] != now[name])


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
    return value if slot == "step" else torch.empty_like(parameter.detach()).copy_(value)


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
        log = path / "metrics.jsonl"
        if log.exists():
            log.write_text("".join(_entries_until(done, log.read_text(encoding="utf-8"))), encoding="utf-8")
        self.lines = log.open("a", encoding="utf-8")

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Record figures of one step; in the log, null stands for what is not finite."""
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        self.lines.write(json.dumps({"step": step, **finite}) + "\n")
        self.lines.flush()

    def close(self) -> None:
        self.board.close()
        self.lines.close()


def _entries_until(done: int, log: str) -> Iterator[str]:
    """The whole lines of a log, up to a step; a crash can cut the last one."""
    for line in log.splitlines(keepends=True):
        if line.endswith("\n") and json.loads(line)["step"] <= done:
            yield line
