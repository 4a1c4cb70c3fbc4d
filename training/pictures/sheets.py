"""Contact sheets: many small pictures with their boxes on one large one."""

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.data.canvas import fitted_size

Colour = tuple[int, int, int]

GAP = 6
LINE = 20
"""Height of a line of text, in pixels."""
PAPER, INK = (250, 250, 250), (30, 30, 30)
PALETTE: list[Colour] = [
    (255, 64, 64),
    (255, 221, 51),
    (64, 224, 255),
    (255, 96, 230),
    (120, 255, 80),
    (255, 150, 40),
    (90, 130, 255),
    (255, 255, 255),
    (190, 120, 255),
    (0, 200, 150),
    (255, 185, 195),
    (205, 165, 105),
]


@dataclass(frozen=True)
class Tile:
    """One picture of a sheet."""

    image: NDArray[np.uint8]
    """(H, W, 3), RGB."""
    boxes: NDArray[np.float32]
    """(M, 4), xyxy in pixels of the image; later ones lie on top."""
    colours: Sequence[Colour]
    """One per box."""
    caption: str = ""


def class_colours(count: int) -> list[Colour]:
    """Bright colours that differ from the ground; those of the first classes from each other too."""
    hues = [(0.618034 * place) % 1 for place in range(count - len(PALETTE))]  # golden angles never come full circle
    more = [colorsys.hsv_to_rgb(hue, 0.7, 1.0) for hue in hues]
    return [*PALETTE, *((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in more)][:count]


def sheet(tiles: Sequence[Tile], columns: int, side: int, title: str, legend: Mapping[str, Colour]) -> Image.Image:
    """Lay tiles out in rows under a title and a legend.

    Args:
        tiles: at least one.
        columns: tiles per row; fewer if there are fewer tiles.
        side: longest side of a tile in pixels; smaller pictures are enlarged.
        legend: what the colours mean.
    """
    columns = min(columns, len(tiles))
    width = max(columns * (side + GAP) + GAP, 720)
    rows = [_row(tiles[first : first + columns], width, side) for first in range(0, len(tiles), columns)]
    parts = [_header(width, title, legend), *rows]
    paper = Image.new("RGB", (width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        paper.paste(part, (0, top))
        top += part.height
    return paper


def _row(tiles: Sequence[Tile], width: int, side: int) -> Image.Image:
    """Tiles side by side under their captions, as high as the highest."""
    pictures = [draw_boxes(tile, side) for tile in tiles]
    row = Image.new("RGB", (width, LINE + max(picture.height for picture in pictures) + GAP), PAPER)
    draw, font = ImageDraw.Draw(row), _font(13)
    for place, (tile, picture) in enumerate(zip(tiles, pictures, strict=True)):
        left = GAP + place * (side + GAP)
        row.paste(picture, (left, LINE))
        draw.text((left, LINE / 2), _shortened(tile.caption, side, font), fill=INK, font=font, anchor="lm")
    return row


def draw_boxes(tile: Tile, side: int) -> Image.Image:
    """The tile's picture with its longest side at `side` pixels, and its boxes on it."""
    height, width = tile.image.shape[:2]
    size = fitted_size((width, height), side)
    picture = Image.fromarray(tile.image).resize(size, Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    scale = np.array([size[0] / width, size[1] / height] * 2)
    for box, colour in zip((tile.boxes * scale).tolist(), tile.colours, strict=True):
        x1, y1, x2, y2 = (round(value) for value in box)
        draw.rectangle((x1 - 1, y1 - 1, max(x1, x2), max(y1, y2)), outline=colour, width=1 if x2 - x1 < 24 else 2)
    return picture


def _header(width: int, title: str, legend: Mapping[str, Colour]) -> Image.Image:
    """Title and legend, in as many lines as they need."""
    font, places, x, y = _font(14), [], GAP, LINE + 2 * GAP
    for name in legend:
        wide = 26 + int(font.getlength(name))
        if x + wide > width - GAP and x > GAP:
            x, y = GAP, y + LINE
        places.append((x, y))
        x += wide + 12
    image = Image.new("RGB", (width, y + (LINE if legend else 0) + GAP), PAPER)
    draw = ImageDraw.Draw(image)
    draw.text((GAP, GAP + LINE / 2), title, fill=INK, font=_font(17), anchor="lm")
    for (left, top), (name, colour) in zip(places, legend.items(), strict=True):
        draw.rectangle((left, top + 3, left + 14, top + 17), fill=colour, outline=INK)
        draw.text((left + 20, top + LINE / 2), name, fill=INK, font=font, anchor="lm")
    return image


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, which is there on every machine."""
    return ImageFont.load_default(size)


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The text, cut in the middle to fit `width` pixels."""
    kept = len(text)
    while font.getlength(text) > width and kept > 4:
        kept -= 1
        text = f"{text[: kept // 2]}…{text[len(text) - kept // 2 :]}"
    return text
