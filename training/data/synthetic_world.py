"""A synthetic scene while it is built: what is where, what is free, and how it is drawn."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.data import synthetic_shapes as shapes
from training.data.samples import Sample
from training.data.synthetic_ground import expose, ground
from training.data.synthetic_shapes import Colour, Part, Points, bounds, place

OVERSAMPLING = 3
"""Polygons are drawn at this many times the resolution and averaged, so that edges are soft."""

SMALLEST_SIDE_PX = 2.0
"""Objects with a side of their box below this are not placed."""

OBJECTS: dict[str, tuple[Callable[[Generator, float], list[Part]], float]] = {
    "vehicle": (shapes.vehicle, 0.12),
    "ship": (shapes.ship, 0.08),
    "tank": (shapes.tank, 0.25),
    "airplane": (shapes.airplane, 0.08),
    "court": (shapes.court, 0.0),
}
"""Shape, and height as a share of the length, which makes the shadow."""

CLASSES = tuple(OBJECTS)
"""Class names in label order."""


class World:
    """A square scene of `size` px that still wants `wanted` objects; objects do not overlap each other."""

    def __init__(self, rng: Generator, kind: str, size: int, wanted: int, zoom: float) -> None:
        """Empty ground. `zoom` is the scale of all things: 1 for cars of about 9 px."""
        self.rng = rng
        self.size = size
        self.wanted = wanted
        self.zoom = zoom
        self._ground = ground(rng, kind, size)
        self._flat: list[Part] = []
        self._standing: list[tuple[list[Part], float]] = []
        self._taken = np.zeros((size, size), dtype=bool)
        self._paved = np.zeros((size, size), dtype=bool)
        self._boxes: list[tuple[float, float, float, float]] = []
        self._labels: list[int] = []

    def anywhere(self) -> tuple[float, float]:
        """A random point."""
        x, y = self.rng.uniform(0, self.size, size=2)
        return float(x), float(y)

    def lay(self, outline: Points, colour: Colour, paved: bool = True) -> None:
        """Paint the ground; nothing but objects is put on what is paved."""
        self._flat.append(Part(outline, colour))
        if paved:
            self._claim(self._paved, [self._flat[-1]])

    def add_clutter(self, shape: Callable[[Generator, float], list[Part]], length: float, angle: float,
                    centre: tuple[float, float], height: float) -> None:  # fmt: skip
        """Put up a building or a tree if the place is free."""
        parts = place(shape(self.rng, length), angle, centre)
        if self._free(self._paved, parts) and self._free(self._taken, parts):
            self._claim(self._taken, parts)
            self._standing.append((parts, height))

    def add_object(self, name: str, length: float, angle: float, centre: tuple[float, float]) -> bool:
        """Put an object of about 4 to 60 px if one is wanted and the place is free and inside the picture."""
        length = min(60.0, max(4.5, length))
        shape, height = OBJECTS[name]
        local = shape(self.rng, length)
        parts = place(local, angle, centre)
        x1, y1, x2, y2 = box = bounds(parts)
        inside = min(x1, y1) >= 0 and max(x2, y2) <= self.size
        if self.wanted <= 0 or not inside or min(x2 - x1, y2 - y1) < SMALLEST_SIDE_PX:
            return False
        around = place(local, angle, centre, grow=1.1)
        if not self._free(self._taken, around):
            return False
        self._claim(self._taken, around)
        self._standing.append((parts, height * length))
        self._boxes.append(box)
        self._labels.append(CLASSES.index(name))
        self.wanted -= 1
        return True

    def finish(self) -> Sample:
        """Draw everything: ground, shadows, what stands, and the camera. The image id is 0."""
        big = (self.size * OVERSAMPLING, self.size * OVERSAMPLING)
        canvas = Image.fromarray(self._ground).resize(big, Image.Resampling.BILINEAR)
        _draw(canvas, self._flat)
        dark = canvas.point([int(level * 0.42) for level in range(256)] * 3)
        canvas = Image.composite(dark, canvas, self._shadows(big))
        for parts, _ in self._standing:
            _draw(canvas, parts)
        image = expose(self.rng, canvas.reduce(OVERSAMPLING))
        boxes = np.array(self._boxes, dtype=np.float32).reshape(-1, 4)
        return Sample(image, boxes, np.array(self._labels, dtype=np.int64), image_id=0)

    def _shadows(self, big: tuple[int, int]) -> Image.Image:
        """Mask (L) of the soft shadows that the sun of this scene throws."""
        mask = Image.new("L", (self.size, self.size))
        brush = ImageDraw.Draw(mask)
        strength, angle = int(self.rng.integers(90, 230)), self.rng.uniform(0, 2 * math.pi)
        slope = self.rng.uniform(0.3, 1.2)
        for parts, height in self._standing:
            for step in np.linspace(0, height * slope, 1 + math.ceil(height * slope / 2)) if height > 0 else ():
                shift = step * np.array([math.cos(angle), math.sin(angle)])
                for part in parts:
                    brush.polygon([tuple(point) for point in part.outline + shift], fill=strength)
        return mask.filter(ImageFilter.GaussianBlur(0.8)).resize(big, Image.Resampling.BILINEAR)

    def _free(self, mask: NDArray[np.bool_], parts: Sequence[Part]) -> bool:
        region, covered = self._cover(parts)
        return not np.any(mask[region] & covered)

    def _claim(self, mask: NDArray[np.bool_], parts: Sequence[Part]) -> None:
        region, covered = self._cover(parts)
        mask[region] |= covered

    def _cover(self, parts: Sequence[Part]) -> tuple[tuple[slice, slice], NDArray[np.bool_]]:
        """Which pixels the parts cover: a region of the picture, and a mask of its size."""
        x1, y1, x2, y2 = np.clip(bounds(parts), -1, self.size).astype(int)
        x1, y1 = max(0, x1), max(0, y1)
        width, height = max(0, min(self.size, x2 + 1) - x1), max(0, min(self.size, y2 + 1) - y1)
        region = (slice(y1, y1 + height), slice(x1, x1 + width))
        if not width or not height:
            return region, np.zeros((height, width), dtype=bool)
        mask = Image.new("1", (width, height))
        brush = ImageDraw.Draw(mask)
        for part in parts:
            brush.polygon([tuple(point) for point in part.outline - np.array([x1, y1])], fill=1)
        return region, np.asarray(mask)


def _draw(canvas: Image.Image, parts: Sequence[Part]) -> None:
    """Fill polygons on the oversampled canvas."""
    brush = ImageDraw.Draw(canvas)
    for part in parts:  # Pillow fills the pixels whose centres are at whole numbers
        brush.polygon([tuple(point) for point in part.outline * OVERSAMPLING - 0.5], fill=part.colour)
