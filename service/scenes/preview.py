"""An overview picture of a scene with its objects, small enough to look at."""

import colorsys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageColor, ImageDraw, ImageFont

from service.detections import Detections
from service.scenes.scene_info import SceneInfo
from service.scenes.whole_file import whole_file

SIDE = 1600  # longest side of the picture in pixels
_COLORS = (  # those of the page, service/ui/boxes.js
    *("#ff4d5e", "#2fb8ff", "#ffd23f", "#4be07b", "#ff8a2b", "#b98bff"),
    *("#ff74d4", "#17e0d0", "#c6f135", "#ffb9a6", "#93b6ff", "#f2f2f2"),
)
_LEAST_SIDE = 5.0  # px; a smaller box is drawn as large as this, so that it can be seen
_SWATCH, _LINE_HEIGHT, _MARGIN = 12, 22, 10
_BACKGROUND, _TEXT = (24, 24, 24), (240, 240, 240)


def write_preview(path: Path, overview: Image.Image, info: SceneInfo, batches: Iterable[Detections]) -> None:
    """Draw objects on the overview, with a legend below.

    Args:
        path: of a PNG; appears when it is whole.
        overview: the whole scene, of any size; it is drawn on.
        batches: objects in native pixels.
    Raises:
        StorageError: the disk is full, or the folder cannot be written.
    """
    counts = np.zeros(len(info.classes), dtype=np.int64)
    draw = ImageDraw.Draw(overview)
    scale = np.array([overview.width / info.width, overview.height / info.height] * 2)
    for batch in batches:
        counts += np.bincount(batch.labels, minlength=len(counts))
        for box, label in zip(_visible(batch.boxes * scale).tolist(), batch.labels.tolist(), strict=True):
            draw.rectangle(box, outline=class_color(label))
    with whole_file(path) as partial:
        _with_legend(overview, info, counts).save(partial, "PNG")


def class_color(class_id: int) -> tuple[int, ...]:
    """RGB; beyond the list, hues that lie far apart, as on the page."""
    if class_id < len(_COLORS):
        return ImageColor.getrgb(_COLORS[class_id])
    hue = class_id * 137.508 % 360 / 360
    return tuple(round(255 * part) for part in colorsys.hls_to_rgb(hue, 0.64, 0.85))


def _visible(boxes: np.ndarray) -> np.ndarray:
    """(M, 4) with sides of at least `_LEAST_SIDE` around the same centres."""
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    halves = np.maximum(boxes[:, 2:] - boxes[:, :2], _LEAST_SIDE) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def _with_legend(picture: Image.Image, info: SceneInfo, counts: np.ndarray) -> Image.Image:
    """A line for the scene and an entry for each class that was found, below the picture."""
    font = ImageFont.load_default(13)
    measure = ImageDraw.Draw(picture)
    found = [class_id for class_id in np.argsort(-counts, kind="stable").tolist() if counts[class_id]]
    texts = [f"{info.classes[class_id]} {counts[class_id]:,}" for class_id in found]
    title = f"{info.file_name}: {info.width:,} x {info.height:,} px, {int(counts.sum()):,} objects"
    widths = [_SWATCH + 6 + int(measure.textlength(text, font=font)) + 2 * _MARGIN for text in texts]
    width = max(picture.width, int(measure.textlength(title, font=font)) + 2 * _MARGIN, *widths, 0)
    places = _flow(widths, width)
    rows = places[-1][1] + 1 if places else 0
    framed = Image.new("RGB", (width, picture.height + (1 + rows) * _LINE_HEIGHT + _MARGIN), _BACKGROUND)
    framed.paste(picture, (0, 0))
    draw = ImageDraw.Draw(framed)
    draw.text((_MARGIN, picture.height + 5), title, fill=_TEXT, font=font)
    for class_id, text, (left, row) in zip(found, texts, places, strict=True):
        x, y = left + _MARGIN, picture.height + 5 + (1 + row) * _LINE_HEIGHT
        draw.rectangle((x, y + 2, x + _SWATCH, y + 2 + _SWATCH), fill=class_color(class_id))
        draw.text((x + _SWATCH + 6, y), text, fill=_TEXT, font=font)
    return framed


def _flow(widths: list[int], width: int) -> list[tuple[int, int]]:
    """Left edge and row of each entry, in lines of a width."""
    places: list[tuple[int, int]] = []
    left, row = 0, 0
    for entry in widths:
        if left and left + entry > width:
            left, row = 0, row + 1
        places.append((left, row))
        left += entry
    return places
