"""Time and memory of putting the windows of a crowded scene together, by the number of objects.

    python benchmarks/merging.py

Objects of 6 to 16 px of three classes lie anywhere, 4 in 1,000 square px. Every window sees each of its objects, a
pixel or so off. The boxes of all windows are in memory before the clock starts; processor time of one thread is told,
the median of the rounds, and the most memory that merging took on top, as counted by Python.
"""

import argparse
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import numpy as np

from benchmarks.book_result import Row, write_rows
from benchmarks.peer_report import Spread
from service.merging import TileBoxes, keep_of_tile, merge_tiles
from service.tiling import ScenePlan, plan_scene

SIZE, STRIDE, OVERLAP = 544, 32, 160
DENSITY = 4e-3
CLASSES = 3


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every number of objects and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--objects", type=int, nargs="+", default=[3_300, 33_000, 330_000], metavar="N")
    parser.add_argument("--rounds", type=int, default=5, help="(default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    print("| objects | windows | boxes of all windows | after merging | ms | bytes a box |")
    print("|---:|---:|---:|---:|---:|---:|")
    for count in options.objects:
        side = round((count / DENSITY) ** 0.5)
        plan = plan_scene(side, side, SIZE, STRIDE, OVERLAP)
        tiles = crowd(plan, count)
        boxes = sum(len(tile) for _, tile in tiles)
        times = Spread.of(np.array([time_merge(plan, tiles) * 1e3 for _ in range(options.rounds)]))
        found, peak = weigh_merge(plan, tiles)
        print(f"| {count:,} | {len(plan):,} | {boxes:,} | {found:,} | {times.median:.0f} | {peak / boxes:.0f} |")
        name = f"merging {boxes:,} boxes of {len(plan):,} windows"
        rows.append(Row.of(f"{name}: processor time", times, "ms"))
        rows.append(Row(claim=f"{name}: memory", value=peak / boxes, unit="bytes a box"))
    if options.json:
        write_rows(options.json, rows)


def crowd(plan: ScenePlan, count: int) -> list[tuple[int, TileBoxes]]:
    """What every window adds."""
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, plan.width - 16, (count, 2)), rng.uniform(6, 16, (count, 2))
    objects, labels = np.concatenate([corner, corner + size], axis=1), rng.integers(0, CLASSES, count)
    tiles: list[tuple[int, TileBoxes]] = []
    for index, window in enumerate(plan):
        origin = np.array([window.left, window.top])
        near = ((objects[:, 2:] > origin) & (objects[:, :2] < origin + plan.size)).all(axis=1)
        seen = objects[near] - np.tile(origin, 2) + rng.normal(0, 0.5, (int(near.sum()), 4))
        scores = np.zeros((len(seen), CLASSES), dtype=np.float32)
        scores[np.arange(len(seen)), labels[near]] = rng.uniform(0.3, 0.9, len(seen))
        tiles.append((index, keep_of_tile(plan, window, np.clip(seen, 0, plan.size).astype(np.float32), scores, 0.05)))
    return tiles


def time_merge(plan: ScenePlan, tiles: list[tuple[int, TileBoxes]]) -> float:
    """Seconds of processor time."""
    begun = process_time()
    for _ in merge_tiles(plan, tiles):
        pass
    return process_time() - begun


def weigh_merge(plan: ScenePlan, tiles: list[tuple[int, TileBoxes]]) -> tuple[int, int]:
    """Objects after merging, and bytes at the peak."""
    tracemalloc.start()
    found = sum(len(part) for part in merge_tiles(plan, tiles))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return found, peak


if __name__ == "__main__":
    main()
