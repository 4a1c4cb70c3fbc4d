"""What every part of benchmarks/scenes.py needs: mosaics, commands, and processes that are weighed while they run."""

import glob
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep

from benchmarks import scene_mosaic
from benchmarks.scene_figures import Run
from benchmarks.serving_figures import Provenance
from service.manifest import Manifest
from service.scenes.recipe import SceneRequest
from service.tiling import plan_scene

ROOT = Path(__file__).resolve().parents[1]
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class SceneBench:
    """What every part needs.

    Attributes:
        data: COCO file, with images/ beside it.
        work: folder for mosaics, which are made once, and results.
        lanes: tiles at once; threads of all tools.
        score: boxes above it count for accuracy.
        sahi: the interpreter of its environment.
    """

    model_dir: Path
    manifest: Manifest
    data: Path
    work: Path
    lanes: int
    score: float
    rounds: int
    kills: int
    sahi: Path | None
    provenance: Provenance

    def say(self, text: str) -> None:
        """Tell whoever waits."""
        print(text, flush=True)

    def mosaic(self, side: int) -> Path:
        """A scene of this side; its objects lie beside it."""
        path = self.work / f"mosaic-{side}.tif"
        if not path.with_suffix(".json").is_file():  # which is written last
            self.work.mkdir(parents=True, exist_ok=True)
            size = [str(side)] * 2
            scene_mosaic.main(
                [str(path), "--data", str(self.data), "--size", *size, "--model-dir", str(self.model_dir)]
            )
        return path

    @property
    def overlap(self) -> int:
        """Of neighbouring windows."""
        return SceneRequest.for_model(self.manifest).overlap

    def tiles(self, side: int) -> int:
        """Windows of a mosaic."""
        return len(plan_scene(side, side, self.manifest.input.size, self.manifest.strides[-1], self.overlap))

    def detect(self, scene: Path, out: Path, *more: str) -> list[str]:
        """The command line of our tool."""
        folder = self.model_dir.resolve()
        model = ["--models", str(folder.parents[1]), "--model", "/".join(folder.parts[-2:])]
        command = [sys.executable, "-m", "service", "detect", str(scene), "--out", str(out), *model]
        return [*command, "--lanes", str(self.lanes), *more]


def fresh(path: Path) -> Path:
    """A place for a result, where nothing of an earlier run is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stem = glob.escape(path.stem)
    for old in [*path.parent.glob(f"{stem}.*"), *path.parent.glob(f".{stem}.part*")]:  # with the state
        old.unlink()
    return path


def state_of(result: Path) -> Path:
    """Where `detect` keeps finished tiles; it appears when the first one is begun with."""
    return result.with_name(f"{result.name}.state")


def start(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """A process with our code, whatever this process was told; what it says goes to the end of the log."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("HEATQUERY_")}
    with log.open("ab") as output:
        return subprocess.Popen(command, cwd=ROOT, env=inherited, stdout=output, stderr=output)


@dataclass(frozen=True)
class Pauses:
    """Every `every` seconds of work the process is stopped, and `meanwhile` is called."""

    every: float
    meanwhile: Callable[[], None]


def run(command: Sequence[str], begun_file: Path, log: Path, pauses: Pauses | None = None) -> Run:
    """Run a command to its end, and weigh it.

    Args:
        begun_file: appears when it is ready for the first tile.
    Raises:
        RuntimeError: it failed.
    """
    begun, stopped, last_pause = perf_counter(), 0.0, perf_counter()
    process = start(command, log)
    peak, ready = 0.0, None
    while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
        peak = max(peak, peak_mb(process.pid))
        if ready is None and begun_file.exists():
            ready = perf_counter() - begun
        if pauses and ready is not None and perf_counter() - last_pause > pauses.every:
            stopped += _pause(process.pid, pauses.meanwhile)
            last_pause = perf_counter()
        sleep(_POLL_SECONDS)
    wall = perf_counter() - begun - stopped
    process.returncode = os.waitstatus_to_exitcode(ended[1])  # `Popen` must not wait for it a second time
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}; {log} says why")
    cpu = ended[2].ru_utime + ended[2].ru_stime
    return Run(wall_seconds=wall, ready_seconds=ready or wall, cpu_seconds=cpu, peak_mb=peak)


def _pause(pid: int, meanwhile: Callable[[], None]) -> float:
    """Seconds for which the process was stopped."""
    os.kill(pid, signal.SIGSTOP)
    begun = perf_counter()
    try:
        meanwhile()
    finally:
        os.kill(pid, signal.SIGCONT)
    return perf_counter() - begun


def peak_mb(pid: int) -> float:
    """Largest resident memory of a process so far, in MB; 0 where it has ended.

    The kernel's own mark, which no look between two moments can miss. `ru_maxrss` would be at least what the process
    that started it held.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
