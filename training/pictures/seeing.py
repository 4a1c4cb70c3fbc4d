"""What a detector sees in one picture, brought back onto that picture.

H W picture, h w level, M boxes.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from model.boxes import to_xyxy
from model.decoder import class_scores
from model.detector import Detector
from model.lsconv import LSConv, snake_paths
from model.structures import DetectorOutput, Encoded
from training.data.canvas import boxes_to_picture, letterbox
from training.evaluation.evaluate import picture_detections
from training.evaluation.matches import Detections
from training.evaluation.metrics import OPERATING_THRESHOLD
from training.loop import NMS_IOU

Floats = NDArray[np.float32]
HEAT_MAPS = ("class heat", "box heat", "mixed heat", "mask")


@dataclass(frozen=True)
class Seen:
    """What the detector made of one picture; all places are in pixels of the picture, all maps on its pixels."""

    picture: NDArray[np.uint8]
    """(H, W, 3)."""
    classes: tuple[str, ...]
    maps: dict[str, Floats]
    """Name to (H, W) in [0, 1]; without HMPE the class heat alone, read from the proposals."""
    density: Floats | None
    """(H, W), objects per cell of the finest level."""
    count: float | None
    queries: Detections
    """The K proposals that became queries, with the encoder's score."""
    detections: Detections
    snakes: list[Floats]
    """Strips along x and y of the finest LSConv at the chosen cell, (taps, 2) each; empty if nothing bends."""
    cell: tuple[float, float]
    """x and y of the chosen cell's centre."""


@dataclass(frozen=True)
class Frame:
    """Where the picture lies on the canvas."""

    canvas: int
    """Side of the canvas."""
    picture: tuple[int, int]
    """(width, height) of the picture."""
    scale: tuple[float, float]
    """Canvas pixels per pixel of the picture, in x and y."""

    def spread(self, level: Tensor) -> Floats:
        """Bring a map (h, w) of the canvas onto the picture's pixels (H, W): padding and resizing are undone exactly.

        The part under the picture seldom ends on a cell's edge, so it is cut out in fractions of cells and resampled
        in one step: the centre of a cell lands where it lies on the picture.
        """
        width, height = self.picture
        columns = width * self.scale[0] * level.shape[1] / self.canvas
        rows = height * self.scale[1] * level.shape[0] / self.canvas
        image = Image.fromarray(level.float().cpu().numpy())
        return np.asarray(image.resize(self.picture, Image.Resampling.BILINEAR, box=(0, 0, columns, rows)))

    def cell_of(self, place: tuple[float, float], shape: tuple[int, int]) -> tuple[int, int]:
        """Row and column of the cell of a level (h, w) that holds a place (x, y) of the picture."""
        x, y = (value * scale / self.canvas for value, scale in zip(place, self.scale, strict=True))
        return min(int(y * shape[0]), shape[0] - 1), min(int(x * shape[1]), shape[1] - 1)

    def places(self, cells: Floats, shape: tuple[int, int]) -> Floats:
        """Places (M, 2) in cells of a level, x and y with cell centres at whole numbers, to pixels of the picture."""
        of_canvas = (cells + 0.5) * self.canvas / np.array([shape[1], shape[0]])
        return (of_canvas / np.array(self.scale)).astype(np.float32)


@torch.inference_mode()
def look(detector: Detector, picture: NDArray[np.uint8], size: int, cell: tuple[float, float] | None) -> Seen:
    """Run the detector on one picture and bring all it says onto the picture.

    Args:
        detector: in evaluation mode.
        picture: (H, W, 3), RGB.
        size: side of the canvas.
        cell: place (x, y) whose cell shows its snake paths; None takes the hottest.
    Raises:
        ValueError: the cell lies outside the picture.
    """
    height, width = picture.shape[:2]
    if cell is not None and not (0 <= cell[0] < width and 0 <= cell[1] < height):
        raise ValueError(f"cell {cell[0]:g} {cell[1]:g} lies outside the picture of {width} x {height} px")
    canvas, scale = letterbox(picture, size)
    frame = Frame(size, (width, height), scale)
    images = torch.from_numpy(canvas).permute(2, 0, 1)[None].to(next(detector.parameters()).device)
    output, bending = _run(detector, images)
    maps = heat_maps(detector, output.encoded, frame)
    place = cell or hottest(maps.get("mixed heat", maps["class heat"]))
    density, count = output.encoded.density, output.count
    return Seen(
        picture=picture,
        classes=detector.config.classes,
        maps=maps,
        density=None if density is None else frame.spread(density[0, 0]),
        count=None if count is None else float(count),
        queries=_queries(output, frame),
        detections=_detections(detector, output, frame),
        snakes=[] if bending is None else _snakes(*bending, frame, place),
        cell=place,
    )


def _run(detector: Detector, images: Tensor) -> tuple[DetectorOutput, tuple[LSConv, Tensor] | None]:
    """The output, and the finest LSConv with the level (1, D, h, w) that enters it, None without LSConv."""
    lsconv = next((module for module in detector.encoder.modules() if isinstance(module, LSConv)), None)
    if lsconv is None:
        return detector(images), None
    entering: list[Tensor] = []
    hook = lsconv.register_forward_pre_hook(lambda _module, inputs: entering.append(inputs[0]))
    try:
        return detector(images), (lsconv, entering[0])
    finally:
        hook.remove()


def heat_maps(detector: Detector, encoded: Encoded, frame: Frame) -> dict[str, Floats]:
    """The maps on the picture, each the maximum over the levels."""
    names = HEAT_MAPS if encoded.heat else HEAT_MAPS[:1]
    levels = [maps[0] for _, maps in detector.heat_maps(encoded)]  # per level (4, h, w)
    return {name: np.max([frame.spread(level[row]) for level in levels], 0) for row, name in enumerate(names)}


def hottest(heat: Floats) -> tuple[float, float]:
    """x and y of the centre of the hottest pixel."""
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    return float(column) + 0.5, float(row) + 0.5


def _queries(output: DetectorOutput, frame: Frame) -> Detections:
    """The proposals that became queries; their head is always trained by sigmoid."""
    queries, valid = output.queries, output.queries.valid[0]
    scores, labels = queries.logits[0, valid].sigmoid().max(-1)
    boxes = to_xyxy(queries.reference_boxes[0, valid]) * frame.canvas
    on_picture = boxes_to_picture(boxes.cpu().numpy(), frame.scale, frame.picture)
    return Detections(on_picture, scores.cpu().numpy(), labels.cpu().numpy())


def _detections(detector: Detector, output: DetectorOutput, frame: Frame) -> Detections:
    """What the last layer tells, as an evaluation sees it, above the score from which detections are shown."""
    last, valid = output.layers[-1], output.queries.valid[0]
    scores = class_scores(last.logits[0, valid], detector.config.decoder.classification).cpu()
    boxes = (to_xyxy(last.boxes[0, valid]) * frame.canvas).cpu()
    found = picture_detections(boxes, scores, frame.scale, frame.picture, NMS_IOU)
    return found.above(OPERATING_THRESHOLD)


def _snakes(lsconv: LSConv, level: Tensor, frame: Frame, place: tuple[float, float]) -> list[Floats]:
    """The bent strips of the cell that holds a place; none if the LSConv does not bend."""
    shape = (level.shape[2], level.shape[3])
    paths = snake_paths(lsconv, level, *frame.cell_of(place, shape))
    return [frame.places(path.cpu().numpy(), shape) for path in paths]
