"""The thread that works on scene jobs, one after the other, the oldest first.

Every process of a service has one. They share what runs: tiles are lent by the tile table; preparing and completing a
job is for one of them, by a lock on its folder that a dying process lets go.
"""

import logging
import threading
from contextlib import closing
from dataclasses import dataclass
from time import monotonic

from service.errors import ServiceError, StorageError
from service.metrics import Metrics
from service.scenes.job_results import complete_results
from service.scenes.jobs import UNFINISHED, Job
from service.scenes.recipe import Scene, SceneModel, SceneRequest, prepare_scene
from service.scenes.scan import LEASE_SECONDS, Detect, Finished, scan_scene
from service.scenes.store import JobFolder, SceneStore
from service.scenes.tile_table import OtherSceneError, TileTable

_LOOK_SECONDS = 2.0  # between two looks for jobs that came by another process
_SWEEP_SECONDS = 60.0
_NOTE_SECONDS = 0.5  # between two notes of the progress, which are also looks for a cancellation
_FAULT = "an error of ours; the log has it under this job's id"
logger = logging.getLogger("heatquery")


@dataclass(frozen=True)
class Bench:
    """What a job is worked on with.

    Attributes:
        lanes: tiles that are with the model at once.
        lease_seconds: how long a tile of a killed process waits for another one.
    """

    model: SceneModel
    detect: Detect
    lanes: int
    lease_seconds: float = LEASE_SECONDS


class SceneWorker:
    """Works until it is stopped; what it was at goes on with the next start, or in another process."""

    def __init__(self, store: SceneStore, bench: Bench, metrics: Metrics) -> None:
        self._store, self._bench, self._metrics = store, bench, metrics
        self._stop, self._wake = threading.Event(), threading.Event()
        self._leave_job = threading.Event()
        self._thread = threading.Thread(target=self._work, name="heatquery-scenes", daemon=True)
        self._swept = -_SWEEP_SECONDS

    def start(self) -> None:
        """Begin to look for jobs."""
        self._thread.start()

    def wake(self) -> None:
        """Look for jobs now."""
        self._wake.set()

    def begin_stopping(self) -> None:
        """End after the tiles that are with the model now."""
        for event in (self._stop, self._leave_job, self._wake):
            event.set()

    def stop(self, seconds: float) -> None:
        """The same, and wait so long for it."""
        self.begin_stopping()
        self._thread.join(seconds)

    def _work(self) -> None:
        said = ""
        while not self._stop.is_set():
            busy = False
            try:
                busy = self._store.exists and self.work_once()
                said = ""
            except Exception as error:  # the thread must outlive whatever befalls one look at the folder
                if said != str(error):  # once, and not at each look
                    said = str(error)
                    logger.error("scenes cannot be worked on: %s", said, exc_info=not isinstance(error, ServiceError))
            if not busy:
                self._wake.wait(_LOOK_SECONDS)
                self._wake.clear()

    def work_once(self) -> bool:
        """Take one job a step further; whether there was anything to do."""
        if monotonic() - self._swept >= _SWEEP_SECONDS:
            self._store.sweep()
            self._swept = monotonic()
        jobs = self._store.jobs.unfinished()
        self._metrics.scenes_open.set(len(jobs))
        if jobs:
            self._store.keep_reserve()
        return any(self._advance(job) for job in jobs)

    def _advance(self, job: Job) -> bool:
        """One step of a job; false where another process is at it."""
        try:
            if job.state == "running":
                self._run(job)
                return True
            with self._store.folder_of(job).locked() as mine:
                if mine:
                    self._merge(job) if job.state == "merging" else self._read(job)
                return mine
        except ServiceError as error:
            self._fail(job, str(error))
        except FileNotFoundError:  # deleted meanwhile
            self._fail(job, "its files are gone")
        except Exception:  # a fault of ours ends this job, not the thread
            logger.exception("scene %s failed", job.id)
            self._fail(job, _FAULT)
        return True

    def _fail(self, job: Job, reason: str) -> None:
        """Note it; a full disk may have no room even for that."""
        if self._stop.is_set():
            return
        try:
            noted = self._store.jobs.move(job.id, UNFINISHED, "failed", error=reason)
        except StorageError:
            self._store.use_reserve()
            noted = self._store.jobs.move(job.id, UNFINISHED, "failed", error=reason)
        if noted:
            self._metrics.scene_ended("failed")

    def _read(self, job: Job) -> None:
        """Check the file, plan the tiles, and begin a table of them or go on with the one there is."""
        jobs, folder = self._store.jobs, self._store.folder_of(job)
        if not jobs.move(job.id, ("queued", "reading"), "reading"):
            return
        scene = self._prepare(job, folder)
        try:
            _begin_table(scene, folder)
        except OtherSceneError:  # of another model, with which the job was begun before it failed
            folder.drop_results()
            _begin_table(scene, folder)
        jobs.move(
            job.id,
            ("reading",),
            "running",
            width=scene.width,
            height=scene.height,
            tiles=len(scene.plan),
            notes="\n".join(scene.notes),
        )

    def _run(self, job: Job) -> None:
        """Work on tiles until there are none, the job is cancelled, or this worker is stopped."""
        folder = self._store.folder_of(job)
        scene = self._prepare(job, folder)
        with closing(TileTable(folder.tiles)) as table, folder.at_work(table.release):
            table.create(scene.fingerprint, len(scene.plan))
            self._leave_job.clear()
            if self._stop.is_set():
                return
            note = _Note(self._store, job, table, self._leave_job, self._metrics)
            bench = self._bench
            if scan_scene(scene, table, bench.detect, bench.lanes, self._leave_job, note.report, bench.lease_seconds):
                note.write()
                self._store.jobs.move(job.id, ("running",), "merging")

    def _merge(self, job: Job) -> None:
        """Put the tiles together once, so that what is said to be done can be had."""
        folder = self._store.folder_of(job)
        scene = self._prepare(job, folder)
        objects = complete_results(scene, job, folder, self._bench.model)
        if self._store.jobs.move(job.id, ("merging",), "done", objects=objects):
            self._metrics.scene_ended("done")

    def _prepare(self, job: Job, folder: JobFolder) -> Scene:
        return prepare_scene(folder.scene, SceneRequest.from_json(job.request), self._bench.model)


def _begin_table(scene: Scene, folder: JobFolder) -> None:
    with closing(TileTable(folder.tiles)) as table:
        table.create(scene.fingerprint, len(scene.plan))


class _Note:
    """Writes down how far a job is, now and then, and ends the work on one that no longer runs."""

    def __init__(self, store: SceneStore, job: Job, table: TileTable, ends: threading.Event, metrics: Metrics) -> None:
        self._store, self._job, self._table, self._ends, self._metrics = store, job, table, ends, metrics
        self._begun, self._written = monotonic(), 0.0
        self._done_before = table.counts().done

    def report(self, tile: Finished) -> None:
        """Called after each tile."""
        self._metrics.scene_tile("skipped" if tile.skipped else "detected")
        if monotonic() - self._written >= _NOTE_SECONDS and not self.write():
            self._ends.set()

    def write(self) -> bool:
        """Write the progress; false where the job was cancelled, or another process failed at it."""
        counts, self._written = self._table.counts(), monotonic()
        rate = (counts.done - self._done_before) / max(self._written - self._begun, 1e-3)
        return self._store.jobs.progress(
            self._job.id,
            done=counts.done,
            skipped=counts.skipped,
            objects=counts.objects,
            tiles_per_second=rate,
        )
