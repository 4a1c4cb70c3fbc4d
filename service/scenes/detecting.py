"""One input from file to results, in this process: scan what is not yet scanned, put together, write."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Protocol

from service.detections import DetectionOptions
from service.scenes.found import heat_of, objects_of
from service.scenes.heat_raster import write_heat_raster
from service.scenes.outputs import Task
from service.scenes.overview import read_overview
from service.scenes.preview import SIDE, write_preview
from service.scenes.progress import Progress
from service.scenes.recipe import Scene, SceneModel, SceneRequest, prepare_scene
from service.scenes.results import select_objects, write_result
from service.scenes.scan import Finished
from service.scenes.scene_info import SceneInfo
from service.scenes.tile_table import OtherSceneError, TileTable
from service.scenes.whole_file import remove_with_companions


class Scan(Protocol):
    """Works until every tile of a scene is in its table, or `stop` is set; whether the scene is complete."""

    def __call__(self, scene: Scene, table: TileTable, *, stop: Event, report: Callable[[Finished], None]) -> bool: ...


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
        scan: fills the table of a scene.
        stop: ends the work; what was found so far is kept.
    """

    model: SceneModel
    scan: Scan
    request: SceneRequest
    options: DetectionOptions
    stop: Event

    def run(self, task: Task) -> Done | None:
        """Work on one input; None where `stop` came before its end.

        Raises:
            ServiceError: it cannot be read, worked on or written.
        """
        scene = prepare_scene(task.source, self.request, self.model)
        info = SceneInfo.of(scene, task.source.name, self.model)
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
            return self.scan(scene, table, stop=self.stop, report=progress.report)

    def _write(self, task: Task, scene: Scene, info: SceneInfo, table: TileTable) -> int:
        """Write all that was asked for, the result last; returns the number of objects."""
        if task.heat is not None:
            write_heat_raster(task.heat, info, scene.plan, self.model.manifest.strides[0], heat_of(table))
        if task.preview is not None:
            overview = read_overview(scene.path, scene.request.raster, scene.pad_value, SIDE)
            objects = (select_objects(found, info, self.options) for found in objects_of(scene, table))
            write_preview(task.preview, overview, info, objects)
        return write_result(task.kind, task.result, info, objects_of(scene, table), self.options)
