"""Pictures larger than the model's canvas: cut in windows that overlap, and put together again.

The picture is resized once, to the scale at which a tile of the wanted size fills the canvas. All positions below are
pixels of that resized picture ("canvas pixels"), so that boxes and heat of all windows share one frame. Windows begin
at multiples of the largest stride, so that their heat cells fall together. Every place belongs to one window, its core;
a box belongs to the window whose core holds its centre. What is larger than the overlap is whole in no window and is
taken from one more look at the picture as a whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.analysis import HeatMaps, ModelResult
from service.detections import pairwise_iou
from service.errors import InvalidParameterError
from service.letterbox import FloatArray, Letterbox

AnyNumber = TypeVar("AnyNumber", bound=np.number)
TileOption = Literal["auto", "off"] | int
AUTO_FROM, AUTO_TILE = 3, 2  # canvases: pictures with a longer side than 3 are cut in tiles of 2
_OVERLAP_SHARE = 4  # of a window's side, at least one part in four
_SEAM = 8.0  # px on both sides of a core's edge, where two windows may both claim an object
_EDGE = 2.0  # px; a box this near to an inner edge of a window is cut by it
_LEAST_SCORE = 0.01  # what scores less in every class is left out: thousands of such queries would only cost time
_SAME = 0.5  # IoU from which boxes of two windows are one object


@dataclass(frozen=True)
class Window:
    """One run of the model: S x S px from (left, top), and the part of it that nothing else covers."""

    left: int
    top: int
    core: tuple[int, int, int, int]
    """x1, y1, x2, y2 in canvas pixels; multiples of the largest stride."""


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        frame: the whole picture at the scale of the windows.
        overview: the whole picture on one canvas, for what is larger than `overlap`.
        windows: row by row.
        width, height: extent of all windows together, in canvas pixels.
    """

    frame: Letterbox
    overview: Letterbox
    windows: tuple[Window, ...]
    overlap: int
    width: int
    height: int


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
    overlap = -(-size // (_OVERLAP_SHARE * stride)) * stride
    columns = _starts(frame.new_width, size, overlap, stride)
    rows = _starts(frame.new_height, size, overlap, stride)
    if len(columns) * len(rows) > most:
        raise InvalidParameterError(
            f"tile: {tile} px makes {len(columns) * len(rows):,} tiles of this picture of {width:,} x {height:,} px; "
            f"the limit is {most:,} (HEATQUERY_MAX_TILES). Take larger tiles"
        )
    across, down = _cores(columns, size, stride), _cores(rows, size, stride)
    windows = tuple(
        Window(left, top, (x1, y1, x2, y2))
        for top, (y1, y2) in zip(rows, down, strict=True)
        for left, (x1, x2) in zip(columns, across, strict=True)
    )
    overview = Letterbox.fit(width, height, size)
    return Tiling(frame, overview, windows, overlap, columns[-1] + size, rows[-1] + size)


def _starts(length: int, size: int, overlap: int, stride: int) -> list[int]:
    """Where windows begin along one side: evenly, at multiples of the stride, overlapping by at least `overlap`."""
    if length <= size:
        return [0]
    gaps = -(-(length - size) // (size - overlap))
    step = -(-(length - size) // (gaps * stride)) * stride
    return [step * index for index in range(gaps + 1)]


def _cores(starts: Sequence[int], size: int, stride: int) -> list[tuple[int, int]]:
    """The parts that the windows own along one side: they meet in the middle of each overlap."""
    middles = [(second + first + size) // (2 * stride) * stride for first, second in pairwise(starts)]
    edges = [0, *middles, starts[-1] + size]
    return list(pairwise(edges))


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
    parts = [_own_boxes(tiling, window, result) for window, result in zip(tiling.windows, results, strict=True)]
    parts.append(_large_boxes(tiling, overview))
    boxes = np.concatenate([boxes for boxes, _ in parts])
    scores = np.concatenate([scores for _, scores in parts])
    source = np.repeat(np.arange(len(parts)), [len(boxes) for boxes, _ in parts])
    kept = _without_doubles(tiling, boxes, scores, source)
    everything = (*results, overview)
    return ModelResult(
        estimated_count=float(maps.density.sum(dtype=np.float64)),
        query_count=sum(result.query_count for result in everything),
        boxes=boxes[kept],
        scores=scores[kept],
        maps=maps,
        seconds={step: max(result.seconds[step] for result in everything) for step in overview.seconds},
    )


def _own_boxes(tiling: Tiling, window: Window, result: ModelResult) -> tuple[FloatArray, FloatArray]:
    """Boxes that no inner edge of the window cuts and whose centre is in its core, or just beside it."""
    offset = np.array([window.left, window.top] * 2, dtype=np.float32)
    boxes = result.boxes + offset
    x1, y1, x2, y2 = window.core
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    mine = ((centres >= (x1 - _SEAM, y1 - _SEAM)) & (centres < (x2 + _SEAM, y2 + _SEAM))).all(axis=1)
    size = tiling.frame.size
    low = np.array([window.left + _EDGE if window.left else -np.inf, window.top + _EDGE if window.top else -np.inf])
    right, bottom = window.left + size, window.top + size
    high = np.array(
        [right - _EDGE if right < tiling.width else np.inf, bottom - _EDGE if bottom < tiling.height else np.inf]
    )
    whole = ((boxes[:, :2] >= low) & (boxes[:, 2:] <= high)).all(axis=1)
    kept = mine & whole & _says_something(result.scores)
    return boxes[kept], result.scores[kept]


def _large_boxes(tiling: Tiling, overview: ModelResult) -> tuple[FloatArray, FloatArray]:
    """Boxes of the overview that are larger than the overlap, in the frame of the tiling."""
    scale_x = tiling.frame.scale_x / tiling.overview.scale_x
    scale_y = tiling.frame.scale_y / tiling.overview.scale_y
    boxes = (overview.boxes * np.array([scale_x, scale_y] * 2, dtype=np.float32)).astype(np.float32)
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > tiling.overlap
    kept = large & _says_something(overview.scores)
    return boxes[kept], overview.scores[kept]


def _says_something(scores: FloatArray) -> NDArray[np.bool_]:
    return scores.max(axis=1, initial=0) > _LEAST_SCORE


def _without_doubles(
    tiling: Tiling, boxes: FloatArray, scores: FloatArray, source: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Positions of what stays when two looks at one object, of one class and of different sources, become one."""
    best, label = scores.max(axis=1, initial=0), scores.argmax(axis=1)
    suspects = np.flatnonzero(_near_a_seam(tiling, boxes) | (source == len(tiling.windows)) | _is_large(tiling, boxes))
    order = suspects[np.argsort(-best[suspects], kind="stable")]
    double = pairwise_iou(boxes[order], boxes[order]) > _SAME
    double &= (source[order][:, None] != source[order]) & (label[order][:, None] == label[order])
    keep = np.ones(len(boxes), dtype=bool)
    for position, index in enumerate(order):
        if keep[index]:
            keep[order[position + 1 :][double[position, position + 1 :]]] = False
    return np.flatnonzero(keep)


def _near_a_seam(tiling: Tiling, boxes: FloatArray) -> NDArray[np.bool_]:
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    near = np.zeros(len(boxes), dtype=bool)
    for axis in (0, 1):
        for seam in {window.core[axis] for window in tiling.windows} - {0}:
            near |= np.abs(centres[:, axis] - seam) <= _SEAM
    return near


def _is_large(tiling: Tiling, boxes: FloatArray) -> NDArray[np.bool_]:
    """Large enough for the overview to have seen the same object, a little smaller or larger."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1, initial=0) > _SAME * tiling.overlap


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
    stride = tiling.frame.size // first.shape[-1]
    joined = np.zeros((*first.shape[:-2], tiling.height // stride, tiling.width // stride), dtype=first.dtype)
    for window, values in zip(tiling.windows, levels, strict=True):
        x1, y1, x2, y2 = (edge // stride for edge in window.core)
        left, top = window.left // stride, window.top // stride
        joined[..., y1:y2, x1:x2] = values[..., y1 - top : y2 - top, x1 - left : x2 - left]
    return joined
