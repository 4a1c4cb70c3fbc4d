"""Which bands of a file are red, green and blue, and how their values become colours."""

from pathlib import Path

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.io import DatasetReader

from service.errors import InvalidParameterError
from service.raster_layer import sample_values
from service.raster_scaling import Palette, Scaling, Stretch, choose_stretch

Bands = tuple[int, int, int]
_RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)


def choose_colours(
    dataset: DatasetReader, path: Path, bands: Bands | None, scaling: Scaling
) -> tuple[tuple[int, ...], Stretch | Palette, str]:
    """The bands to read, what makes colours of them, and a note where values are changed.

    Args:
        bands: wanted for red, green and blue; None leaves the choice to the file.
    Raises:
        InvalidParameterError: the file has not as many.
    """
    if bands is None and dataset.colorinterp[0] == ColorInterp.palette:
        return (1,), _read_palette(dataset), ""
    bands = _natural_bands(dataset) if bands is None else bands
    if not all(1 <= band <= dataset.count for band in bands):
        raise InvalidParameterError(f"bands: the file has {dataset.count}, numbered from 1; found {bands}")
    bits = dataset.tags(bands[0], ns="IMAGE_STRUCTURE").get("NBITS")
    stretch, note = choose_stretch(
        scaling,
        dataset.dtypes[bands[0] - 1],
        int(bits) if bits else None,
        lambda: sample_values(dataset, path, bands),
    )
    if dataset.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        stretch = Stretch(low=stretch.high, high=stretch.low)
    return bands, stretch, note


def _natural_bands(dataset: DatasetReader) -> Bands:
    named = dataset.colorinterp
    if all(colour in named for colour in _RGB):
        red, green, blue = (named.index(colour) + 1 for colour in _RGB)
        return red, green, blue
    pictures = [index for index, colour in enumerate(named, start=1) if colour != ColorInterp.alpha] or [1]
    if len(pictures) < 3:
        return pictures[0], pictures[0], pictures[0]
    return pictures[0], pictures[1], pictures[2]


def _read_palette(dataset: DatasetReader) -> Palette:
    table = dataset.colormap(1)
    colours = np.zeros((max(table) + 1, 4), dtype=np.uint8)
    for number, colour in table.items():
        colours[number] = colour
    return Palette(colours)
