"""Scenes as handlers use them: nothing here blocks the event loop, and the libraries for rasters, which take
seconds of a core to load, are loaded for the first scene: most services never get one."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from fastapi import Request
from numpy.typing import NDArray

from service.analysis import ModelResult
from service.detections import DetectionOptions
from service.errors import SceneQueueFullError, SceneStateError, UnknownSceneError
from service.metrics import Metrics
from service.pipeline import Pipeline
from service.predictor import Predictor
from service.scene_schemas import SceneQuery
from service.scene_uploads import receive_scene
from service.scenes.jobs import Job, Quota
from service.scenes.kinds import ResultKind
from service.scenes.store import SceneStore
from service.scheduler import Priority
from service.settings import Settings, scenes_folder

if TYPE_CHECKING:
    from service.scenes.recipe import SceneRequest
    from service.scenes.worker import SceneWorker

_RECEIVING = 4  # uploads at once in a process: more would only share its disk and its network
_STOP_SECONDS = 20.0
_FOLLOW_SECONDS = 0.5
_LOOK_SECONDS = 2.0  # until a first scene is seen that came by another process


class Scenes:
    """Receives scenes, works on them in a thread, and hands out what was found."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._metrics = metrics
        quota = Quota(settings.scene_queue, settings.scene_disk_bytes)
        self._store = SceneStore(scenes_folder(settings), quota, settings.scene_hours * 3600)
        self._worker: SceneWorker | None = None
        self._starting: asyncio.Task[None] | None = None
        self._came = asyncio.Event()
        self._receiving = 0
        self._previewing = asyncio.Semaphore(1)
        self._stopping = False

    def start(self, pipeline: Pipeline) -> None:
        """Work on what waits and what comes, with the model that is loaded now."""
        self._starting = asyncio.create_task(self._start_worker(pipeline))

    async def _start_worker(self, pipeline: Pipeline) -> None:
        while not await asyncio.to_thread(lambda: self._store.exists):
            with suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), _LOOK_SECONDS)
        loop = asyncio.get_running_loop()

        def detect(pixels: NDArray[np.uint8]) -> ModelResult:
            work = pipeline.scheduler.run(lambda: pixels, Priority.SCENE)
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        def make() -> "SceneWorker":
            from service.scenes.worker import Bench, SceneWorker

            bench = Bench(pipeline.predictor, detect, pipeline.scheduler.most_scene_tiles + 1)
            return SceneWorker(self._store, bench, self._metrics)

        self._worker = await asyncio.to_thread(make)
        self._worker.start()

    def begin_stopping(self) -> None:
        """Tell the worker and all followers to end: the server waits for answers that are on their way."""
        self._stopping = True
        if self._starting is not None:
            self._starting.cancel()
        if self._worker is not None:
            self._worker.begin_stopping()

    async def stop(self) -> None:
        """Stop after the tiles that are with the model; the rest goes on with the next start."""
        self.begin_stopping()
        if self._worker is not None:
            await asyncio.to_thread(self._worker.stop, _STOP_SECONDS)
        await asyncio.to_thread(self._store.close)

    async def receive(self, request: Request, query: SceneQuery, predictor: Predictor) -> Job:
        """Take the scene of a request as a job; nothing is left of one that is not taken.

        Raises:
            SceneQueueFullError, StorageError: there is no room.
            ServiceError: see `receive_scene` and `SceneRequest.for_model`.
        """
        wanted = await asyncio.to_thread(_read_query, query, predictor)
        length = request.headers.get("content-length", "0")
        caller = request.scope.get("state", {}).get("caller", "")
        with self._place():
            upload = await asyncio.to_thread(self._store.begin_upload, int(length) if length.isdecimal() else 0)
            try:
                name = await receive_scene(request, upload / "scene")
                job = await asyncio.to_thread(self._store.take, upload, wanted.to_json(), name, caller)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(self._store.drop, upload))
                raise
        self._wake()
        return job

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._receiving >= _RECEIVING:
            raise SceneQueueFullError(f"{_RECEIVING} scenes are being received; try again soon")
        self._receiving += 1
        try:
            yield
        finally:
            self._receiving -= 1

    async def list(self, caller: str) -> "list[Job]":
        """All scenes of a caller, the newest first."""
        return await asyncio.to_thread(lambda: self._store.jobs.of_caller(caller) if self._store.exists else [])

    async def get(self, scene_id: str) -> Job:
        """One scene. Raises UnknownSceneError."""
        return await asyncio.to_thread(self._store.get, scene_id)

    async def follow(self, scene_id: str) -> AsyncIterator[Job]:
        """The scene now and after each change, until it has ended, is deleted, or the service stops."""
        last: Job | None = None
        with suppress(UnknownSceneError):
            while not (self._stopping or (last is not None and last.is_final)):
                job = await self.get(scene_id)
                if job != last:
                    yield job
                    last = job
                else:
                    await asyncio.sleep(_FOLLOW_SECONDS)

    async def cancel(self, scene_id: str) -> Job:
        """End the work on a scene. Raises UnknownSceneError, SceneStateError where it has ended."""
        return await asyncio.to_thread(self._store.cancel, scene_id)

    async def cancel_or_delete(self, scene_id: str) -> None:
        """End or remove a scene. Raises UnknownSceneError."""
        await asyncio.to_thread(self._store.cancel_or_delete, scene_id)

    async def retry(self, scene_id: str) -> Job:
        """Let a failed or cancelled scene go on. Raises UnknownSceneError, SceneStateError."""
        job = await asyncio.to_thread(self._store.retry, scene_id)
        self._wake()
        return job

    async def result(self, job: Job, predictor: Predictor, kind: ResultKind, options: DetectionOptions) -> Path:
        """The file with what was found. Raises SceneStateError before the scene is done."""
        _require_done(job)

        def make() -> Path:
            from service.scenes.job_results import make_result

            return make_result(job, self._store.folder_of(job), predictor, kind, options)

        return await asyncio.to_thread(make)

    async def heat(self, job: Job) -> Path:
        """The file with the heat. Raises SceneStateError before the scene is done, UnknownSceneError without heat."""
        _require_done(job)
        path = self._store.folder_of(job).heat
        if not await asyncio.to_thread(path.exists):
            raise UnknownSceneError("the scene was sent without heat=true; send it again with it")
        return path

    async def preview(self, job: Job, pad_value: int, side: int) -> bytes:
        """The whole scene as a JPEG. Raises SceneStateError before its file has been checked."""
        if not job.width:
            raise SceneStateError(f"the scene is {job.state}, and its file was not checked; nothing of it can be shown")

        def make() -> bytes:
            from service.scenes.overview import preview_jpeg

            return preview_jpeg(job, self._store.folder_of(job), pad_value, side)

        async def in_turn() -> bytes:
            async with self._previewing:  # each takes memory and a core
                return await asyncio.to_thread(make)

        return await asyncio.shield(in_turn())  # the turn lasts as long as the thread, also where nobody waits any more

    def _wake(self) -> None:
        self._came.set()
        if self._worker is not None:
            self._worker.wake()


def _require_done(job: Job) -> None:
    if job.state != "done":
        raise SceneStateError(f"the scene is {job.state}; its results can be had when it is done")


def _read_query(query: SceneQuery, predictor: Predictor) -> "SceneRequest":
    from service.scenes.request_text import read_request

    return read_request(query, predictor.manifest, query.heat)
