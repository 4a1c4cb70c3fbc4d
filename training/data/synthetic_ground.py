"""The ground of synthetic scenes and the look of the finished picture: noise fields, light, haze, sensor noise."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageFilter

GROUNDS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "city": ((128, 124, 116), (108, 112, 98), (140, 132, 120)),
    "sea": ((38, 62, 82), (52, 80, 88), (30, 48, 66), (70, 98, 100)),
    "airport": ((112, 122, 84), (140, 134, 100), (96, 108, 82)),
    "industry": ((150, 140, 122), (128, 126, 120), (160, 150, 135)),
    "country": ((96, 110, 68), (130, 122, 84), (84, 96, 64), (150, 138, 104)),
}
"""Base colours of each kind of scene."""


def noise_field(rng: Generator, size: int, cells: int, octaves: int) -> NDArray[np.float32]:
    """Smooth random field (size, size) with about unit spread; `cells` waves across at the coarsest octave."""
    field = np.zeros((size, size), dtype=np.float32)
    for octave in range(octaves):
        side = min(size, cells * 2**octave)
        grid = rng.standard_normal((side, side), dtype=np.float32)
        smooth = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        field += np.asarray(smooth) * 0.6**octave
    return field / max(1e-6, float(field.std()))


def ground(rng: Generator, kind: str, size: int) -> NDArray[np.uint8]:
    """Textured ground (size, size, 3): two colours mixed by a coarse field, roughened by a fine one."""
    colours = GROUNDS[kind]
    first, second = (np.array(colours[i], dtype=np.float32) for i in rng.choice(len(colours), size=2, replace=False))
    tint = rng.uniform(0.85, 1.15, size=3).astype(np.float32)
    share = 1 / (1 + np.exp(-2 * noise_field(rng, size, int(rng.integers(2, 6)), 4)))[:, :, None]
    rough = noise_field(rng, size, max(4, size // 16), 4)[:, :, None] * rng.uniform(2, 9)
    pixels = (first * share + second * (1 - share)) * tint + rough
    if kind == "sea":
        pixels += _waves(rng, size)[:, :, None] * rng.uniform(0, 5)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _waves(rng: Generator, size: int) -> NDArray[np.float32]:
    """Parallel swell of random direction, bent by noise."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    angle, wave_length = rng.uniform(0, np.pi), rng.uniform(4, 12)
    phase = (x * np.cos(angle) + y * np.sin(angle)) / wave_length * 2 * np.pi
    return np.sin(phase + 2 * noise_field(rng, size, 6, 2)).astype(np.float32)


def expose(rng: Generator, picture: Image.Image) -> NDArray[np.uint8]:
    """What the air and the sensor make of a picture (H, W, 3): blur, uneven light, haze, contrast, noise."""
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.2, 0.7))))
    pixels = np.asarray(picture, dtype=np.float32)
    size = pixels.shape[0]
    pixels = pixels * (1 + 0.04 * noise_field(rng, size, 2, 1))[:, :, None]
    haze = rng.uniform(0, 0.25)
    pixels = pixels * (1 - haze) + haze * np.array([165, 172, 180], dtype=np.float32)
    pixels = (pixels - 118) * rng.uniform(0.8, 1.3) + 118 + rng.uniform(-25, 20)
    pixels += rng.standard_normal(pixels.shape, dtype=np.float32) * rng.uniform(0.5, 5)
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
