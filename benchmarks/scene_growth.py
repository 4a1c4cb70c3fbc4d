"""Memory and time of `detect` by the size of the scene, beside the engine alone."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from benchmarks.scene_figures import Growth, Scan
from benchmarks.scene_runs import Pauses, SceneBench, fresh, run, state_of
from service.engines.onnx import OnnxEngine
from service.manifest import load_model_folder
from service.predictor import Predictor
from service.scenes.recipe import Scene, SceneRequest, prepare_scene
from service.scenes.scan import read_tile

EVERY_SECONDS, PAUSE_SECONDS = 15.0, 4.0  # a lease of `detect` outlives a pause
SAMPLED_TILES = 64


def measure_growth(bench: SceneBench, sides: Sequence[int]) -> Growth:
    """A scan of each size."""
    before, predictor = os.getloadavg()[0], load_predictor(bench.model_dir)
    scans = [_scan(bench, predictor, side) for side in sorted(sides)]
    return Growth(provenance=bench.provenance, load=(before, os.getloadavg()[0]), scans=scans)


def _scan(bench: SceneBench, predictor: Predictor, side: int) -> Scan:
    bench.say(f"-- growth: {side:,} px")
    path = bench.mosaic(side)
    scene = prepare_scene(path, SceneRequest.for_model(predictor.manifest), predictor)
    engine = EngineClock(predictor, sample_tiles(scene), bench.lanes)
    out = fresh(bench.work / "growth" / f"{side}.gpkg")
    engine.measure()
    pauses = Pauses(EVERY_SECONDS, engine.measure)
    whole = run(bench.detect(path, out), state_of(out), bench.work / "growth.log", pauses)
    engine.measure()
    found = Scan(side=side, tiles=len(scene.plan), lanes=bench.lanes, run=whole, engine_seconds=engine.seconds)
    bench.say(f"   {whole.wall_seconds:.0f} s for {found.ideal_seconds:.0f} s of engine, {whole.peak_mb:.0f} MB")
    return found


def load_predictor(model_dir: Path) -> Predictor:
    """The model as `detect` runs it: one thread a lane."""
    folder = load_model_folder(model_dir.resolve())
    return Predictor(folder, OnnxEngine(folder, "cpu", threads=1), max_pixels=0, max_tiles=0)


def sample_tiles(scene: Scene) -> list[NDArray[np.uint8]]:
    """Tiles from all over the scene: how long the decoder takes depends on what is in them."""
    numbers = np.linspace(0, len(scene.plan) - 1, min(SAMPLED_TILES, len(scene.plan))).round().astype(int)
    with scene.open() as reader:
        tiles = [read_tile(scene, reader, number) for number in numbers.tolist()]
    return [tile.pixels for tile in tiles if tile.pixels is not None]


class EngineClock:
    """Runs the two graphs in all lanes at once and nothing else, for a while at a time."""

    def __init__(self, predictor: Predictor, tiles: Sequence[NDArray[np.uint8]], lanes: int) -> None:
        self._predictor, self._tiles, self._lanes = predictor, tiles, lanes
        self._next = count()
        self.seconds: list[float] = []
        predictor.run(tiles[0])  # the first run of all is slower

    def measure(self) -> None:
        """Add the seconds that a tile takes in a lane."""
        with ThreadPoolExecutor(self._lanes) as pool:
            until = perf_counter() + PAUSE_SECONDS
            self.seconds.append(float(np.mean(list(pool.map(self._lane, [until] * self._lanes)))))

    def _lane(self, until: float) -> float:
        begun, done = perf_counter(), 0
        while not done or perf_counter() < until:
            self._predictor.run(self._tiles[next(self._next) % len(self._tiles)])
            done += 1
        return (perf_counter() - begun) / done
