"""Scans: every tile once, whoever works on it, whatever happens meanwhile."""

import dataclasses
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.analysis import ModelResult
from service.errors import EngineError
from service.raster import RasterTile
from service.scenes.payload import unpack
from service.scenes.recipe import Scene
from service.scenes.scan import Detect, Finished, scan_scene
from service.scenes.tile_table import Counts, TileTable
from toy_scenes import make_scene, open_tiles, toy_detect


@dataclasses.dataclass(frozen=True)
class HalfEmptyScene(Scene):
    """Nothing is valid left of x = 150."""

    @contextmanager
    def open(self) -> Iterator["HalfEmptyScene"]:
        yield self

    def read(self, left: int, top: int, width: int, height: int) -> RasterTile:
        return RasterTile(np.full((height, width, 3), 7, np.uint8), left >= 150)


def scan(scene: Scene, table: TileTable, detect: Detect = toy_detect, lanes: int = 2) -> list[Finished]:
    reports: list[Finished] = []
    scan_scene(scene, table, detect, lanes, threading.Event(), reports.append, lease_seconds=5)
    return reports


def unbroken(scene: Scene, folder: Path) -> list[tuple[int, bytes]]:
    folder.mkdir()
    with closing(open_tiles(scene, folder)) as table:
        scan(scene, table, lanes=1)
        return list(table.payloads())


def test_every_tile_is_seen_once(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with closing(open_tiles(scene, tmp_path)) as table:
        reports = scan(scene, table)
        assert sorted(report.number for report in reports) == list(range(len(scene.plan)))
        assert table.counts() == Counts(len(scene.plan), len(scene.plan), 0, sum(report.objects for report in reports))


def test_the_number_of_lanes_changes_no_byte(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with closing(open_tiles(scene, tmp_path)) as table:
        scan(scene, table, lanes=4)
        assert list(table.payloads()) == unbroken(scene, tmp_path / "one")


def test_tiles_without_a_valid_pixel_are_skipped_and_counted(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    fields = {field.name: getattr(scene, field.name) for field in dataclasses.fields(scene)}
    scene = HalfEmptyScene(**fields)
    seen: list[int] = []

    def detect(pixels: NDArray[np.uint8]) -> ModelResult:
        seen.append(int(pixels[0, 0, 0]))
        return toy_detect(pixels)

    with closing(open_tiles(scene, tmp_path)) as table:
        reports = scan(scene, table, detect)
        skipped = [report for report in reports if report.skipped]
        assert 0 < len(skipped) < len(reports)
        assert len(seen) == len(reports) - len(skipped)
        assert table.counts().skipped == len(skipped)


def test_heat_is_kept_where_it_is_asked_for(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, heat=True)
    with closing(open_tiles(scene, tmp_path)) as table:
        scan(scene, table)
        assert all(unpack(payload)[1] is not None for _, payload in table.payloads())


def test_a_scan_that_is_stopped_goes_on_with_the_same_result(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    stop = threading.Event()
    with closing(open_tiles(scene, tmp_path)) as table:
        complete = scan_scene(scene, table, toy_detect, 1, stop, lambda _: stop.set())
        first = table.counts().done
        assert not complete
        assert 0 < first < len(scene.plan)
        assert len(scan(scene, table)) == len(scene.plan) - first  # what had been lent came back at once
        assert list(table.payloads()) == unbroken(scene, tmp_path / "one")


def test_two_scans_on_one_table_share_the_work(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, 900, 600)
    with closing(open_tiles(scene, tmp_path)) as first, closing(open_tiles(scene, tmp_path)) as second:
        reports: list[list[Finished]] = [[], []]
        threads = [
            threading.Thread(target=lambda index=index, table=table: reports[index].extend(scan(scene, table, lanes=1)))
            for index, table in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert min(len(each) for each in reports) > 0
        assert sorted(report.number for each in reports for report in each) == list(range(len(scene.plan)))
        assert list(first.payloads()) == unbroken(scene, tmp_path / "one")


def test_tiles_of_a_dead_worker_are_done_by_another(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    with closing(open_tiles(scene, tmp_path)) as table:
        table.lease("dead", 5, 0.3)
        assert len(scan(scene, table)) == len(scene.plan)


def test_a_tile_that_takes_longer_than_a_lease_is_not_lent_again(tmp_path: Path) -> None:
    scene = make_scene(tmp_path, 100, 64)
    seen: list[bytes] = []
    slow = threading.Event()

    def detect(pixels: NDArray[np.uint8]) -> ModelResult:
        seen.append(pixels.tobytes())
        slow.wait(0.8)
        return toy_detect(pixels)

    with closing(open_tiles(scene, tmp_path)) as first, closing(open_tiles(scene, tmp_path)) as second:

        def run(table: TileTable) -> None:
            scan_scene(scene, table, detect, 1, threading.Event(), lambda _: None, lease_seconds=0.3)

        threads = [threading.Thread(target=run, args=(table,)) for table in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seen) == len(set(seen)) == len(scene.plan)


def test_a_tile_that_fails_ends_the_scan_and_keeps_what_is_done(tmp_path: Path) -> None:
    scene = make_scene(tmp_path)
    calls: list[int] = []

    def detect(pixels: NDArray[np.uint8]) -> ModelResult:
        calls.append(1)
        if len(calls) == 4:
            raise EngineError("poison")
        return toy_detect(pixels)

    with closing(open_tiles(scene, tmp_path)) as table:
        with pytest.raises(EngineError, match="poison"):
            scan(scene, table, detect, lanes=1)
        assert table.counts().done == 3
        scan(scene, table)
        assert list(table.payloads()) == unbroken(scene, tmp_path / "one")
