"""`python -m training visualize`: what a checkpoint sees in pictures, as the figures of the papers show it."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from tqdm import tqdm

from model.checkpoint import load_detector
from model.detector import Detector
from training.config import Recipe
from training.data.files import UNREADABLE
from training.loop import best_device
from training.pictures.panels import draw_panel
from training.pictures.seeing import look


def run_visualize(arguments: argparse.Namespace) -> list[Path]:
    """Carry out the parsed sub-command; returns the panels."""
    cell = None if arguments.cell is None else (arguments.cell[0], arguments.cell[1])
    return visualize(arguments.checkpoint, arguments.pictures, arguments.out, cell, arguments.size)


def visualize(
    checkpoint: Path, pictures: Sequence[Path], out: Path, cell: tuple[float, float] | None, size: int | None
) -> list[Path]:
    """Draw one panel per picture; returns the files.

    Args:
        checkpoint: folder RUN/checkpoints/step-*.
        pictures: files, of which no two may have the same name.
        out: folder for the panels, NAME.png.
        cell: place in the picture (x, y) whose cell shows its snake paths; None takes the hottest.
        size: side of the canvas; None takes val_size of the run's recipe.
    Raises:
        FileNotFoundError: no checkpoint, or a picture is missing.
        ValueError: a picture cannot be read, or an argument does not fit.
    """
    targets = {path: out / f"{path.stem}.png" for path in pictures}
    if len(set(targets.values())) < len(pictures):
        raise ValueError("two pictures have the same name, and so would their panels: draw them into different folders")
    detector = load_detector(checkpoint).to(best_device())
    side = checked_size(checkpoint, detector, size)
    out.mkdir(parents=True, exist_ok=True)
    for path, target in tqdm(targets.items(), desc="visualize", unit="picture"):
        draw_panel(look(detector, open_picture(path), side, cell), path.name).savefig(target)
    return list(targets.values())


def checked_size(checkpoint: Path, detector: Detector, size: int | None) -> int:
    """Side of the canvas: as asked for, or as the run evaluates."""
    recipe = checkpoint.resolve().parent.parent / "recipe.toml"
    if size is None and not recipe.is_file():
        raise ValueError(f"{recipe} is missing, so the size of the canvas is unknown; pass --size, such as 640")
    size = size or Recipe.from_toml(recipe).data.val_size
    if size % detector.config.strides[-1]:
        raise ValueError(f"size {size} is not a multiple of the coarsest stride {detector.config.strides[-1]}")
    return size


def open_picture(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3), RGB, turned as its EXIF entry says. Raises FileNotFoundError or ValueError."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no picture {path}")
    try:
        with Image.open(path) as picture:
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as a picture: {error}") from error
