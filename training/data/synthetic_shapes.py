"""What stands in a synthetic scene, seen from above: polygons with colours.

Shapes are drawn around (0, 0) with their length along x, in pixels of the picture; x right, y down.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Points = NDArray[np.float64]
Colour = tuple[int, int, int]

CARS: Sequence[Colour] = (
    (235, 235, 232), (205, 208, 210), (150, 152, 155), (60, 62, 66), (30, 32, 36),
    (150, 40, 38), (45, 70, 120), (120, 110, 85), (225, 190, 70), (60, 95, 75),
)  # fmt: skip
HULLS: Sequence[Colour] = (
    (230, 230, 228),
    (190, 192, 190),
    (110, 60, 50),
    (70, 80, 90),
    (160, 140, 110),
    (50, 70, 110),
)
ROOFS: Sequence[Colour] = (
    (170, 165, 158),
    (130, 85, 70),
    (105, 105, 108),
    (200, 198, 192),
    (95, 75, 65),
    (150, 130, 105),
)
COURTS: Sequence[Colour] = ((75, 115, 85), (70, 95, 135), (150, 90, 70), (95, 130, 95), (110, 110, 112), (60, 120, 140))
LEAVES: Sequence[Colour] = ((52, 72, 45), (66, 84, 50), (44, 60, 42), (80, 88, 52))


@dataclass(frozen=True)
class Part:
    """A filled polygon."""

    outline: Points
    """(P, 2)."""
    colour: Colour


def place(parts: Sequence[Part], angle: float, centre: tuple[float, float], grow: float = 1.0) -> list[Part]:
    """Scale by `grow`, turn by `angle` radians and move to `centre`."""
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return [Part(part.outline @ turn * grow + np.array(centre), part.colour) for part in parts]


def bounds(parts: Sequence[Part]) -> tuple[float, float, float, float]:
    """The tight box around all parts, xyxy."""
    points = np.concatenate([part.outline for part in parts])
    (x1, y1), (x2, y2) = points.min(axis=0), points.max(axis=0)
    return float(x1), float(y1), float(x2), float(y2)


def rectangle(x1: float, y1: float, x2: float, y2: float) -> Points:
    """Four corners."""
    return np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float64)


def disc(radius: float, centre: tuple[float, float] = (0.0, 0.0), corners: int = 28) -> Points:
    """A circle as a polygon."""
    angles = np.arange(corners) * (2 * math.pi / corners)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius + np.array(centre)


def shade(colour: Sequence[int], factor: float) -> Colour:
    """A darker (below 1) or lighter colour."""
    red, green, blue = (int(min(255, max(0, value * factor))) for value in colour)
    return red, green, blue


def pick(rng: Generator, colours: Sequence[Colour], spread: float = 0.12) -> Colour:
    """One of the colours, a little darker or lighter."""
    return shade(colours[int(rng.integers(len(colours)))], float(rng.uniform(1 - spread, 1 + spread)))


def vehicle(rng: Generator, length: float) -> list[Part]:
    """A car with its windows, or a lorry with its load."""
    half, wide = length / 2, length * rng.uniform(0.42, 0.52) / 2
    body = pick(rng, CARS)
    parts = [Part(rectangle(-half, -wide, half, wide), body)]
    if rng.random() < 0.2:
        return [*parts, Part(rectangle(-half, -wide, 0.45 * half, wide), pick(rng, ROOFS))]
    glass = shade(body, 0.35)
    parts.append(Part(rectangle(0.15 * half, -0.85 * wide, 0.45 * half, 0.85 * wide), glass))
    parts.append(Part(rectangle(-0.75 * half, -0.8 * wide, -0.55 * half, 0.8 * wide), glass))
    return parts


def ship(rng: Generator, length: float) -> list[Part]:
    """A hull with a pointed bow, a deck and a bridge."""
    half, wide = length / 2, length * rng.uniform(0.24, 0.36) / 2
    shoulder = rng.uniform(0.2, 0.6)
    outline = np.array(
        [[-half, -0.85 * wide], [-0.7 * half, -wide], [shoulder * half, -wide], [half, 0.0],
         [shoulder * half, wide], [-0.7 * half, wide], [-half, 0.85 * wide]]
    )  # fmt: skip
    hull = pick(rng, HULLS)
    stern = rng.uniform(-0.8, -0.2)
    bridge = rectangle(stern * half, -0.6 * wide, (stern + 0.3) * half, 0.6 * wide)
    deck = Part(outline * np.array([0.86, 0.7]), shade(hull, float(rng.uniform(0.7, 1.25))))
    return [Part(outline, hull), deck, Part(bridge, pick(rng, ((240, 240, 238), (200, 200, 205))))]


def tank(rng: Generator, length: float) -> list[Part]:
    """A storage tank: rim, lid, hub and the shaded inside of a floating lid."""
    radius = length / 2
    rim = pick(rng, ((225, 225, 220), (200, 200, 196), (170, 165, 150), (150, 150, 152)))
    parts = [Part(disc(radius), rim), Part(disc(0.88 * radius), shade(rim, float(rng.uniform(0.8, 1.08))))]
    if rng.random() < 0.5:
        turn = rng.uniform(0, 2 * math.pi)
        shift = (0.25 * radius * math.cos(turn), 0.25 * radius * math.sin(turn))
        parts.insert(1, Part(disc(0.88 * radius), shade(rim, 0.45)))
        parts[2] = Part(disc(0.62 * radius, shift), parts[2].colour)
    return [*parts, Part(disc(0.1 * radius, corners=8), shade(rim, 0.7))]


def airplane(rng: Generator, length: float) -> list[Part]:
    """Fuselage, swept wings, tail and engines."""
    half, body = length / 2, length * rng.uniform(0.05, 0.065)
    span, sweep = half * rng.uniform(0.85, 1.05), half * rng.uniform(0.25, 0.5)
    root = half * rng.uniform(0.15, 0.3)
    skin = pick(rng, ((238, 238, 236), (215, 217, 220), (175, 178, 182), (225, 220, 205)), 0.06)
    fuselage = np.array([[half, 0], [0.85 * half, -body], [-0.7 * half, -body], [-half, 0], [-0.7 * half, body],
                         [0.85 * half, body]])  # fmt: skip
    parts = []
    for side in (-1.0, 1.0):
        wing = np.array(
            [[root, 0], [root - sweep, side * span], [root - sweep - 0.12 * half, side * span], [root - 0.45 * half, 0]]
        )
        tail = np.array([[-0.7 * half, 0], [-0.88 * half, side * 0.36 * span], [-0.98 * half, side * 0.36 * span],
                         [-0.9 * half, 0]])  # fmt: skip
        engine = side * 0.36 * span
        nacelle = rectangle(
            root - 0.42 * sweep, engine - 0.4 * body, root - 0.42 * sweep + 0.2 * half, engine + 0.4 * body
        )
        parts += [Part(nacelle, shade(skin, 0.7)), Part(wing, shade(skin, 0.93)), Part(tail, shade(skin, 0.93))]
    return [*parts, Part(fuselage, skin)]


def court(rng: Generator, length: float) -> list[Part]:
    """A sports court: surround, playing field and white lines."""
    half, wide = length / 2, length * rng.uniform(0.48, 0.6) / 2
    line, white = max(0.3, 0.012 * length), shade((238, 238, 235), float(rng.uniform(0.85, 1.0)))
    x, y = 0.8 * half, 0.74 * wide
    parts = [
        Part(rectangle(-half, -wide, half, wide), pick(rng, COURTS)),
        Part(rectangle(-x, -y, x, y), pick(rng, COURTS)),
    ]
    strokes = [(-x, -y, x, -y), (-x, y, x, y), (-x, -y, -x, y), (x, -y, x, y), (0.0, -y, 0.0, y)]
    strokes += [(-x, -0.75 * y, x, -0.75 * y), (-x, 0.75 * y, x, 0.75 * y), (-0.5 * x, 0.0, 0.5 * x, 0.0)]
    strokes += [(side * 0.5 * x, -0.75 * y, side * 0.5 * x, 0.75 * y) for side in (-1, 1)]
    return parts + [Part(rectangle(x1 - line, y1 - line, x2 + line, y2 + line), white) for x1, y1, x2, y2 in strokes]


def building(rng: Generator, length: float) -> list[Part]:
    """A roof with its ridge or parapet, and small things on it (clutter)."""
    half, wide = length / 2, length * rng.uniform(0.4, 1.0) / 2
    roof = pick(rng, ROOFS, 0.25)
    parts = [Part(rectangle(-half, -wide, half, wide), roof)]
    if rng.random() < 0.5:
        parts.append(Part(rectangle(-half, 0, half, wide), shade(roof, 0.8)))
        return parts
    parts.append(Part(rectangle(-0.94 * half, -0.94 * wide, 0.94 * half, 0.94 * wide), shade(roof, 1.06)))
    for _ in range(int(rng.integers(0, 6))):
        x, y = rng.uniform(-0.8, 0.7) * half, rng.uniform(-0.8, 0.6) * wide
        side = rng.uniform(1.0, 0.15 * length + 1.0)
        parts.append(Part(rectangle(x, y, x + side, y + 0.7 * side), shade(roof, float(rng.uniform(0.6, 1.3)))))
    return parts


def tree(rng: Generator, length: float) -> list[Part]:
    """A ragged crown, lit from one side (clutter)."""
    leaf = pick(rng, LEAVES, 0.25)
    ragged = disc(length / 2, corners=11) * rng.uniform(0.75, 1.1, size=(11, 1))
    return [Part(ragged, leaf), Part(0.55 * ragged - 0.1 * length, shade(leaf, 1.25))]
