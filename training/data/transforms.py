"""Random changes to training pictures: pure functions on a Sample, and `Augment`, which chains them.

All randomness comes from the generator that is passed in, so a sample is a pure function of its seed.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from statistics import NormalDist
from typing import Protocol

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from training.config import OBLONG_STEP_PX, AugmentConfig
from training.data.canvas import PAD_VALUE
from training.data.samples import Sample

MIN_SIDE_PX = 2.0
"""Boxes left with a shorter side than this are dropped."""

NORMAL_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], dtype=np.float32)
"""Turns a random byte into a standard normal number; far cheaper than drawing normal numbers."""


class Pictures(Protocol):
    """A dataset: a number of samples, by index."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class Augment:
    """Turns a picture into a random training crop of exactly the size that is asked for.

    Order: zoom and crop, photometric change of the picture part, padding (which keeps its exact value, as at
    inference), mosaic of four such parts, flip and quarter turn. All crops of a batch have one size, `draw_size`.
    """

    def __init__(self, config: AugmentConfig) -> None:
        self.config = config

    def draw_size(self, rng: Generator) -> tuple[int, int]:
        """(width, height) of the crops of one batch: the square, or with `crop_aspect` an oblong of about its area."""
        crop, widest = self.config.crop, math.log(self.config.crop_aspect)
        if widest == 0:
            return crop, crop
        stretch = math.exp(rng.uniform(-0.5, 0.5) * widest)
        steps = (max(1, round(side / OBLONG_STEP_PX)) for side in (crop * stretch, crop / stretch))
        width, height = (OBLONG_STEP_PX * step for step in steps)
        return width, height

    def __call__(self, dataset: Pictures, index: int, size: tuple[int, int], rng: Generator) -> Sample:
        """A random crop of picture `index`, or a mosaic of it and three others, of `size` (width, height)."""
        flip, turns = (bool(rng.integers(2)), int(rng.integers(4))) if self.config.flips else (False, 0)
        size = (size[1], size[0]) if turns % 2 else size  # before it is turned
        if rng.random() < self.config.mosaic:
            others = rng.integers(len(dataset), size=3)
            sources = [dataset[index], *(dataset[int(other)] for other in others)]
            x, y = (int(rng.integers(side // 4, side - side // 4 + 1)) for side in size)
            sample = mosaic(sources, size, (x, y), self._part, rng)
        else:
            sample = self._part(dataset[index], size, rng)
        return flip_and_turn(sample, flip, turns)

    def _part(self, sample: Sample, size: tuple[int, int], rng: Generator) -> Sample:
        """A randomly zoomed and placed view of one picture, padded to `size` (width, height)."""
        config = self.config
        scaled = draw_scaled_size(sample, config.scale, config.aspect, rng)
        focus = None
        if len(sample.boxes) and rng.random() < config.crop_on_object:
            focus = sample.boxes[rng.integers(len(sample.boxes))]
        origin = draw_origin(sample, scaled, size, focus, rng)
        visible = zoom_and_crop(sample, scaled, origin, size, config.min_visible)
        visible = replace(visible, image=photometric(visible.image, config, rng))
        return pad(visible, size, (max(0, -origin[0]), max(0, -origin[1])), PAD_VALUE)


def draw_scaled_size(sample: Sample, scale: tuple[float, float], aspect: float, rng: Generator) -> tuple[int, int]:
    """(width, height) of the whole picture after a random zoom, whose two sides differ by up to `aspect`."""
    zoom = math.exp(rng.uniform(math.log(scale[0]), math.log(scale[1])))
    stretch = math.exp(rng.uniform(-0.5, 0.5) * math.log(aspect))
    height, width = sample.image.shape[:2]
    return max(1, round(width * zoom * stretch)), max(1, round(height * zoom / stretch))


def draw_origin(
    sample: Sample,
    scaled: tuple[int, int],
    size: tuple[int, int],
    focus: NDArray[np.float32] | None,
    rng: Generator,
) -> tuple[int, int]:
    """Top-left corner of a window in the scaled picture; negative where the picture is the smaller one.

    Args:
        scaled: (width, height) of the whole picture after zooming.
        size: (width, height) of the window.
        focus: xyxy in pixels of the sample; its centre will be inside the window.
    """
    stored = sample.image.shape[1::-1]
    origin = []
    for axis in (0, 1):
        low, high = sorted((0, scaled[axis] - size[axis]))
        if focus is not None:
            centre = float(focus[axis] + focus[axis + 2]) / 2 * scaled[axis] / stored[axis]
            low, high = max(low, math.ceil(centre) - size[axis]), min(high, math.floor(centre))
        origin.append(int(rng.integers(low, high + 1)))
    return origin[0], origin[1]


def zoom_and_crop(
    sample: Sample,
    scaled: tuple[int, int],
    origin: tuple[int, int],
    size: tuple[int, int],
    min_visible: float,
) -> Sample:
    """The part of the scaled picture under a window; cut in source pixels first, to resize only that part.

    Args:
        scaled: (width, height) of the whole picture after zooming.
        origin: top-left corner of the window in scaled pixels; may be negative.
        size: (width, height) of the window; the result is smaller where the picture ends.
        min_visible: boxes with less than this share of their area in the window are dropped, others are cut.
    """
    stored = sample.image.shape[1::-1]
    low = [max(0, origin[axis]) for axis in (0, 1)]
    high = [min(scaled[axis], origin[axis] + size[axis]) for axis in (0, 1)]
    scale = [scaled[axis] / stored[axis] for axis in (0, 1)]
    margin = [math.ceil(max(1.0, 1.0 / scale[axis])) + 1 for axis in (0, 1)]  # what the antialias filter reaches
    near = [max(0, math.floor(low[axis] / scale[axis]) - margin[axis]) for axis in (0, 1)]
    far = [min(stored[axis], math.ceil(high[axis] / scale[axis]) + margin[axis]) for axis in (0, 1)]
    region = np.ascontiguousarray(sample.image[near[1] : far[1], near[0] : far[0]])
    window = (
        max(0.0, low[0] / scale[0] - near[0]),
        max(0.0, low[1] / scale[1] - near[1]),
        min(float(far[0] - near[0]), high[0] / scale[0] - near[0]),
        min(float(far[1] - near[1]), high[1] / scale[1] - near[1]),
    )
    target = (high[0] - low[0], high[1] - low[1])
    image = np.asarray(Image.fromarray(region).resize(target, Image.Resampling.BILINEAR, box=window))
    boxes = sample.boxes * np.array([*scale, *scale], dtype=np.float32) - np.array([*low, *low], dtype=np.float32)
    return _keep_visible(replace(sample, image=image, boxes=boxes), min_visible)


def _keep_visible(sample: Sample, min_visible: float) -> Sample:
    """Cut boxes at the picture's border; drop those of which too little is left."""
    height, width = sample.image.shape[:2]
    inside = np.clip(sample.boxes, 0, np.array([width, height, width, height], dtype=np.float32))
    sides = inside[:, 2:] - inside[:, :2]
    whole = np.prod(sample.boxes[:, 2:] - sample.boxes[:, :2], axis=1)
    kept = (sides >= MIN_SIDE_PX).all(axis=1) & (np.prod(sides, axis=1) >= min_visible * whole * (1 - 1e-5))
    return replace(sample, boxes=inside[kept], labels=sample.labels[kept])


def pad(sample: Sample, size: tuple[int, int], corner: tuple[int, int], pad_value: int) -> Sample:
    """Put the picture at `corner` (x, y) of a canvas of `size` (width, height) filled with `pad_value`."""
    height, width = sample.image.shape[:2]
    if (width, height) == size:
        return sample
    canvas = np.full((size[1], size[0], 3), pad_value, dtype=np.uint8)
    canvas[corner[1] : corner[1] + height, corner[0] : corner[0] + width] = sample.image
    return replace(sample, image=canvas, boxes=sample.boxes + np.array([*corner, *corner], dtype=np.float32))


def mosaic(
    sources: list[Sample],
    size: tuple[int, int],
    centre: tuple[int, int],
    part: Callable[[Sample, tuple[int, int], Generator], Sample],
    rng: Generator,
) -> Sample:
    """Join four pictures to `size` around `centre` (x, y); `part` makes each one's view of a (width, height)."""
    width, height = size
    canvas = np.empty((height, width, 3), dtype=np.uint8)
    boxes, labels = [], []
    for quarter, source in enumerate(sources):
        left, right = (0, centre[0]) if quarter % 2 == 0 else (centre[0], width)
        top, bottom = (0, centre[1]) if quarter < 2 else (centre[1], height)
        view = part(source, (right - left, bottom - top), rng)
        canvas[top:bottom, left:right] = view.image
        boxes.append(view.boxes + np.array([left, top, left, top], dtype=np.float32))
        labels.append(view.labels)
    return Sample(canvas, np.concatenate(boxes), np.concatenate(labels), sources[0].image_id)


def flip_and_turn(sample: Sample, flip: bool, quarter_turns: int) -> Sample:
    """Mirror left to right if `flip`, then turn counter-clockwise by `quarter_turns` x 90 degrees."""
    image, boxes = sample.image, sample.boxes
    if flip:
        image = image[:, ::-1]
        boxes = np.stack([image.shape[1] - boxes[:, 2], boxes[:, 1], image.shape[1] - boxes[:, 0], boxes[:, 3]], axis=1)
    for _ in range(quarter_turns % 4):  # (x, y) goes to (y, width - x)
        width = image.shape[1]
        image = np.rot90(image)
        boxes = np.stack([boxes[:, 1], width - boxes[:, 2], boxes[:, 3], width - boxes[:, 0]], axis=1)
    return replace(sample, image=np.ascontiguousarray(image), boxes=boxes)


def photometric(image: NDArray[np.uint8], config: AugmentConfig, rng: Generator) -> NDArray[np.uint8]:
    """Change the look of a picture (H, W, 3), in this order.

    Channels change places; colour gain per channel, contrast around 128 and brightness, all three as one
    table per channel; loss of colour; noise.
    """
    if rng.random() < config.channel_shuffle:
        image = image[:, :, rng.permutation(3)]
    gains = 1 + rng.uniform(-config.colour, config.colour, size=3)
    contrast = 1 + rng.uniform(-config.contrast, config.contrast)
    shift = rng.uniform(-config.brightness, config.brightness)
    levels = np.arange(256)[:, None] * gains  # (256, 3)
    table = np.clip(np.rint((levels - 128) * contrast + 128 + shift), 0, 255).astype(np.uint8)
    image = np.stack([table[:, channel][image[:, :, channel]] for channel in range(3)], axis=2)
    if rng.random() < config.grey:
        luminance = np.asarray(Image.fromarray(image).convert("L"))
        image = np.repeat(luminance[:, :, None], 3, axis=2)
    if config.noise > 0:
        steps = np.rint(NORMAL_QUANTILES * rng.uniform(0, config.noise)).astype(np.int16)  # (256,)
        noise = steps[rng.integers(256, size=image.shape, dtype=np.uint8)]
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
    return image
