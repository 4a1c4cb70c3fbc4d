"""From the tiles of a scene to a table of what is in each: one thread reads ahead, others run the model.

The same for a job of the service and for the command line; what a tile's result is made of is `read_tile` and
`payload_of`, for engines that share out the work by themselves.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from service.analysis import ModelResult
from service.errors import StorageError
from service.merging import keep_of_tile
from service.scenes.payload import TileHeat, pack
from service.scenes.recipe import Scene, TileReader
from service.scenes.tile_table import TileTable

LEASE_SECONDS = 30.0
_BEATS = 3  # heartbeats in the time of a lease
_AHEAD = 2  # tiles for each lane that are read before they are needed
_POLL_SECONDS = 0.2  # between two looks at tiles that somebody else holds

Detect = Callable[[NDArray[np.uint8]], ModelResult]
"""Runs the model on one tile, (3, S, S) RGB; called from several threads at once."""


class Tile(NamedTuple):
    """One tile as it was read; `pixels` (3, S, S) RGB, None where no pixel of it is valid."""

    number: int
    pixels: NDArray[np.uint8] | None


class Finished(NamedTuple):
    """What is reported of one tile."""

    number: int
    skipped: bool
    objects: int


def scan_scene(
    scene: Scene,
    table: TileTable,
    detect: Detect,
    lanes: int,
    stop: threading.Event,
    report: Callable[[Finished], None],
    lease_seconds: float = LEASE_SECONDS,
) -> bool:
    """Work until every tile has a result; others may work on the same table.

    Args:
        lanes: threads that call `detect`.
        stop: ends the work early; what has begun is finished, the rest is given back.
        report: called after each tile, one call at a time.
    Returns:
        Whether the scene is complete.
    Raises:
        ServiceError, and whatever `detect` and `report` raise: the first failure ends the work.
    """
    crew = _Crew(scene, table, detect, lanes, stop, report, lease_seconds)
    crew.work()
    return table.counts().complete


def read_tile(scene: Scene, reader: TileReader, number: int) -> Tile:
    """One tile's pixels, padded at the edges of the scene."""
    window = scene.plan.window(number)
    found = reader.read(window.left, window.top, scene.plan.size, scene.plan.size)
    pixels = np.ascontiguousarray(found.pixels.transpose(2, 0, 1)) if found.valid else None  # (S, S, 3) -> (3, S, S)
    return Tile(number, pixels)


def payload_of(scene: Scene, number: int, result: ModelResult | None) -> tuple[bytes, int]:
    """What is kept of a tile, and how many objects it has above the model's thresholds.

    Args:
        result: None for a tile without a valid pixel.
    """
    plan = scene.plan
    boxes = np.zeros((0, 4), np.float32) if result is None else result.boxes
    scores = np.zeros((0, len(scene.thresholds)), np.float32) if result is None else result.scores
    kept = keep_of_tile(plan, plan.window(number), boxes, scores, scene.request.floor, scene.nms_iou)
    heat = TileHeat.of(result.maps) if scene.request.heat and result is not None else None
    return pack(kept, heat), int((kept.scores > scene.thresholds[kept.labels]).sum())


@dataclass(eq=False)
class _Crew:
    """The threads of one scan. Any of them that fails ends the work of all."""

    scene: Scene
    table: TileTable
    detect: Detect
    lanes: int
    stop: threading.Event
    report: Callable[[Finished], None]
    lease_seconds: float

    def __post_init__(self) -> None:
        self._owner = uuid4().hex
        self._failure: Exception | None = None
        self._failed = threading.Event()
        self._reporting = threading.Lock()
        self._read: queue.Queue[Tile | None] = queue.Queue(_AHEAD * self.lanes)

    def work(self) -> None:
        """Run the threads, and keep the lent tiles meanwhile."""
        names = ["read", *(f"lane-{number}" for number in range(self.lanes))]
        targets = [self._read_ahead, *[self._run_lane] * self.lanes]
        threads = [
            threading.Thread(target=self._guarded, args=(target,), name=f"heatquery-scene-{name}", daemon=True)
            for name, target in zip(names, targets, strict=True)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(self.lease_seconds / _BEATS)
                    self._guarded(self._beat)
        finally:
            self._failed.set()  # where this thread itself is interrupted, the others must end, too
            for thread in threads:
                thread.join()
            with suppress(StorageError):  # then the leases run out by themselves
                self.table.release(self._owner)
        if self._failure is not None:
            raise self._failure

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:  # whatever it was, the caller must hear of it
            if self._failure is None:
                self._failure = error
            self._failed.set()

    def _beat(self) -> None:
        self.table.heartbeat(self._owner, self.lease_seconds)

    @property
    def _ending(self) -> bool:
        return self.stop.is_set() or self._failed.is_set()

    def _read_ahead(self) -> None:
        """Lease, read and queue tiles until there are none; then tell every lane that no more come."""
        try:
            with self.scene.open() as reader:
                while not self._ending:
                    numbers = self.table.lease(self._owner, self.lanes, self.lease_seconds)
                    for number in numbers:
                        self._put(read_tile(self.scene, reader, number))
                    if not numbers:
                        if not self.table.held_by_others(self._owner):
                            break
                        self.stop.wait(_POLL_SECONDS)
        finally:
            for _ in range(self.lanes):
                self._put(None)

    def _put(self, tile: Tile | None) -> None:
        """Wait for room in the queue, as long as somebody may take from it."""
        while not self._ending:
            try:
                self._read.put(tile, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue

    def _run_lane(self) -> None:
        while (tile := self._next()) is not None:
            result = None if tile.pixels is None else self.detect(tile.pixels)
            payload, objects = payload_of(self.scene, tile.number, result)
            skipped = result is None
            if self.table.finish(tile.number, payload, skipped, objects):
                with self._reporting:
                    self.report(Finished(tile.number, skipped, objects))

    def _next(self) -> Tile | None:
        while not self._ending:
            try:
                return self._read.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
        return None
