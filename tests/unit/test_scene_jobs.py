"""Jobs of scenes: what is taken, what is refused, what happens to them, and what is left in the folder."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import SceneQueueFullError, SceneStateError, StorageError, UnknownSceneError
from service.scenes.jobs import Job, Quota
from service.scenes.store import SceneStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SceneStore]:
    made = SceneStore(tmp_path / "scenes", Quota(waiting=3, bytes=1000), keep_seconds=60)
    yield made
    made.close()


def send(store: SceneStore, data: bytes = b"picture", caller: str = "") -> Job:
    upload = store.begin_upload(len(data))
    (upload / "scene").write_bytes(data)
    return store.take(upload, "{}", "a.tif", caller)


def test_nothing_is_made_before_the_first_scene(store: SceneStore) -> None:
    with pytest.raises(UnknownSceneError):
        store.get("0" * 32)
    assert not store.exists


def test_the_folder_is_for_its_owner_alone(store: SceneStore) -> None:
    job = send(store)
    assert store._folder.stat().st_mode & 0o777 == 0o700
    assert store.folder_of(job).path.stat().st_mode & 0o777 == 0o700


def test_a_link_in_a_folder_of_everyone_is_not_followed(tmp_path: Path) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    shared.mkdir()
    shared.chmod(0o1777)
    elsewhere.mkdir()
    (shared / "scenes").symlink_to(elsewhere)
    with pytest.raises(StorageError, match="a link or another user's"):
        SceneStore(shared / "scenes", Quota(1, 1000), 60).begin_upload(1)
    assert not list(elsewhere.iterdir())


def test_ids_are_long_and_random(store: SceneStore) -> None:
    first, second = send(store).id, send(store).id
    assert first != second
    assert len(first) == 32


def test_what_is_sent_is_what_is_kept(store: SceneStore) -> None:
    job = send(store, b"some bytes")
    assert store.folder_of(job).scene.read_bytes() == b"some bytes"
    assert store.get(job.id) == job
    assert (job.state, job.bytes) == ("queued", 10)


def test_a_job_more_than_may_wait_is_refused(store: SceneStore) -> None:
    for _ in range(3):
        send(store)
    with pytest.raises(SceneQueueFullError, match=r"3 scenes .* \(HEATQUERY_SCENE_QUEUE\)"):
        store.begin_upload(1)


def test_finished_jobs_take_no_place_in_the_queue(store: SceneStore) -> None:
    jobs = [send(store) for _ in range(3)]
    store.cancel_or_delete(jobs[0].id)
    assert send(store).state == "queued"


def test_bytes_beyond_the_quota_are_refused_when_they_have_come(store: SceneStore) -> None:
    send(store, bytes(600))
    upload = store.begin_upload(0)  # of unknown length
    (upload / "scene").write_bytes(bytes(600))
    with pytest.raises(StorageError, match="DELETE finished scenes"):
        store.take(upload, "{}", "a.tif", "")
    store.drop(upload)
    assert len(store.jobs.unfinished()) == 1
    assert not upload.exists()


def test_a_scene_larger_than_the_disk_is_refused_before_it_comes(tmp_path: Path) -> None:
    store = SceneStore(tmp_path / "scenes", Quota(1, 10**18), 60)
    with pytest.raises(StorageError, match="the disk has"):
        store.begin_upload(10**17)
    assert not list((tmp_path / "scenes").glob("*.part"))
    store.close()


def test_a_state_changes_only_from_where_it_may(store: SceneStore) -> None:
    job = send(store)
    assert not store.jobs.move(job.id, ("running",), "merging")
    assert store.jobs.move(job.id, ("queued",), "reading")
    assert store.get(job.id).state == "reading"


def test_progress_is_noted_only_while_a_job_runs(store: SceneStore) -> None:
    job = send(store)
    assert not store.jobs.progress(job.id, done=1)
    store.jobs.move(job.id, ("queued",), "running", tiles=4)
    assert store.jobs.progress(job.id, done=1, tiles_per_second=2.0)
    assert (store.get(job.id).tiles, store.get(job.id).done) == (4, 1)


def test_only_failed_or_cancelled_jobs_are_retried(store: SceneStore) -> None:
    job = send(store)
    with pytest.raises(SceneStateError, match="the scene is queued; only failed or cancelled ones can be"):
        store.retry(job.id)
    store.jobs.move(job.id, ("queued",), "failed", error="why")
    again = store.retry(job.id)
    assert (again.state, again.error) == ("queued", "")


def test_delete_cancels_first_and_removes_then(store: SceneStore) -> None:
    job = send(store)
    store.cancel_or_delete(job.id)
    assert store.get(job.id).state == "cancelled"
    store.cancel_or_delete(job.id)
    with pytest.raises(UnknownSceneError):
        store.get(job.id)
    assert not store.folder_of(job).path.exists()


@pytest.mark.parametrize("name", ["../jobs", "..", "", "jobs.sqlite", "G" * 32, "0" * 33])
def test_an_id_that_is_none_reaches_no_file(store: SceneStore, name: str) -> None:
    send(store)
    with pytest.raises(UnknownSceneError):
        store.cancel_or_delete(name)


def test_jobs_of_other_callers_are_not_listed(store: SceneStore) -> None:
    mine = send(store, caller="me")
    send(store, caller="you")
    assert store.jobs.of_caller("me") == [mine]


def test_finished_jobs_expire_and_others_do_not(store: SceneStore) -> None:
    old, fresh, waiting = (send(store) for _ in range(3))
    for job in (old, fresh):
        store.jobs.move(job.id, ("queued",), "done")
    store.jobs._connection.execute("UPDATE job SET updated = updated - 100 WHERE id <> ?", (fresh.id,))
    store.sweep()
    assert {job.id for job in store.jobs.of_caller("")} == {fresh.id, waiting.id}
    assert not store.folder_of(old).path.exists()


def test_what_a_killed_process_left_is_swept_and_nothing_else(store: SceneStore) -> None:
    job = send(store)
    stale, young = store.begin_upload(1), store.begin_upload(1)
    foreign = store._folder / "photos"
    foreign.mkdir()
    hours_ago = time.time() - 7200
    for path in (stale, foreign, store.folder_of(job).path, store.folder_of(job).scene):
        os.utime(path, (hours_ago, hours_ago))
    store.sweep()
    assert [path.exists() for path in (stale, young, foreign, store.folder_of(job).scene)] == [False, True, True, True]


def test_two_stores_on_one_folder_see_the_same_jobs(store: SceneStore, tmp_path: Path) -> None:
    job = send(store)
    other = SceneStore(tmp_path / "scenes", Quota(3, 1000), 60)
    assert other.get(job.id) == job
    other.close()


def test_only_one_may_prepare_a_job(store: SceneStore) -> None:
    folder = store.folder_of(send(store))
    with folder.locked() as first, folder.locked() as second:
        assert (first, second) == (True, False)
    with folder.locked() as again:
        assert again


def test_a_worker_that_comes_first_takes_back_what_the_dead_held(store: SceneStore) -> None:
    folder = store.folder_of(send(store))
    released: list[str] = []
    with folder.at_work(lambda: released.append("first")), folder.at_work(lambda: released.append("second")):
        assert released == ["first"]


def test_a_folder_that_cannot_be_made_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = SceneStore(tmp_path / "file" / "scenes", Quota(1, 1000), 60)
    with pytest.raises(StorageError, match="the scenes folder cannot be written: Not a directory"):
        store.begin_upload(1)
