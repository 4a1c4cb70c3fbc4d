"""Checkpoints: weights as safetensors beside their configuration as JSON. Nothing is ever unpickled."""

from pathlib import Path

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.config import DetectorConfig
from model.detector import Detector

WEIGHTS = "model.safetensors"
CONFIG = "config.json"


def save_detector(folder: Path, config: DetectorConfig, weights: dict[str, Tensor]) -> None:
    """Write `model.safetensors` and `config.json` into an existing folder."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, folder / WEIGHTS)
    (folder / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_config(folder: Path) -> DetectorConfig:
    """Read the configuration of a checkpoint. Raises FileNotFoundError or ValueError."""
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} is no checkpoint: it has no {CONFIG}; a run keeps its checkpoints in RUN/checkpoints/step-*"
        )
    try:
        return DetectorConfig.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} does not describe a detector: {error}") from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the weights of a checkpoint. Raises FileNotFoundError or ValueError."""
    path = folder / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no checkpoint: it has no {WEIGHTS}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); take an earlier checkpoint") from error


def load_detector(folder: str | Path) -> Detector:
    """Build the detector of a checkpoint folder, in evaluation mode on the CPU.

    Raises:
        FileNotFoundError: the folder or one of its files is missing.
        ValueError: a file is damaged, or weights and configuration do not belong together.
    """
    folder = Path(folder)
    detector = Detector(read_config(folder))
    try:
        detector.load_state_dict(read_weights(folder))
    except RuntimeError as error:
        raise ValueError(f"the weights in {folder} do not fit its {CONFIG}: {error}") from error
    return detector.eval()
