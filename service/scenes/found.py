"""What was found in a scene, as its tile table keeps it."""

from collections.abc import Iterator

from service.merging import Merged, TileBoxes, merge_tiles
from service.scenes.payload import TileHeat, unpack
from service.scenes.recipe import Scene
from service.scenes.tile_table import TileTable


def objects_of(scene: Scene, table: TileTable) -> Iterator[Merged]:
    """The objects of all tiles, each once."""
    return merge_tiles(scene.plan, ((number, boxes) for number, boxes, _ in _tiles(table)))


def heat_of(table: TileTable) -> Iterator[tuple[int, TileHeat | None]]:
    """Tiles with their heat."""
    return ((number, heat) for number, _, heat in _tiles(table))


def _tiles(table: TileTable) -> Iterator[tuple[int, TileBoxes, TileHeat | None]]:
    return ((number, *unpack(payload)) for number, payload in table.payloads())
