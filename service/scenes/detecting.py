"""One input from file to results, in this process: scan what is not yet scanned, put together, write."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

from service.detections import DetectionOptions
from service.merging import Merged, TileBoxes, merge_tiles
from service.predictor import Predictor
from service.scenes.heat_raster import write_heat_raster
from service.scenes.outputs import Task
from service.scenes.overview import read_overview
from service.scenes.payload import TileHeat, unpack
from service.scenes.preview import SIDE, write_preview
from service.scenes.progress import Progress
from service.scenes.recipe import Scene, SceneRequest, prepare_scene
from service.scenes.results import select_objects, write_result
from service.scenes.scan import scan_scene
from service.scenes.scene_info import SceneInfo
from service.scenes.tile_table import OtherSceneError, TileTable
from service.scenes.whole_file import remove_with_companions
from service.schemas import ModelName

# A killed run holds its last tiles so long; a scene that has only these left waits for them.
_LEASE_SECONDS = 10.0


@dataclass(frozen=True)
class Done:
    """What is said of a finished input."""

    objects: int
    tiles: int
    skipped: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Detector:
    """Works on scenes with one model.

    Attributes:
        lanes: tiles at once.
        stop: ends the work; what was found so far is kept.
    """

    predictor: Predictor
    request: SceneRequest
    options: DetectionOptions
    lanes: int
    stop: Event

    def run(self, task: Task) -> Done | None:
        """Work on one input; None where `stop` came before its end.

        Raises:
            ServiceError: it cannot be read, worked on or written.
        """
        scene = prepare_scene(task.source, self.request, self.predictor)
        info = SceneInfo.of(scene, task.source.name, self.predictor.manifest.classes, ModelName.of(self.predictor))
        task.state.parent.mkdir(parents=True, exist_ok=True)
        table = TileTable(task.state)
        try:
            if not self._scan(task, scene, table):
                return None
            objects, counts = self._write(task, scene, info, table), table.counts()
        finally:
            table.close()
        remove_with_companions(task.state)
        return Done(objects, counts.tiles, counts.skipped, scene.notes)

    def _scan(self, task: Task, scene: Scene, table: TileTable) -> bool:
        try:
            table.create(scene.fingerprint, len(scene.plan))
        except OtherSceneError as error:
            raise OtherSceneError(f"{task.state} was {error}; delete it to begin anew") from error
        with Progress(task.source.name, table.counts(), scene.width * scene.height / 1e6, sys.stderr) as progress:
            run, report = self.predictor.run, progress.report
            return scan_scene(scene, table, run, self.lanes, self.stop, report, _LEASE_SECONDS)

    def _write(self, task: Task, scene: Scene, info: SceneInfo, table: TileTable) -> int:
        """Write all that was asked for, the result last; returns the number of objects."""
        if task.heat is not None:
            heat = ((number, found) for number, (_, found) in _tiles(table))
            write_heat_raster(task.heat, info, scene.plan, self.predictor.manifest.strides[0], heat)
        if task.preview is not None:
            overview = read_overview(scene.path, scene.request.raster, scene.pad_value, SIDE)
            objects = (select_objects(found, info, self.options) for found in _objects(scene, table))
            write_preview(task.preview, overview, info, objects)
        return write_result(task.kind, task.result, info, _objects(scene, table), self.options)


def _tiles(table: TileTable) -> Iterator[tuple[int, tuple[TileBoxes, TileHeat | None]]]:
    return ((number, unpack(payload)) for number, payload in table.payloads())


def _objects(scene: Scene, table: TileTable) -> Iterator[Merged]:
    return merge_tiles(scene.plan, ((number, boxes) for number, (boxes, _) in _tiles(table)))
