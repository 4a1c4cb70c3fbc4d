"""What borders of windows do to objects: accuracy on them and elsewhere, and objects that are told twice."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.scene_accuracy import Look, accuracy, double_pairs, read_objects
from benchmarks.scene_figures import Doubles, Seams
from benchmarks.scene_growth import load_predictor
from benchmarks.scene_mosaic import crosses_border
from benchmarks.scene_runs import SceneBench
from service.analysis import ModelResult
from service.detections import DetectionOptions, pairwise_iou, select_detections
from service.merging import Merged, TileBoxes, merge_tiles
from service.predictor import Predictor
from service.raster import RasterTile
from service.scenes.payload import unpack
from service.scenes.recipe import Scene, SceneRequest, TileReader, prepare_scene
from service.scenes.scan import payload_of, read_tile
from service.tiling import ScenePlan, plan_scene
from training.evaluation.matches import Detections, Truth

LIKE = 0.5  # IoU of a box with what it became, or what another window saw
ON, OFF = 1, 2  # groups


@dataclass(frozen=True)
class Seen:
    """A scene that was looked at through the windows of a plan, all boxes in pixels of the file.

    Attributes:
        moved: px by which the plan's first window was moved right and down.
        windows: what the model said of each window, before anything was left to a neighbour.
        merged: every object once.
    """

    plan: ScenePlan
    moved: int
    windows: list[Detections]
    merged: Detections

    def crosses(self, boxes: NDArray[np.float32]) -> NDArray[np.bool_]:
        """(N,) whether a border of the windows runs through each box."""
        return crosses_border(self.plan, boxes.astype(np.float64) - self.moved)


@dataclass(frozen=True)
class _MovedReader:
    """Windows that begin further right and down."""

    reader: TileReader
    moved: int

    def read(self, left: int, top: int, width: int, height: int) -> RasterTile:
        return self.reader.read(left + self.moved, top + self.moved, width, height)


def measure_seams(bench: SceneBench, side: int) -> Seams:
    """Look at a scene twice: through the plan's windows, and through windows moved by half of their distance."""
    bench.say(f"-- seams: {side:,} px")
    before, predictor = os.getloadavg()[0], load_predictor(bench.model_dir)
    path, classes = bench.mosaic(side), predictor.manifest.classes
    scene = prepare_scene(path, SceneRequest.for_model(predictor.manifest), predictor)
    if scene.scale != 1:
        raise ValueError(f"{path} is seen at {scene.scale:g} of its pixels; borders are known at 1 only")
    stride = scene.plan.stride
    half = (scene.plan.size - scene.plan.overlap) // 2 // stride * stride
    seen, moved = (look_at(scene, predictor, by, bench.lanes, bench.score) for by in (0, half))
    truth, _ = read_objects(path.with_suffix(".json"), classes)
    shown = predictor.manifest.postprocess.threshold
    doubles = [find_doubles(look, truth, shown) for look in (seen, moved)]
    on_border, elsewhere = accuracy([by_border(seen, truth)], classes, groups=2)
    moved_on, moved_off = accuracy([by_change(seen, moved, truth), by_change(moved, seen, truth)], classes, groups=2)
    return Seams(
        provenance=bench.provenance,
        load=(before, os.getloadavg()[0]),
        side=side,
        score=bench.score,
        everything=accuracy([Look.ungrouped(truth, seen.merged)], classes)[0],
        on_border=on_border,
        elsewhere=elsewhere,
        moved_on_border=moved_on,
        moved_off_border=moved_off,
        shown_score=shown,
        shown=sum(len(look.merged.above(shown).labels) for look in (seen, moved)),
        doubles=Doubles(
            of_one_window=sum(each.of_one_window for each in doubles),
            of_two_windows=sum(each.of_two_windows for each in doubles),
        ),
    )


def look_at(scene: Scene, predictor: Predictor, moved: int, lanes: int, score: float) -> Seen:
    """Run the model on every window of the scene without its first `moved` columns and rows, as `detect` does.

    Args:
        score: boxes at or below it are left out of what is returned.
    """
    plan = scene.plan
    plan = plan_scene(plan.width - moved, plan.height - moved, plan.size, plan.stride, plan.overlap)
    scene = replace(scene, plan=plan)
    windows: list[Detections] = []
    tiles: list[TileBoxes] = []
    for number, result in _results(scene, predictor, moved, lanes):
        window = plan.window(number)
        begin = np.array([window.left, window.top] * 2, np.float32) + moved
        wanted = DetectionOptions.from_manifest(predictor.manifest, score, result.scores.size)
        raw = select_detections(result.boxes, result.scores, wanted)
        windows.append(Detections(raw.boxes + begin, raw.scores, raw.labels))
        tiles.append(unpack(payload_of(scene, number, result)[0])[0])
    merged = Merged.concatenate(list(merge_tiles(plan, enumerate(tiles))))
    return Seen(plan, moved, windows, Detections(merged.boxes + moved, merged.scores, merged.labels).above(score))


def _results(scene: Scene, predictor: Predictor, moved: int, lanes: int) -> Iterator[tuple[int, ModelResult]]:
    """What the model says of every window, in their order; this thread reads, `lanes` others run the model."""
    with scene.open() as raster, ThreadPoolExecutor(lanes) as pool:
        reader, numbers = _MovedReader(raster, moved), range(len(scene.plan))
        for first in tqdm(numbers[::lanes], unit="round", disable=None):
            tiles = [read_tile(scene, reader, number) for number in numbers[first : first + lanes]]
            seen = [tile for tile in tiles if tile.pixels is not None]
            results = pool.map(predictor.run, [tile.pixels for tile in seen])
            yield from zip([tile.number for tile in seen], results, strict=True)


def by_border(seen: Seen, truth: Truth) -> Look:
    """Boxes that a border of the windows crosses, and others."""
    group = [np.where(seen.crosses(boxes), ON, OFF) for boxes in (truth.boxes, seen.merged.boxes)]
    return Look(truth, seen.merged, *group)


def by_change(seen: Seen, other: Seen, truth: Truth) -> Look:
    """The same, of boxes alone that a border crosses in one of two plans: in `seen`, or else in `other`.

    Together with what `by_change(other, seen, truth)` gives, every such object is on a border once, and once is not:
    neither its size nor its class can make the difference.
    """
    begin = max(seen.moved, other.moved)

    def group(boxes: NDArray[np.float32]) -> NDArray[np.int64]:
        on, changes = seen.crosses(boxes), seen.crosses(boxes) != other.crosses(boxes)
        return np.where(changes & (boxes[:, :2] >= begin).all(axis=1), np.where(on, ON, OFF), 0)

    return Look(truth, seen.merged, group(truth.boxes), group(seen.merged.boxes))


def find_doubles(seen: Seen, truth: Truth, score: float) -> Doubles:
    """Objects with two boxes above the score, by whether one window saw both boxes."""
    found = seen.merged.above(score)
    pairs = double_pairs(truth, found)
    own = sum(_has_both(seen.windows, found, pair) for pair in pairs)
    return Doubles(of_one_window=own, of_two_windows=len(pairs) - own)


def _has_both(windows: list[Detections], found: Detections, pair: NDArray[np.int64]) -> bool:
    """Whether the model gave two boxes like these for any one window."""
    boxes, label = found.boxes[pair], found.labels[pair[0]]
    for window in windows:
        overlap = pairwise_iou(boxes, window.boxes[window.labels == label])  # (2, n)
        if overlap.shape[1] > 1:
            best = overlap.argmax(axis=1)
            if best[0] != best[1] and overlap.max(axis=1).min() > LIKE:
                return True
    return False
