"""Scenes of a few hundred pixels, and a model for them that is one line of numpy."""

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.analysis import HeatMaps, ModelResult, keep_heat
from service.raster import RasterOptions
from service.scenes.recipe import Scene, SceneRequest
from service.scenes.tile_table import TileTable
from service.tiling import plan_scene

SIZE, STRIDE = 64, 32


def make_scene(folder: Path, width: int = 300, height: int = 200, heat: bool = False) -> Scene:
    """Noise, always the same for a size."""
    path = folder / f"scene-{width}-{height}.png"
    pixels = np.random.default_rng(width).integers(1, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    request = SceneRequest(RasterOptions(), overlap=STRIDE, heat=heat)
    plan = plan_scene(width, height, SIZE, STRIDE, request.overlap)
    return Scene(path, request, plan, width, height, 1.0, None, (), 114, np.full(2, 0.3, np.float32), None, "f" * 64)


def toy_detect(pixels: NDArray[np.uint8]) -> ModelResult:
    """One object in every tile, whose place and score follow from all of its pixels."""
    digest = hashlib.sha256(pixels.tobytes()).digest()
    left, top = digest[0] % 32, digest[1] % 32
    cells = np.full((8, 8), digest[2] / 255, np.float32)
    heat = keep_heat(np.broadcast_to(cells, (4, 8, 8)))
    return ModelResult(
        estimated_count=1.0,
        query_count=1,
        boxes=np.array([[left, top, left + 8, top + 8]], np.float32),
        scores=np.array([[0.4 + digest[3] / 512, 0.0]], np.float32),
        maps=HeatMaps(cells, (), (heat,)),
        seconds={},
    )


def open_tiles(scene: Scene, folder: Path) -> TileTable:
    """The table of a scene, made or gone on with."""
    table = TileTable(folder / "tiles.sqlite")
    table.create(scene.fingerprint, len(scene.plan))
    return table
