"""Aerial scenes made by rule, with tight boxes: for pre-training and for tests, where no real picture may be used.

A scene is a city, a sea, an airport, an industrial site or open country, with 0 to about 200 objects of 4 to 60 px.
Vehicles, ships, tanks, airplanes and courts are labelled; buildings, trees, roads, piers and foam are distractors.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image
from tqdm import tqdm

from training.data.samples import Sample
from training.data.synthetic_shapes import Colour, Part, building, disc, pick, place, rectangle, tree
from training.data.synthetic_world import CLASSES, World

__all__ = ["CLASSES", "scene", "synthesize"]

LENGTHS = {"vehicle": 9.0, "ship": 20.0, "tank": 20.0, "airplane": 28.0, "court": 30.0}
"""Typical length in pixels at zoom 1."""

ASPHALT: tuple[Colour, ...] = ((92, 92, 94), (110, 108, 105), (78, 80, 84), (132, 130, 126))
CONCRETE: tuple[Colour, ...] = ((168, 166, 160), (150, 150, 148), (185, 180, 170))
SOIL: tuple[Colour, ...] = (
    (96, 110, 66),
    (132, 120, 82),
    (118, 126, 76),
    (150, 132, 98),
    (84, 98, 62),
    (160, 148, 112),
)


def scene(rng: Generator, size: int) -> Sample:
    """A random scene of size x size px; its image id is 0."""
    most = max(4.0, 200 * min(1.0, (size / 512) ** 2))
    wanted = 0 if rng.random() < 0.06 else round(math.exp(rng.uniform(0, math.log(most))))
    kind = str(rng.choice(["city", "sea", "airport", "industry", "country"]))
    world = World(rng, kind, size, wanted, zoom=math.exp(rng.uniform(math.log(0.55), math.log(1.8))))
    match kind:
        case "city":
            _city(world)
        case "sea":
            _sea(world)
        case "airport":
            _airport(world)
        case "industry":
            _industry(world)
        case _:
            _country(world)
    return world.finish()


def synthesize(out: Path, count: int, size: int, seed: int, progress: bool = True) -> None:
    """Write `count` scenes as `images/*.jpg` and `instances.json` in COCO format; the same seed gives the same files.

    Raises:
        FileExistsError: `out` is a file or a folder that is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not an empty folder; choose another one, nothing is overwritten")
    (out / "images").mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in tqdm(range(1, count + 1), desc="scenes", unit="scene", disable=not progress):
        sample = scene(np.random.default_rng([seed, number]), size)
        name = f"{number:06d}.jpg"
        Image.fromarray(sample.image).save(out / "images" / name, quality=92)
        images.append({"id": number, "file_name": name, "width": size, "height": size})
        for (x1, y1, x2, y2), label in zip(
            sample.boxes.astype(float).round(2).tolist(), sample.labels.tolist(), strict=True
        ):
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1}
            annotations.append({**entry, "bbox": box, "area": round(box[2] * box[3], 2), "iscrowd": 0})
    categories = [{"id": label, "name": name} for label, name in enumerate(CLASSES, start=1)]
    info = {"description": f"synthetic aerial scenes, {size} px, seed {seed}"}
    data = {"info": info, "images": images, "annotations": annotations, "categories": categories}
    (out / "instances.json").write_text(json.dumps(data), encoding="utf-8")


def _city(world: World) -> None:
    """Streets in a grid, cars on them and in car parks, houses, courts, trees."""
    rng, angle = world.rng, world.rng.uniform(0, math.pi)
    streets = [_street(world, angle + turn, 70) for turn in (0, math.pi / 2) for _ in range(rng.integers(1, 4))]
    for _ in range(int(rng.integers(0, 4))):
        _courts(world, angle)
    for _ in range(int(rng.integers(0, 3))):
        _car_park(world, angle)
    _houses(world, angle, int(rng.integers(10, 60)))
    _trees(world, int(rng.integers(5, 80)))
    _traffic(world, streets)


def _sea(world: World) -> None:
    """Ships at piers and in open water, foam, now and then land."""
    rng, size = world.rng, world.size
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * math.pi)
        shore = place(
            [Part(rectangle(0.25 * size, -2 * size, 3 * size, 2 * size), pick(rng, CONCRETE + SOIL))],
            angle,
            _middle(world),
        )
        world.lay(shore[0].outline, shore[0].colour, paved=False)
        for step in np.arange(-0.6, 0.6, rng.uniform(0.15, 0.3)):
            _pier(world, angle, float(step) * size)
    for _ in range(int(rng.integers(0, 60))):
        foam = disc(float(rng.uniform(0.6, 2.2)), world.anywhere(), corners=7)
        world.lay(foam, (190, 205, 208), paved=False)
    for _ in range(6 * world.wanted):
        length, angle = _length(world, "ship"), float(rng.uniform(0, 2 * math.pi))
        centre = world.anywhere()
        if world.add_object("ship", length, angle, centre) and rng.random() < 0.3:
            wake = np.array([[-0.5 * length, 0], [-2.2 * length, -0.3 * length], [-2.2 * length, 0.3 * length]])
            trail = place([Part(wake, (150, 172, 178))], angle, centre)[0]
            world.lay(trail.outline, trail.colour, paved=False)


def _airport(world: World) -> None:
    """Runway, apron with rows of airplanes, terminal, service cars."""
    rng, size, angle = world.rng, world.size, world.rng.uniform(0, math.pi)
    for _ in range(int(rng.integers(1, 3))):
        _street(world, angle, 60, wide=rng.uniform(20, 34) * world.zoom)
    deep = rng.uniform(0.3, 0.5) * size
    apron = place([Part(rectangle(-size, -deep / 2, size, deep / 2), pick(rng, CONCRETE))], angle, world.anywhere())[0]
    world.lay(apron.outline, apron.colour)
    centre = tuple(apron.outline.mean(axis=0))
    length = _length(world, "airplane")
    for _ in range(int(rng.integers(1, 4))):
        _rows(world, "airplane", length, angle + math.pi / 2, _near(world, centre, deep / 2), (2, 8), (1.3, 1.3))
    for _ in range(4 * min(world.wanted, 12)):
        world.add_object(
            "airplane", _length(world, "airplane"), rng.uniform(0, 2 * math.pi), _near(world, centre, deep)
        )
    _houses(world, angle, int(rng.integers(2, 14)))
    _trees(world, int(rng.integers(0, 30)))
    for _ in range(3 * min(world.wanted, 40)):
        turn = angle + rng.integers(4) * math.pi / 2
        world.add_object("vehicle", _length(world, "vehicle"), turn, _near(world, centre, deep))


def _industry(world: World) -> None:
    """Tank farms, halls, car parks, lanes."""
    rng, angle = world.rng, world.rng.uniform(0, math.pi)
    streets = [_street(world, angle + turn, 60) for turn in (0, math.pi / 2) for _ in range(rng.integers(1, 3))]
    for _ in range(int(rng.integers(1, 5))):
        _rows(world, "tank", _length(world, "tank"), angle, world.anywhere(), (1, 6), (1.3, 1.3))
    if rng.random() < 0.6:
        _car_park(world, angle)
    _houses(world, angle, int(rng.integers(4, 24)))
    _trees(world, int(rng.integers(0, 30)))
    for _ in range(2 * min(world.wanted, 10)):
        world.add_object("tank", _length(world, "tank"), 0.0, world.anywhere())
    _traffic(world, streets)


def _country(world: World) -> None:
    """Fields, woods, a road with cars, courts, a pond with boats."""
    rng = world.rng
    for _ in range(int(rng.integers(3, 12))):
        field = place(
            [Part(rectangle(-80, -50, 80, 50) * rng.uniform(0.4, 2.0), pick(rng, SOIL))],
            rng.uniform(0, math.pi),
            world.anywhere(),
        )
        world.lay(field[0].outline, field[0].colour, paved=False)
    streets = [_street(world, rng.uniform(0, math.pi), 60) for _ in range(rng.integers(0, 3))]
    for _ in range(int(rng.integers(0, 4))):
        _courts(world, rng.uniform(0, math.pi))
    if rng.random() < 0.4:
        centre, radius = world.anywhere(), rng.uniform(0.1, 0.25) * world.size
        world.lay(disc(radius, centre, corners=16) + rng.normal(0, 0.06 * radius, (16, 2)), (52, 74, 86))
        for _ in range(2 * min(world.wanted, 8)):
            turn, way = rng.uniform(0, 2 * math.pi), 0.75 * radius * math.sqrt(rng.random())
            spot = (centre[0] + way * math.cos(turn), centre[1] + way * math.sin(turn))
            world.add_object("ship", 0.6 * _length(world, "ship"), 3 * turn, spot)
    _houses(world, rng.uniform(0, math.pi), int(rng.integers(0, 8)))
    _trees(world, int(rng.integers(10, 200)))
    _traffic(world, streets)


def _street(world: World, angle: float, margin: float, wide: float | None = None) -> tuple[float, float, float, float]:
    """A straight road across the scene; returns (x, y) of a point on it, its angle and its width."""
    rng, size = world.rng, world.size
    width = rng.uniform(9, 18) * world.zoom if wide is None else wide
    x, y = rng.uniform(min(margin, size / 3), size - min(margin, size / 3), size=2)
    strips = [Part(rectangle(-2 * size, -width / 2, 2 * size, width / 2), pick(rng, ASPHALT))]
    dash = rng.uniform(4, 9) * world.zoom
    starts = np.arange(-1.5 * size, 1.5 * size, 2.5 * dash)
    strips += [Part(rectangle(start, -0.25, start + dash, 0.25), (215, 212, 190)) for start in starts]
    for strip in place(strips, angle, (float(x), float(y))):
        world.lay(strip.outline, strip.colour)
    return float(x), float(y), angle, float(width)


def _traffic(world: World, streets: list[tuple[float, float, float, float]]) -> None:
    """Cars in both lanes of the streets, and a few beside them, until enough are there."""
    rng = world.rng
    for _ in range(5 * world.wanted):
        angle, centre = float(rng.uniform(0, 2 * math.pi)), world.anywhere()
        if streets and rng.random() < 0.85:
            x, y, along, width = streets[int(rng.integers(len(streets)))]
            way, lane = rng.uniform(-1, 1) * world.size, (rng.integers(2) - 0.5) * width * 0.5
            centre = (
                x + way * math.cos(along) - lane * math.sin(along),
                y + way * math.sin(along) + lane * math.cos(along),
            )
            angle = along + (math.pi if lane > 0 else 0.0) + rng.normal(0, 0.04)
        world.add_object("vehicle", _length(world, "vehicle"), angle, centre)


def _car_park(world: World, angle: float) -> None:
    """A paved lot with rows of cars side by side."""
    rng, centre, length = world.rng, world.anywhere(), _length(world, "vehicle")
    wide, deep = rng.uniform(8, 16) * length, rng.uniform(4, 9) * length
    lot = place([Part(rectangle(-wide / 2, -deep / 2, wide / 2, deep / 2), pick(rng, ASPHALT))], angle, centre)[0]
    world.lay(lot.outline, lot.colour)
    for row in np.arange(-deep / 2 + length, deep / 2 - length / 2, 1.9 * length):
        shift = (centre[0] - row * math.sin(angle), centre[1] + row * math.cos(angle))
        _rows(world, "vehicle", length, angle + math.pi / 2, shift, (1, 1), (1.0, 0.68), most=int(wide / length / 0.7))


def _courts(world: World, angle: float) -> None:
    """One to six courts side by side."""
    _rows(world, "court", _length(world, "court"), angle, world.anywhere(), (1, 3), (1.15, 0.75))


def _pier(world: World, angle: float, offset: float) -> None:
    """A jetty into the water with boats on both sides."""
    rng, size = world.rng, world.size
    reach, length = rng.uniform(0.1, 0.4) * size, 0.6 * _length(world, "ship")
    strip = place(
        [Part(rectangle(0.25 * size - reach, offset - 1.5, 0.26 * size, offset + 1.5), pick(rng, CONCRETE))],
        angle,
        _middle(world),
    )[0]
    world.lay(strip.outline, strip.colour)
    for way in np.arange(0.25 * size - reach, 0.24 * size, 0.45 * length):
        for side in (-1, 1):
            if rng.random() < 0.7:
                across = offset + side * (0.55 * length + 2)
                spot = place([Part(np.array([[way, across]]), (0, 0, 0))], angle, _middle(world))[0].outline[0]
                world.add_object(
                    "ship", length * rng.uniform(0.8, 1.0), angle + side * math.pi / 2, (float(spot[0]), float(spot[1]))
                )


def _rows(
    world: World, name: str, length: float, angle: float, centre: tuple[float, ...], rows: tuple[int, int],
    spacing: tuple[float, float], most: int = 8,
) -> None:  # fmt: skip
    """Objects of one size in a grid, some missing; `spacing` along and across their length, in lengths."""
    rng = world.rng
    across, along = int(rng.integers(1, most + 1)), int(rng.integers(rows[0], rows[1] + 1))
    fill = rng.uniform(0.6, 1.0)
    for i in range(along):
        for j in range(across):
            x, y = (i - (along - 1) / 2) * spacing[0] * length, (j - (across - 1) / 2) * spacing[1] * length
            spot = (
                centre[0] + x * math.cos(angle) - y * math.sin(angle),
                centre[1] + x * math.sin(angle) + y * math.cos(angle),
            )
            if rng.random() < fill:
                world.add_object(name, length * rng.uniform(0.95, 1.05), angle + rng.normal(0, 0.03), spot)


def _houses(world: World, angle: float, count: int) -> None:
    """Buildings along the grid of the scene."""
    for _ in range(count):
        turn = angle + world.rng.integers(2) * math.pi / 2
        length, height = world.rng.uniform(14, 60) * world.zoom, world.rng.uniform(2, 12) * world.zoom
        world.add_clutter(building, length, turn, world.anywhere(), height)


def _trees(world: World, count: int) -> None:
    """Trees, alone and in groups."""
    rng, centre = world.rng, world.anywhere()
    for _ in range(count):
        if rng.random() < 0.2:
            centre = world.anywhere()
        length = rng.uniform(5, 14) * world.zoom
        world.add_clutter(tree, length, 0.0, _near(world, centre, 0.08 * world.size), 0.4 * length)


def _length(world: World, name: str) -> float:
    """A random length for an object of this class at the scene's zoom, in pixels."""
    return LENGTHS[name] * world.zoom * math.exp(world.rng.normal(0, 0.2))


def _near(world: World, centre: tuple[float, ...], spread: float) -> tuple[float, float]:
    x, y = world.rng.normal(0, spread, size=2)
    return centre[0] + float(x), centre[1] + float(y)


def _middle(world: World) -> tuple[float, float]:
    return world.size / 2, world.size / 2
