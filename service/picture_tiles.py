"""Pictures larger than the model's canvas, at `tile=`: cut in windows, and put together again to one result.

The picture is resized once, to the scale at which a tile of the wanted size fills the canvas. All positions below are
pixels of that resized picture ("canvas pixels"), so that boxes and heat of all windows share one frame. How it is cut
and how boxes are merged is as with scenes. What is larger than the overlap is whole in no window; a picture is small
enough for one more look at all of it, and such boxes are taken from there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.analysis import HeatMaps, ModelResult
from service.box_pairs import SAME
from service.detections import pairwise_iou
from service.errors import InvalidParameterError
from service.letterbox import Letterbox
from service.merging import Merged, TileBoxes, keep_of_tile, merge_tiles
from service.tiling import ScenePlan, Window, overlap_of, plan_scene

AnyNumber = TypeVar("AnyNumber", bound=np.number)
TileOption = Literal["auto", "off"] | int
AUTO_FROM, AUTO_TILE = 3, 2  # canvases: pictures with a longer side than 3 are cut in tiles of 2
_LEAST_SCORE = 0.01  # what scores less is left out: thousands of such boxes would only cost time


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        frame: the whole picture at the scale of the windows.
        overview: the whole picture on one canvas, for what is larger than the windows' overlap.
    """

    frame: Letterbox
    overview: Letterbox
    plan: ScenePlan

    @property
    def extent(self) -> tuple[int, int]:
        """Where the last windows end, in canvas pixels."""
        return self.plan.columns[-1] + self.plan.size, self.plan.rows[-1] + self.plan.size


def tile_size(option: TileOption, width: int, height: int, size: int) -> int | None:
    """Side of a tile in picture pixels; None where the whole picture goes on one canvas."""
    longest = max(width, height)
    if option == "off" or (option == "auto" and longest <= AUTO_FROM * size):
        return None
    side = AUTO_TILE * size if option == "auto" else int(option)
    return side if side < longest else None


def plan_tiles(width: int, height: int, tile: int, size: int, stride: int, most: int) -> Tiling:
    """Cut a picture of width x height px in tiles of `tile` px.

    Args:
        size: side of the canvas.
        stride: the model's largest.
        most: windows allowed.
    Raises:
        InvalidParameterError: it would take more.
    """
    scale = size / tile
    frame = Letterbox(width, height, max(1, round(width * scale)), max(1, round(height * scale)), size)
    plan = plan_scene(frame.new_width, frame.new_height, size, stride, overlap_of(size, stride, None))
    if len(plan) > most:
        raise InvalidParameterError(
            f"tile: {tile} px makes {len(plan):,} tiles of this picture of {width:,} x {height:,} px; "
            f"the limit is {most:,} (HEATQUERY_MAX_TILES). Take larger tiles"
        )
    return Tiling(frame, Letterbox.fit(width, height, size), plan)


def cut_window(pixels: NDArray[np.uint8], window: Window, size: int, pad_value: int) -> NDArray[np.uint8]:
    """One window of the resized picture (h, w, 3) as (3, S, S); padding where the picture has ended."""
    part = pixels[window.top : window.top + size, window.left : window.left + size]
    canvas = np.full((3, size, size), pad_value, dtype=np.uint8)
    canvas[:, : part.shape[0], : part.shape[1]] = part.transpose(2, 0, 1)
    return canvas


def join_results(tiling: Tiling, results: Sequence[ModelResult], overview: ModelResult) -> ModelResult:
    """One result for the whole picture, in the frame of the tiling.

    Args:
        results: of the windows, in their order.
        overview: of the whole picture on one canvas; only its boxes larger than the overlap are taken.
    """
    maps = _join_maps(tiling, [result.maps for result in results])
    found = _with_overview(_whole_boxes(tiling, results), _large_boxes(tiling, overview), tiling.plan.overlap)
    scores = np.zeros((len(found), overview.scores.shape[1]), dtype=np.float32)
    scores[np.arange(len(found)), found.labels] = found.scores
    everything = (*results, overview)
    return ModelResult(
        estimated_count=float(maps.density.sum(dtype=np.float64)),
        query_count=sum(result.query_count for result in everything),
        boxes=found.boxes,
        scores=scores,
        maps=maps,
        seconds={step: max(result.seconds[step] for result in everything) for step in overview.seconds},
    )


def _whole_boxes(tiling: Tiling, results: Sequence[ModelResult]) -> Merged:
    """What is whole in some window. What is larger is left to the overview, which sees it in one look."""
    tiles: list[tuple[int, TileBoxes]] = []
    for index, result in enumerate(results):
        kept = keep_of_tile(tiling.plan, tiling.plan.window(index), result.boxes, result.scores, _LEAST_SCORE)
        tiles.append((index, kept.take(~kept.cut)))
    return Merged.concatenate(list(merge_tiles(tiling.plan, tiles)))


def _large_boxes(tiling: Tiling, overview: ModelResult) -> Merged:
    """Boxes of the overview that are larger than the overlap, in the frame of the tiling."""
    scale_x = tiling.frame.scale_x / tiling.overview.scale_x
    scale_y = tiling.frame.scale_y / tiling.overview.scale_y
    boxes = (overview.boxes * np.array([scale_x, scale_y] * 2, dtype=np.float32)).astype(np.float32)
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > tiling.plan.overlap
    queries, labels = np.nonzero((overview.scores > _LEAST_SCORE) & large[:, None])
    return Merged(boxes[queries], overview.scores[queries, labels], labels)


def _with_overview(found: Merged, seen: Merged, overlap: int) -> Merged:
    """Both, where of two boxes of one class that are the same the one with the higher score stays."""
    large = np.flatnonzero((found.boxes[:, 2:] - found.boxes[:, :2]).max(axis=1, initial=0) > SAME * overlap)
    rivals = found.take(large)
    same = (pairwise_iou(rivals.boxes, seen.boxes) > SAME) & (rivals.labels[:, None] == seen.labels)  # (N, M)
    stays = ~(same & (rivals.scores[:, None] >= seen.scores)).any(axis=0)
    beaten = large[same[:, stays].any(axis=1)]
    return Merged.concatenate([found.take(np.delete(np.arange(len(found)), beaten)), seen.take(stays)])


def _join_maps(tiling: Tiling, maps: Sequence[HeatMaps]) -> HeatMaps:
    """Every core with the heat of its own window."""
    first = maps[0]
    return HeatMaps(
        density=_mosaic(tiling, [each.density for each in maps]),
        class_heat=tuple(_mosaic(tiling, [each.class_heat[i] for each in maps]) for i in range(len(first.class_heat))),
        heat=tuple(_mosaic(tiling, [each.heat[i] for each in maps]) for i in range(len(first.heat))),
    )


def _mosaic(tiling: Tiling, levels: Sequence[NDArray[AnyNumber]]) -> NDArray[AnyNumber]:
    """(..., h, w) of each window to (..., H, W) of all of them."""
    first = levels[0]
    stride = tiling.plan.size // first.shape[-1]
    width, height = tiling.extent
    joined = np.zeros((*first.shape[:-2], height // stride, width // stride), dtype=first.dtype)
    for window, values in zip(tiling.plan, levels, strict=True):
        x1, y1, x2, y2 = (edge // stride for edge in window.core)
        left, top = window.left // stride, window.top // stride
        joined[..., y1:y2, x1:x2] = values[..., y1 - top : y2 - top, x1 - left : x2 - left]
    return joined
