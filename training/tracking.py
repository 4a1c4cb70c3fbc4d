"""What a run leaves behind: checkpoints that survive kill -9, curves for TensorBoard, a log that scripts can read.

A checkpoint is a folder `checkpoints/step-000500`: the averaged weights and their configuration, as `model.checkpoint`
reads them, and beside them all that an exact resume needs. It is written under another name and renamed when whole.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from model.checkpoint import save_detector
from model.detector import Detector
from training.ema import AveragedDetector

STATE = "training.safetensors"
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
        return max((p for p in self.checkpoints.glob("step-*") if p.suffix != ".tmp"), default=None)

    def save(self, step: int, detector: Detector, average: AveragedDetector, optimizer: torch.optim.Optimizer) -> Path:
        """Write the checkpoint after `step` steps, then drop those that are no longer needed."""
        final = self.checkpoints / f"step-{step:06d}"
        partial = final.with_suffix(".tmp")
        for stale in (partial, final):
            shutil.rmtree(stale, ignore_errors=True)
        partial.mkdir()
        save_detector(partial, detector.config, average.detector.state_dict())
        save_file(_state(detector, optimizer), partial / STATE, metadata={"step": str(step)})
        partial.rename(final)
        for old in sorted(p for p in self.checkpoints.glob("step-*") if p.suffix != ".tmp")[:-KEPT]:
            shutil.rmtree(old)
        return final


def restore(
    checkpoint: Path, detector: Detector, average: AveragedDetector, optimizer: torch.optim.Optimizer
) -> int:
    """Put model, average, optimizer and random state back; returns the number of steps done."""
    average.detector.load_state_dict(load_file(checkpoint / "model.safetensors"))
    state = load_file(checkpoint / STATE)
    detector.load_state_dict({name: state[f"model.{name}"] for name in detector.state_dict()})
    for name, parameter in detector.named_parameters():
        slots = {k.rsplit(".", 1)[1]: v for k, v in state.items() if k.startswith(f"optimizer.{name}.")}
        device = parameter.device
        optimizer.state[parameter] = {k: v if k == "step" else v.to(device) for k, v in slots.items()}
    torch.set_rng_state(state["random.cpu"])
    if "random.cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["random.cuda"])
    return int(checkpoint.name.removeprefix("step-"))


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

    def __init__(self, path: Path) -> None:
        self.board = SummaryWriter(str(path / "tensorboard"))
        self.lines = (path / "metrics.jsonl").open("a", encoding="utf-8")

    def write(self, step: int, figures: dict[str, float]) -> None:
        """Record figures of one step."""
        for name, value in figures.items():
            self.board.add_scalar(name, value, step)
        self.lines.write(json.dumps({"step": step, **figures}) + "\n")
        self.lines.flush()

    def close(self) -> None:
        self.board.close()
        self.lines.close()
