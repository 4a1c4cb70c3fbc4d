"""What can be had of a job that is done: files made of its tile table, kept in its folder once they are made."""

import hashlib
import os
from contextlib import closing, suppress
from pathlib import Path

from service.detections import DetectionOptions
from service.scenes.found import heat_of, objects_of
from service.scenes.heat_raster import write_heat_raster
from service.scenes.jobs import Job
from service.scenes.kinds import SUFFIXES, ResultKind
from service.scenes.recipe import Scene, SceneModel, SceneRequest, prepare_scene
from service.scenes.results import write_result
from service.scenes.scene_info import SceneInfo
from service.scenes.store import JobFolder
from service.scenes.tile_table import TileTable

_MOST_KEPT = 8  # results of one job: each threshold asked for makes another


def complete_results(scene: Scene, job: Job, folder: JobFolder, model: SceneModel) -> int:
    """Make what is most asked for: GeoJSON at the model's thresholds, and the heat; returns the number of objects.

    Raises:
        ServiceError: see `write_result` and `write_heat_raster`.
    """
    info = SceneInfo.of(scene, job.name, model)
    options = DetectionOptions.from_manifest(model.manifest)
    with closing(TileTable(folder.tiles)) as table:
        if scene.request.heat:
            write_heat_raster(folder.heat, info, scene.plan, model.manifest.strides[0], heat_of(table))
        path = _path(folder, "geojson", options)
        return write_result("geojson", path, info, objects_of(scene, table), options)


def make_result(job: Job, folder: JobFolder, model: SceneModel, kind: ResultKind, options: DetectionOptions) -> Path:
    """The file with these objects of a job that is done, made now if nobody asked for it before.

    Raises:
        OtherSceneError: another model is loaded than the one that saw the scene.
        ServiceError: see `write_result`.
    """
    path = _path(folder, kind, options)
    with folder.locked(wait=True):
        if not path.exists():
            scene = prepare_scene(folder.scene, SceneRequest.from_json(job.request), model)
            info = SceneInfo.of(scene, job.name, model)
            with closing(TileTable(folder.tiles)) as table:
                table.create(scene.fingerprint, len(scene.plan))
                write_result(kind, path, info, objects_of(scene, table), options)
        with suppress(OSError):  # its time says only that it was asked for of late
            os.utime(path)
        _drop_old(folder, path)
    return path


def _path(folder: JobFolder, kind: ResultKind, options: DetectionOptions) -> Path:
    classes = None if options.classes is None else sorted(options.classes)
    wanted = f"{options.thresholds.tolist()} {classes}"
    return folder.path / f"result-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}{SUFFIXES[kind]}"


def _drop_old(folder: JobFolder, keep: Path) -> None:
    """Remove the results that were not asked for for the longest time."""
    others = [path for path in folder.path.glob("result-*") if path != keep]
    for path in sorted(others, key=lambda path: path.stat().st_mtime)[: -(_MOST_KEPT - 1)]:
        path.unlink(missing_ok=True)
