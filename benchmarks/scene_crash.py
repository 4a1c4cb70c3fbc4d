"""One job of `detect` that is killed at random times and gone on with each time, beside one that nobody disturbs."""

import os
import shutil
import sqlite3
from contextlib import closing
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from time import sleep, time
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.scene_figures import Crashes, Kill, Run
from benchmarks.scene_runs import SceneBench, fresh, run, start, state_of

WHILE_WRITING = 2  # of the kills, as soon as a result is begun with
_RESULT, _HEAT = "boxes.geojson", "heat.tif"


def measure_crashes(bench: SceneBench, side: int) -> Crashes:
    """Kill, go on, and compare the bytes of all that is written."""
    bench.say(f"-- crashes: {side:,} px")
    before, scene = os.getloadavg()[0], bench.mosaic(side)
    log, (unbroken, broken) = bench.work / "crashes.log", (bench.work / "unbroken", bench.work / "broken")
    command = _command(bench, scene, unbroken)
    whole = run(command, state_of(unbroken / _RESULT), log)
    command, state = _command(bench, scene, broken), state_of(broken / _RESULT)
    lives = plan_lives(bench.kills - WHILE_WRITING, whole)
    kills: list[Kill] = []
    for life in tqdm([*lives, *[None] * WHILE_WRITING], unit="kill", disable=None):
        kills.append(_live_and_die(command, state, log, life))
        command = command if "--resume" in command else [*command, "--resume"]
    run(command, state, log)
    return Crashes(
        provenance=bench.provenance,
        load=(before, os.getloadavg()[0]),
        side=side,
        tiles=bench.tiles(side),
        kills=kills,
        equal={name: (unbroken / name).read_bytes() == (broken / name).read_bytes() for name in (_RESULT, _HEAT)},
    )


def _command(bench: SceneBench, scene: Path, folder: Path) -> list[str]:
    out, heat = fresh(folder / _RESULT), fresh(folder / _HEAT)
    return bench.detect(scene, out, "--heat", str(heat))


class Life(NamedTuple):
    """How long a process may live: so many seconds from its start, or from its first tile."""

    seconds: float
    from_first_tile: bool

    def is_over(self, begun: float, first_tile: float) -> bool:
        """Whether that is now; the first tile is at infinity before it is begun with."""
        return time() - (first_tile if self.from_first_tile else begun) >= self.seconds


def plan_lives(number: int, whole: Run) -> list[Life]:
    """Random lives, in which together about two thirds of the work are done; every fourth ends before its first tile.

    Args:
        whole: an unbroken run.
    """
    random = np.random.default_rng(0)
    working = [place % 4 != 3 for place in range(number)]
    longest = {True: 4 / 3 * whole.working_seconds / sum(working), False: whole.ready_seconds}
    return [Life(float(random.uniform(0, longest[works])), works) for works in working]


def is_writing(folder: Path, since: float) -> bool:
    """Whether a result has been begun with since a moment; what an earlier life left is older."""
    return any(".part" in path.name and path.stat().st_mtime > since for path in folder.iterdir())


def _live_and_die(command: list[str], state: Path, log: Path, life: Life | None) -> Kill:
    """Run until it is time, and kill -9.

    Args:
        life: None for one that ends as soon as results are written.
    Raises:
        RuntimeError: the process ended before.
    """
    begun, first_tile = time(), inf
    process = start(command, log)
    while True:
        if first_tile == inf and any(path.stat().st_mtime > begun for path in state.parent.glob(f"{state.name}*")):
            first_tile = time()
        if is_writing(state.parent, begun) if life is None else life.is_over(begun, first_tile):
            break
        if process.poll() is not None:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode} before it was killed; see {log}")
        sleep(0.001)
    process.kill()
    lived = time() - begun
    process.wait()
    return Kill(after_seconds=lived, tiles_done=tiles_done(state), writing=is_writing(state.parent, begun))


def tiles_done(state: Path) -> int:
    """Finished tiles, counted in a copy: a look at the file itself would tidy up what the kill left behind."""
    with TemporaryDirectory() as folder:
        for path in state.parent.glob(f"{state.name}*"):
            shutil.copy(path, folder)
        with closing(sqlite3.connect(Path(folder) / state.name)) as database:
            try:
                return database.execute("SELECT done FROM scene").fetchone()[0]
            except (sqlite3.OperationalError, TypeError):  # killed before there was a table, or a row in it
                return 0
