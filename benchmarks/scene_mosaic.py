"""A scene of any size whose objects are known: real aerial pictures on made-up ground, as a GeoTIFF and COCO boxes.

    python benchmarks/scene_mosaic.py mosaic.tif --data FOLDER/instances_val.json --size 20000 20000

Pictures, brought to the scale that the model sees them at, lie in the cells of a grid, one in most cells and anywhere
in it, so that windows cut them everywhere. The ground between them is coloured noise. The same arguments give the same
file. Any part can be made alone, and the file is written block by block: memory does not grow with the scene.

The COCO file beside it, mosaic.json, says of every object whether it crosses a border of the windows that the model
would take (`crosses_border`): an inner edge of a window, or a seam in the middle of an overlap.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterWindow
from tqdm import tqdm

from service.manifest import load_model_folder
from service.tiling import ScenePlan, overlap_of, plan_scene

ROOM = 5 / 4  # sides of a cell in sides of a picture
GAP = 24  # px of ground between two pictures at least
FILLED = 0.9  # share of the cells that hold a picture
GROUND = 1024  # px after which the ground repeats
COLOURS = ((62, 74, 50), (122, 116, 88), (168, 150, 120))  # scrub, dry grass, bare soil
BLOCK = 512
CRS, CORNER, PIXEL_M = "EPSG:32650", (440_720.0, 3_751_320.0), 0.6


@dataclass(frozen=True)
class Picture:
    """A picture of the data at the scale of the scene.

    Attributes:
        boxes: (M, 4) xyxy in its pixels.
        labels: (M,) category ids.
    """

    path: Path
    width: int
    height: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]

    def pixels(self) -> NDArray[np.uint8]:
        """(height, width, 3)."""
        return _read_picture(self.path, self.width, self.height)


@cache  # as many as the data has, a megabyte each
def _read_picture(path: Path, width: int, height: int) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))


def read_pictures(annotations: Path, longest: int) -> tuple[list[Picture], list[dict[str, Any]]]:
    """Pictures of a COCO file, which lie in `images/` beside it, with their longer side at `longest` px; categories."""
    document = json.loads(annotations.read_text(encoding="utf-8"))
    boxes: dict[int, list[tuple[list[float], int]]] = defaultdict(list)
    for each in document["annotations"]:
        boxes[each["image_id"]].append((each["bbox"], each["category_id"]))
    pictures: list[Picture] = []
    for image in sorted(document["images"], key=lambda image: image["id"]):
        stored = image["width"], image["height"]
        width, height = (max(1, round(side * longest / max(stored))) for side in stored)
        xywh = np.array([box for box, _ in boxes[image["id"]]], dtype=np.float64).reshape(-1, 4)
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        xyxy *= np.array([width / stored[0], height / stored[1]] * 2)
        labels = np.array([label for _, label in boxes[image["id"]]], dtype=np.int64)
        pictures.append(Picture(annotations.parent / "images" / image["file_name"], width, height, xyxy, labels))
    return pictures, document["categories"]


@dataclass(frozen=True)
class Mosaic:
    """A scene of which any part can be made alone.

    Attributes:
        longest: longer side of every picture.
    """

    width: int
    height: int
    pictures: Sequence[Picture]
    longest: int
    seed: int = 0

    @property
    def cell(self) -> int:
        """Side of a cell of the grid in pixels."""
        return round(ROOM * self.longest) + GAP

    def placed(self, row: int, column: int) -> tuple[Picture, int, int] | None:
        """The picture in a cell with its left and top; None where the cell is bare, or too small at the scene's end."""
        random = np.random.default_rng([self.seed, row, column])
        picture = self.pictures[int(random.integers(len(self.pictures)))]
        left, top = column * self.cell, row * self.cell
        free_x = min(self.cell, self.width - left) - GAP - picture.width
        free_y = min(self.cell, self.height - top) - GAP - picture.height
        if random.random() >= FILLED or free_x < 0 or free_y < 0:
            return None
        return picture, left + int(random.integers(free_x + 1)), top + int(random.integers(free_y + 1))

    def placed_in(self, left: int, top: int, width: int, height: int) -> Iterator[tuple[Picture, int, int]]:
        """Pictures of all cells that a part of the scene touches."""
        for row in range(top // self.cell, -(-(top + height) // self.cell)):
            for column in range(left // self.cell, -(-(left + width) // self.cell)):
                if found := self.placed(row, column):
                    yield found

    def read(self, left: int, top: int, width: int, height: int) -> NDArray[np.uint8]:
        """A part of the scene, (height, width, 3)."""
        part = self._ground[np.ix_(np.arange(top, top + height) % GROUND, np.arange(left, left + width) % GROUND)]
        for picture, x, y in self.placed_in(left, top, width, height):
            x1, y1 = max(x, left), max(y, top)
            x2, y2 = min(x + picture.width, left + width), min(y + picture.height, top + height)
            if x1 < x2 and y1 < y2:
                part[y1 - top : y2 - top, x1 - left : x2 - left] = picture.pixels()[y1 - y : y2 - y, x1 - x : x2 - x]
        return part

    @cached_property
    def _ground(self) -> NDArray[np.uint8]:
        """Noise that falls off with frequency, which repeats without a seam as it is made of whole waves."""
        random = np.random.default_rng(self.seed)
        across, down = np.meshgrid(np.fft.fftfreq(GROUND), np.fft.fftfreq(GROUND))
        falling = 1 / np.maximum(np.hypot(across, down), 1 / GROUND)
        rough = np.fft.ifft2(np.fft.fft2(random.standard_normal((GROUND, GROUND))) * falling).real
        height = np.clip(0.5 + rough / (4 * rough.std()), 0, 1)
        at = np.linspace(0, 1, len(COLOURS))
        coloured = np.stack([np.interp(height, at, channel) for channel in zip(*COLOURS, strict=True)], axis=2)
        grain = random.normal(0, 6, (GROUND, GROUND, 1))
        return np.clip(coloured + grain, 0, 255).astype(np.uint8)

    def truth(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """(N, 4) xyxy in pixels of the scene, and (N,) category ids."""
        boxes, labels = [np.zeros((0, 4))], [np.zeros(0, dtype=np.int64)]
        for picture, x, y in self.placed_in(0, 0, self.width, self.height):
            boxes.append(picture.boxes + np.array([x, y, x, y]))
            labels.append(picture.labels)
        return np.concatenate(boxes), np.concatenate(labels)


def write_geotiff(mosaic: Mosaic, path: Path, compress: str) -> None:
    """Write the scene as a tiled GeoTIFF with square pixels of 0.6 m, which is what nano-nwpu was trained on.

    Args:
        compress: jpeg or deflate.
    """
    left, top = CORNER
    layout = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "bigtiff": "if_safer", "compress": compress}
    if compress == "jpeg":
        layout |= {"photometric": "ycbcr", "jpeg_quality": 90}
    transform = rasterio.Affine(PIXEL_M, 0, left, 0, -PIXEL_M, top)
    size = {"width": mosaic.width, "height": mosaic.height, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", driver="GTiff", crs=CRS, transform=transform, **size, **layout) as scene:
        scene.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        blocks = [(x, y) for y in range(0, mosaic.height, BLOCK) for x in range(0, mosaic.width, BLOCK)]
        for x, y in tqdm(blocks, unit="block", disable=None):
            width, height = min(BLOCK, mosaic.width - x), min(BLOCK, mosaic.height - y)
            part = mosaic.read(x, y, width, height)
            scene.write(part.transpose(2, 0, 1), window=RasterWindow(x, y, width, height))  # pyright: ignore[reportCallIssue]


def crosses_border(plan: ScenePlan, boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(N,) whether an inner edge of a window, or the seam between two, runs through each of (N, 4) boxes."""
    crosses = np.zeros(len(boxes), dtype=bool)
    for axis, starts in enumerate(plan.starts):
        before, after = starts[1:], starts[:-1] + plan.size
        lines = np.sort(np.concatenate([before, after, (before + after) / 2]))
        first = np.searchsorted(lines, boxes[:, axis], side="right")
        crosses |= np.searchsorted(lines, boxes[:, axis + 2], side="left") > first
    return crosses


def coco(mosaic: Mosaic, plan: ScenePlan, name: str, categories: list[dict[str, Any]]) -> dict[str, Any]:
    """The objects of the scene as a COCO document."""
    boxes, labels = mosaic.truth()
    sides = boxes[:, 2:] - boxes[:, :2]
    xywh = np.concatenate([boxes[:, :2], sides], axis=1).round(3)
    rows = zip(xywh.tolist(), labels.tolist(), sides.prod(axis=1).tolist(), crosses_border(plan, boxes), strict=True)
    return {
        "images": [{"id": 1, "file_name": name, "width": mosaic.width, "height": mosaic.height}],
        "categories": categories,
        "annotations": [
            {
                "id": number,
                "image_id": 1,
                "category_id": label,
                "bbox": box,
                "area": area,
                "iscrowd": 0,
                "crosses_border": bool(crosses),
            }
            for number, (box, label, area, crosses) in enumerate(rows, start=1)
        ],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the scene and its objects."""
    options = _parser().parse_args(arguments)
    manifest = load_model_folder(options.model_dir.resolve()).manifest
    size, stride = manifest.input.size, manifest.strides[-1]
    width, height = options.size
    pictures, categories = read_pictures(options.data, size)
    mosaic = Mosaic(width, height, pictures, size, options.seed)
    plan = plan_scene(width, height, size, stride, overlap_of(size, stride, manifest.largest_object_px))
    write_geotiff(mosaic, options.out, options.compress)
    document = coco(mosaic, plan, options.out.name, categories)
    options.out.with_suffix(".json").write_text(json.dumps(document) + "\n", encoding="utf-8")
    crossing = sum(each["crosses_border"] for each in document["annotations"])
    print(f"{options.out}: {len(document['annotations']):,} objects, {crossing:,} of them on a border")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="GeoTIFF to write; the COCO file gets its name with .json")
    parser.add_argument("--data", type=Path, required=True, metavar="COCO.json", help="images/ is beside it")
    parser.add_argument("--size", type=int, nargs=2, default=(20_000, 20_000), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--compress", choices=["jpeg", "deflate"], default="jpeg", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same scene (default: %(default)s)")
    model = Path("service/models/nano-nwpu/5")
    parser.add_argument("--model-dir", type=Path, default=model, help="whose windows are meant (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
