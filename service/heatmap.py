"""The heat of a picture, brought back exactly onto the picture as displayed.

A heat cell of level l covers `stride x stride` canvas pixels, and its value stands for the cell's centre.
The picture fills only the canvas's top-left part, which seldom ends on a cell's edge. So the map is cut in
*fractions of cells* and resampled in one step: the centre of every cell lands where it lies on the picture.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from service.analysis import HeatMaps, read_heat
from service.colormaps import Colormap, color_table
from service.detections import Detections
from service.letterbox import FloatArray, Letterbox

Kind = Literal["mixed", "class", "bbox", "density", "mask"]
CHANNELS: dict[Kind, int] = {"class": 0, "bbox": 1, "mixed": 2, "mask": 3}
LEGEND_HEIGHT, _LEGEND_MIN_WIDTH = 48, 260
_MIN_DENSITY_TOP = 0.01  # objects a cell; below it a density map is noise and must not be stretched to look hot


@dataclass(frozen=True)
class HeatLayer:
    """One map on the canvas's cells.

    Attributes:
        values: (h, w).
        stride: canvas pixels per cell.
        top: value at the hot end of the colours; the cold end is 0.
        title: what the map shows, for the legend.
    """

    values: FloatArray
    stride: int
    top: float
    title: str

    def cut_to(self, frame: Letterbox) -> FloatArray:
        """The cells that touch the picture: rows and columns that lie wholly in the padding are left out."""
        rows = -(-frame.new_height // self.stride)
        columns = -(-frame.new_width // self.stride)
        return self.values[:rows, :columns]

    def affine(self, frame: Letterbox) -> tuple[float, float, float, float, float, float]:
        """a..f from cells to picture pixels: x = a*column + b*row + c, y = d*column + e*row + f."""
        return self.stride / frame.scale_x, 0.0, 0.0, 0.0, self.stride / frame.scale_y, 0.0


def select_layer(
    maps: HeatMaps,
    strides: tuple[int, ...],
    kind: Kind,
    level: int | None,
    class_id: int | None,
    class_name: str = "",
) -> HeatLayer:
    """Take one map, or combine its levels.

    Args:
        level: None combines all levels on the finest grid by their maximum. Density has one level only.
        class_id: with kind "class", the heat of that class alone; None for any class.
    """
    where = "all levels" if level is None else f"level {level} (stride {strides[level]})"
    if kind == "density":
        top = max(float(maps.density.max()), _MIN_DENSITY_TOP)
        return HeatLayer(maps.density, strides[0], top, "density heat, objects per cell")
    if class_id is not None:
        levels = [read_heat(heat[class_id]) for heat in maps.class_heat]
        title = f"class heat of {class_name!r}, {where}"
    else:
        levels = [read_heat(heat[CHANNELS[kind]]) for heat in maps.heat]
        title = f"{kind} heat, {where}"
    if level is not None:
        return HeatLayer(levels[level], strides[level], 1.0, title)
    return HeatLayer(combine_levels(levels), strides[0], 1.0, title)


def combine_levels(levels: list[FloatArray]) -> FloatArray:
    """Maximum over levels on the finest grid; coarser ones are interpolated between their cell centres."""
    height, width = levels[0].shape
    combined = levels[0]
    for values in levels[1:]:
        combined = np.maximum(combined, _resample(values, (width, height), values.shape[1], values.shape[0]))
    return combined


def place_on_picture(layer: HeatLayer, frame: Letterbox, width: int, height: int) -> FloatArray:
    """Resample to (height, width) pixels that show the whole picture and nothing of the padding."""
    return _resample(layer.values, (width, height), frame.new_width / layer.stride, frame.new_height / layer.stride)


def _resample(values: FloatArray, size: tuple[int, int], columns: float, rows: float) -> FloatArray:
    """Resample the top-left `columns` x `rows` cells (fractions allowed) to size (width, height), bilinearly.

    Pillow places the centre of cell i at i + 0.5 and of pixel p at (p + 0.5) / width * columns, which is what
    "exactly" means here; cells just outside the cut still take part near its edge.
    """
    image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR, box=(0, 0, columns, rows)))


def shrink_to_view(image: Image.Image, side: int) -> Image.Image:
    """The picture with no side longer than `side` pixels."""
    scale = side / max(image.size)
    if scale >= 1:
        return image
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def render_overlay(
    view: Image.Image, layer: HeatLayer, frame: Letterbox, opacity: float, colormap: Colormap
) -> Image.Image:
    """The picture with its heat over it; colour fades in up to half heat, so that cold places stay clear."""
    heat = np.clip(place_on_picture(layer, frame, view.width, view.height) / layer.top, 0, 1)
    colors = color_table(colormap)[np.rint(heat * 255).astype(np.uint8)]  # (h, w) -> (h, w, 3)
    alpha = (opacity * np.minimum(1, 2 * heat))[..., None]
    blended = np.asarray(view) * (1 - alpha) + colors * alpha
    return Image.fromarray(np.rint(blended).astype(np.uint8))


def draw_boxes(image: Image.Image, detections: Detections, classes: tuple[str, ...], frame: Letterbox) -> None:
    """Draw detections, given in picture pixels, on a view of that picture."""
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(12)
    scale = np.array([image.width / frame.width, image.height / frame.height] * 2)
    for box, score, label in zip(detections.boxes * scale, detections.scores, detections.labels, strict=True):
        x1, y1, x2, y2 = (float(value) for value in box)
        draw.rectangle((x1, y1, x2, y2), outline=(255, 255, 255), width=2)
        text = f"{classes[label]} {score:.2f}"
        left, top, right, bottom = draw.textbbox((x1, max(0.0, y1 - 15)), text, font=font)
        draw.rectangle((left - 2, top - 1, right + 2, bottom + 1), fill=(0, 0, 0))
        draw.text((x1, max(0.0, y1 - 15)), text, fill=(255, 255, 255), font=font)


def add_legend(image: Image.Image, layer: HeatLayer, colormap: Colormap) -> Image.Image:
    """Put a heat bar *below* the picture, so that a pixel of the picture keeps its position."""
    width = max(image.width, _LEGEND_MIN_WIDTH)
    framed = Image.new("RGB", (width, image.height + LEGEND_HEIGHT), (24, 24, 24))
    framed.paste(image, (0, 0))
    draw = ImageDraw.Draw(framed)
    font = ImageFont.load_default(13)
    text_y, bar_y = image.height + 5, image.height + 27
    draw.text((8, text_y), layer.title, fill=(240, 240, 240), font=font)
    cold, hot = "cold 0", f"hot {layer.top:.3g}"
    bar_left = 16 + int(draw.textlength(cold, font=font))
    bar_right = min(width - 16 - int(draw.textlength(hot, font=font)), bar_left + 512)
    bar = Image.fromarray(color_table(colormap)[None]).resize((bar_right - bar_left, 14))  # (1, 256, 3)
    framed.paste(bar, (bar_left, bar_y))
    draw.text((8, bar_y), cold, fill=(240, 240, 240), font=font)
    draw.text((bar_right + 8, bar_y), hot, fill=(240, 240, 240), font=font)
    return framed


def encode_image(image: Image.Image, kind: Literal["png", "webp"]) -> bytes:
    """Write the picture into memory; the settings favour speed over the last per cent of size."""
    buffer = BytesIO()
    if kind == "png":
        image.save(buffer, "PNG", compress_level=3)
    else:
        image.save(buffer, "WEBP", quality=90, method=2)
    return buffer.getvalue()
