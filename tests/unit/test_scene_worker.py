"""The worker: jobs from queued to done, shared by several, ended by cancelling, stopping, failing."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from metrics_page import samples
from service.analysis import ModelResult
from service.detections import DetectionOptions
from service.errors import EngineError, StorageError
from service.manifest import ModelFolder, load_model_folder
from service.metrics import Metrics
from service.raster import RasterOptions
from service.scenes import worker as worker_module
from service.scenes.job_results import make_result
from service.scenes.jobs import Job, Quota
from service.scenes.recipe import SceneRequest
from service.scenes.scan import Detect
from service.scenes.store import SceneStore
from service.scenes.tile_table import TileTable
from service.scenes.worker import Bench, SceneWorker
from toy_scenes import toy_detect
from toy_service import wait_until

Make = Callable[..., SceneWorker]


@pytest.fixture(scope="session")
def model(toy_models: Path) -> ModelFolder:
    return load_model_folder(toy_models / "toy" / "1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SceneStore]:
    made = SceneStore(tmp_path / "scenes", Quota(10, 10**9), 3600)
    yield made
    made.close()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def make_worker(store: SceneStore, model: ModelFolder, metrics: Metrics) -> Make:
    return lambda detect=toy_detect, lanes=2: SceneWorker(store, Bench(model, detect, lanes, lease_seconds=5), metrics)


def send(store: SceneStore, width: int = 900, height: int = 500, heat: bool = False) -> Job:
    upload = store.begin_upload(0)
    pixels = np.random.default_rng(7).integers(1, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(upload / "scene", "PNG")
    return store.take(upload, SceneRequest(RasterOptions(), 32, heat=heat).to_json(), "scene.png", "")


def work_to_the_end(worker: SceneWorker) -> None:
    while worker.work_once():
        pass


def tiles_of(store: SceneStore, job: Job) -> list[tuple[int, bytes]]:
    with closing(TileTable(store.folder_of(job).tiles)) as table:
        return list(table.payloads())


def test_a_job_goes_from_queued_to_done_in_steps(store: SceneStore, make_worker: Make) -> None:
    job, worker = send(store), make_worker()
    states = [store.get(job.id).state]
    while worker.work_once():
        states.append(store.get(job.id).state)
    assert states == ["queued", "running", "merging", "done"]
    done = store.get(job.id)
    assert done.done == done.tiles == len(tiles_of(store, job))
    assert (done.width, done.height) == (900, 500)
    assert done.objects > 0


def test_the_result_is_there_when_the_job_is_done(store: SceneStore, make_worker: Make, model: ModelFolder) -> None:
    job = send(store)
    work_to_the_end(make_worker())
    before = {path.name for path in store.folder_of(job).path.iterdir()}
    path = make_result(
        store.get(job.id), store.folder_of(job), model, "geojson", DetectionOptions.from_manifest(model.manifest)
    )
    assert path.name in before


def test_results_of_many_thresholds_do_not_fill_the_disk(
    store: SceneStore, make_worker: Make, model: ModelFolder
) -> None:
    job = send(store)
    work_to_the_end(make_worker())
    for threshold in np.linspace(0.1, 0.9, 12):
        options = DetectionOptions.from_manifest(model.manifest, float(threshold))
        path = make_result(store.get(job.id), store.folder_of(job), model, "csv", options)
        assert path.exists()
    assert len(list(store.folder_of(job).path.glob("result-*"))) == 8


def test_scenes_and_their_tiles_are_counted(store: SceneStore, make_worker: Make, metrics: Metrics) -> None:
    job = send(store)
    work_to_the_end(make_worker())
    page = samples(metrics.render("")[0])
    assert page["heatquery_scene_tiles_total{outcome=detected}"] == store.get(job.id).tiles
    assert page["heatquery_scenes_ended_total{state=done}"] == 1
    assert page["heatquery_scenes_open"] == 0


def test_jobs_are_done_oldest_first(store: SceneStore, make_worker: Make) -> None:
    jobs, worker = [send(store, 200, 200) for _ in range(2)], make_worker()
    while store.get(jobs[0].id).state != "done":
        worker.work_once()
    assert store.get(jobs[1].id).state == "queued"


def test_a_cancelled_job_is_left_and_can_go_on(store: SceneStore, make_worker: Make) -> None:
    job = send(store)
    calls: list[int] = []

    def detect(pixels: NDArray[np.uint8]) -> ModelResult:
        calls.append(1)
        if len(calls) == 3:
            store.cancel_or_delete(job.id)
            time.sleep(worker_module._NOTE_SECONDS)
        return toy_detect(pixels)

    work_to_the_end(make_worker(detect, lanes=1))
    assert store.get(job.id).state == "cancelled"
    kept = tiles_of(store, job)
    assert 0 < len(kept) < store.get(job.id).tiles
    store.retry(job.id)
    work_to_the_end(make_worker())
    assert store.get(job.id).state == "done"
    assert tiles_of(store, job)[: len(kept)] == kept


def test_a_stopped_worker_leaves_its_job_to_the_next(store: SceneStore, make_worker: Make) -> None:
    job, begun = send(store), threading.Event()

    def detect(pixels: NDArray[np.uint8]) -> ModelResult:
        begun.set()
        time.sleep(0.05)
        return toy_detect(pixels)

    worker = make_worker(detect)
    worker.start()
    assert begun.wait(20)
    worker.stop(20)
    assert store.get(job.id).state == "running"
    assert len(tiles_of(store, job)) < store.get(job.id).tiles
    work_to_the_end(make_worker())
    assert store.get(job.id).state == "done"


def test_two_workers_share_a_job_and_the_result_is_that_of_one(store: SceneStore, make_worker: Make) -> None:
    shared = send(store, 1600, 900)
    seen: list[set[int]] = [set(), set()]

    def detect_as(index: int) -> Detect:
        def detect(pixels: NDArray[np.uint8]) -> ModelResult:
            seen[index].add(hash(pixels.tobytes()))
            time.sleep(0.01)
            return toy_detect(pixels)

        return detect

    workers = [make_worker(detect_as(index), lanes=1) for index in range(2)]
    workers[0].work_once()  # reads it: one alone does that
    for worker in workers:
        worker.start()
    wait_until(lambda: store.get(shared.id).state == "done", 60)
    for worker in workers:
        worker.stop(20)
    assert all(seen)
    assert not seen[0] & seen[1]
    alone = send(store, 1600, 900)
    work_to_the_end(make_worker(lanes=1))
    assert tiles_of(store, shared) == tiles_of(store, alone)
    assert store.get(shared.id).objects == store.get(alone.id).objects


def test_a_full_disk_fails_the_job_with_a_reason_and_a_retry_goes_on(
    store: SceneStore, make_worker: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = send(store)
    with monkeypatch.context() as patch:
        finish = TileTable.finish

        def fill(self: TileTable, number: int, payload: bytes, skipped: bool = False, objects: int = 0) -> bool:
            if number >= 5:
                raise StorageError("the scenes folder cannot be written: database or disk is full")
            return finish(self, number, payload, skipped, objects)

        patch.setattr(TileTable, "finish", fill)
        work_to_the_end(make_worker(lanes=1))
    failed = store.get(job.id)
    assert (failed.state, failed.error) == ("failed", "the scenes folder cannot be written: database or disk is full")
    assert len(tiles_of(store, job)) == 5
    store.retry(job.id)
    work_to_the_end(make_worker())
    assert store.get(job.id).state == "done"


def test_a_tile_that_the_model_fails_on_ends_the_job_with_its_reason(store: SceneStore, make_worker: Make) -> None:
    job = send(store)

    def detect(_: NDArray[np.uint8]) -> ModelResult:
        raise EngineError("the model failed on this picture")

    work_to_the_end(make_worker(detect))
    assert (store.get(job.id).state, store.get(job.id).error) == ("failed", "the model failed on this picture")


def test_a_fault_of_ours_is_in_the_log_and_not_in_the_job(
    store: SceneStore, make_worker: Make, caplog: pytest.LogCaptureFixture
) -> None:
    job = send(store)

    def detect(_: NDArray[np.uint8]) -> ModelResult:
        raise ZeroDivisionError("secret path")

    with caplog.at_level(logging.ERROR):
        work_to_the_end(make_worker(detect))
    assert "secret" not in store.get(job.id).error
    assert job.id in caplog.text


def test_a_job_whose_files_are_gone_fails(store: SceneStore, make_worker: Make) -> None:
    job = send(store)
    store.drop(store.folder_of(job).path)
    work_to_the_end(make_worker())
    assert store.get(job.id).state == "failed"


def test_a_file_that_is_no_picture_fails_and_the_next_job_runs(store: SceneStore, make_worker: Make) -> None:
    broken, sound = send(store), send(store, 200, 200)
    store.folder_of(broken).scene.write_bytes(b"nothing of the kind")
    work_to_the_end(make_worker())
    assert [store.get(job.id).state for job in (broken, sound)] == ["failed", "done"]
    assert "/" not in store.get(broken.id).error


def test_a_retry_with_another_file_or_model_begins_anew(store: SceneStore, make_worker: Make) -> None:
    job = send(store)
    worker = make_worker()
    worker.work_once()
    store.cancel_or_delete(job.id)
    os.utime(store.folder_of(job).scene, (1, 1))  # what the fingerprint is made of
    store.retry(job.id)
    work_to_the_end(make_worker())
    assert store.get(job.id).state == "done"


def test_an_unusable_folder_is_complained_of_once(
    tmp_path: Path, model: ModelFolder, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "_LOOK_SECONDS", 0.01)
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "jobs.sqlite").mkdir()
    worker = SceneWorker(SceneStore(tmp_path / "scenes", Quota(1, 1), 1), Bench(model, toy_detect, 1), Metrics())
    with caplog.at_level(logging.ERROR):
        worker.start()
        time.sleep(0.3)
        worker.stop(20)
    assert [record.message for record in caplog.records if "scenes cannot be worked on" in record.message] == [
        "scenes cannot be worked on: the scenes folder cannot be written: unable to open database file"
    ]
