"""Pictures to compare runtimes on, laid on the model's canvas as the service does it."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError

SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"}

Canvas = NDArray[np.uint8]
"""(3, S, S), RGB."""
Kind = Literal["real", "synthetic"]


def real_canvases(source: Path, size: int, pad_value: int, most: int) -> list[Canvas]:
    """Up to `most` pictures, spread evenly over those of a source, see `picture_paths`.

    Raises:
        FileNotFoundError, ValueError: there are no pictures, or one of those taken cannot be read.
    """
    paths = picture_paths(source)
    chosen = sorted({round(i) for i in np.linspace(0, len(paths) - 1, min(most, len(paths)))})
    return [read_canvas(paths[i], size, pad_value) for i in chosen]


def picture_paths(source: Path) -> list[Path]:
    """The pictures of a folder, or those that a COCO file names, which lie in `images/` beside it; sorted.

    Raises:
        FileNotFoundError, ValueError: there are none.
    """
    if source.is_dir():
        paths = [path for path in source.iterdir() if path.suffix.lower() in SUFFIXES]
    elif source.suffix == ".json":
        try:
            entries = json.loads(source.read_text(encoding="utf-8")).get("images", [])
            paths = [source.parent / "images" / entry["file_name"] for entry in entries]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{source} is no COCO file with images and their file_name") from error
    else:
        raise FileNotFoundError(f"{source} is neither a folder nor a COCO file (.json)")
    if not paths:
        raise ValueError(f"{source} holds no pictures ({', '.join(sorted(SUFFIXES))})")
    return sorted(paths)


def synthetic_canvases(size: int, pad_value: int, count: int) -> list[Canvas]:
    """Noise with bright rectangles and discs, the same at every call; a stand-in where there is nothing real."""
    canvases = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        ground = rng.normal(rng.uniform(60, 150), 12, (size, size, 3)).clip(0, 255).astype(np.uint8)
        picture = Image.fromarray(ground)
        draw = ImageDraw.Draw(picture)
        for i in range(int(rng.integers(0, 40))):
            x, y = (int(v) for v in rng.integers(0, size, 2))
            width, height = (int(v) for v in rng.integers(4, max(6, size // 8), 2))
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
            (draw.rectangle if i % 2 else draw.ellipse)((x, y, x + width, y + height), fill=colour)
        canvases.append(letterbox(picture, size, pad_value))
    return canvases


def letterbox(picture: Image.Image, size: int, pad_value: int) -> Canvas:
    """Resize an RGB picture so that its longest side is `size`, and put it at the canvas's top-left corner."""
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    canvas = np.full((size, size, 3), pad_value, dtype=np.uint8)
    canvas[:height, :width] = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
    return np.ascontiguousarray(canvas.transpose(2, 0, 1))  # (S, S, 3) -> (3, S, S)


def read_canvas(path: Path, size: int, pad_value: int) -> Canvas:
    """Read a picture, turned as its EXIF says, and lay it on the canvas. Raises ValueError if it is damaged."""
    try:
        with Image.open(path) as image:
            return letterbox(ImageOps.exif_transpose(image).convert("RGB"), size, pad_value)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ValueError(f"{path} cannot be read as a picture ({error}); take it out of the pictures") from error
