"""Scenes of any size, read in windows as the 8-bit RGB that the model sees.

Native pixels are the file's as a person sees them (EXIF applied); scaled pixels are native ones times `Raster.scale`,
which brings the picture to the ground resolution that the model was trained on. Memory is bounded by the window, one
block row of the file and GDAL's cache, whatever the size of the scene; the same window always gives the same bytes.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import InvalidParameterError, UndecodableImageError
from service.georeference import Georeference, read_georeference
from service.picture_orientation import Orientation, PixelWindow
from service.raster_bands import choose_colours
from service.raster_checks import RasterLimits, check_rows, gdal, is_in_rows, open_dataset, weigh
from service.raster_layer import BandReader, Layer, RowKeeper, choose_level
from service.raster_scaling import Palette, Scaling, Valid

_SMALLEST_SCALE, _LARGEST_SCALE = 1 / 32, 4.0
_AS_GOOD_AS_ONE = 0.05  # a picture this near to the wanted resolution is left sharp


@dataclass(frozen=True)
class RasterOptions:
    """How the values of a scene become what the model sees.

    Attributes:
        bands: for red, green and blue, from 1; None takes those that the file calls so, else its first three, else its
            only one as grey.
        scaling: to 8 bits.
        resolution_cm: ground that a pixel shall show; None leaves the pixels as they are.
    """

    bands: tuple[int, int, int] | None = None
    scaling: Scaling = "auto"
    resolution_cm: float | None = None


@dataclass(frozen=True)
class RasterTile:
    """One window: (height, width, 3) pixels, and whether any of them holds data."""

    pixels: NDArray[np.uint8]
    valid: bool


class Raster:
    """An open scene. It belongs to one thread; open the file once more for another.

    Attributes:
        width, height: in native pixels.
        scale: scaled pixels per native pixel.
        scaled_width, scaled_height: in scaled pixels; a last part of one is left away.
        georeference: of native pixels.
        notes: what the caller should know.
    """

    def __init__(
        self,
        layer: Layer | RowKeeper,
        orientation: Orientation,
        size: tuple[int, int],
        scale: float,
        pad_value: int,
        georeference: Georeference | None,
        notes: tuple[str, ...],
    ) -> None:
        self._layer, self._orientation, self._pad_value = layer, orientation, pad_value
        self.width, self.height = size
        self.scale, self.georeference, self.notes = scale, georeference, notes
        self.scaled_width = max(1, int(self.width * scale + 1e-6))
        self.scaled_height = max(1, int(self.height * scale + 1e-6))
        self._damage: str | None = None

    def read(self, left: int, top: int, width: int, height: int) -> RasterTile:
        """Read a window of scaled pixels, padded where the scene has ended or holds no data.

        Raises:
            UndecodableImageError: the file is damaged there.
            OutOfMemoryError.
        """
        pixels = np.full((height, width, 3), self._pad_value, dtype=np.uint8)
        x1, x2 = max(0, left), min(left + width, self.scaled_width)
        y1, y2 = max(0, top), min(top + height, self.scaled_height)
        if x1 >= x2 or y1 >= y2:
            return RasterTile(pixels, False)
        if self._damage:  # decoders report some damage once, and make up pixels when asked again
            raise UndecodableImageError(self._damage)
        try:
            part, valid = self._part(x1, y1, x2, y2) if self.scale == 1 else self._resized_part(x1, y1, x2, y2)
        except UndecodableImageError as error:
            self._damage = str(error)
            raise
        pixels[y1 - top : y2 - top, x1 - left : x2 - left] = part
        return RasterTile(pixels, bool(valid.any()))

    def _part(self, x1: int, y1: int, x2: int, y2: int) -> tuple[NDArray[np.uint8], Valid]:
        """Pixels (h, w, 3) and flags (h, w) of a part of the layer as shown; padding where no data is."""
        orientation = self._orientation
        shown_size = orientation.shown_size(self._layer.width, self._layer.height)
        window = orientation.stored_window(PixelWindow(x1, y1, x2 - x1, y2 - y1), *shown_size)
        pixels, valid = self._layer.read(window)
        return orientation.show(pixels), orientation.show(valid)

    def _resized_part(self, x1: int, y1: int, x2: int, y2: int) -> tuple[NDArray[np.uint8], Valid]:
        """The same of scaled pixels; what lies around is read too, so that windows agree where they overlap."""
        shown_width, shown_height = self._orientation.shown_size(self._layer.width, self._layer.height)
        step_x, step_y = shown_width / (self.width * self.scale), shown_height / (self.height * self.scale)
        edges = np.array([x1 * step_x, y1 * step_y, x2 * step_x, y2 * step_y])  # in pixels of the layer
        reach = int(max(1.0, step_x, step_y)) + 2  # the bilinear filter's
        first = np.maximum(0, np.floor(edges[:2]).astype(int) - reach)
        last = np.minimum((shown_width, shown_height), np.ceil(edges[2:]).astype(int) + reach)
        rgb, valid = self._part(int(first[0]), int(first[1]), int(last[0]), int(last[1]))
        box = np.clip(edges - (*first, *first), 0, (*(last - first), *(last - first)))
        resized = [
            np.asarray(Image.fromarray(layer).resize((x2 - x1, y2 - y1), Image.Resampling.BILINEAR, tuple(box)))
            for layer in (np.ascontiguousarray(rgb), valid.astype(np.uint8) * 255)
        ]
        return resized[0], resized[1] > 127


@contextmanager
def open_raster(
    path: Path, options: RasterOptions, pad_value: int, limits: RasterLimits | None = None, side: int | None = None
) -> Iterator[Raster]:
    """Open a TIFF, JPEG or PNG, having weighed its claims; nothing beside the file is read, and nothing is fetched.

    Args:
        pad_value: stands where there is no data.
        side: shrinks the picture until no side is longer, whatever its resolution: for a look at the whole.
    Raises:
        UndecodableImageError, UnsupportedTypeError, PictureTooLargeError, InvalidParameterError, OutOfMemoryError.
    """
    path, limits = path.absolute(), limits or RasterLimits()
    driver, header, notes = weigh(path, limits)
    orientation = Orientation.of_exif(header.orientation)
    with ExitStack() as opened:
        dataset = opened.enter_context(open_dataset(path, driver, limits))
        in_rows, needs_all = is_in_rows(dataset), orientation.reorders_rows or header.whole
        if in_rows:
            check_rows(dataset, needs_all, limits)
        with gdal(path):
            georeference, place_notes = read_georeference(dataset, orientation)
            size = orientation.shown_size(dataset.width, dataset.height)
            if side is None:
                scale, scale_note = _choose_scale(options.resolution_cm, georeference, size)
            else:
                scale, scale_note = min(1.0, side / max(size)), ""
            bands, colours, colour_note = choose_colours(dataset, path, options.bands, options.scaling)
            level, reduction = choose_level(dataset, scale)
        if level is not None:
            dataset = opened.enter_context(open_dataset(path, driver, limits, level))
        reader = BandReader(dataset, path, bands, reduction, thinned=isinstance(colours, Palette))
        layer = Layer(reader, colours, pad_value)
        if in_rows:
            layer = RowKeeper(layer, keeps_all=orientation.reorders_rows)
        notes = tuple(note for note in (*notes, *place_notes, scale_note, colour_note) if note)
        yield Raster(layer, orientation, size, scale, pad_value, georeference, notes)


def _choose_scale(
    wanted_cm: float | None, georeference: Georeference | None, size: tuple[int, int]
) -> tuple[float, str]:
    """Scaled pixels per native one, with a note where the picture is resized or its resolution is unknown.

    Raises:
        InvalidParameterError: the two resolutions are too far apart.
    """
    if wanted_cm is None:
        return 1.0, ""
    if georeference is None:
        return 1.0, f"the ground resolution is unknown; it is taken to be the wanted {wanted_cm:g} cm a pixel"
    found_cm = georeference.ground_resolution_cm(*size)
    scale = found_cm / wanted_cm
    if abs(scale - 1) <= _AS_GOOD_AS_ONE:
        return 1.0, ""
    if not _SMALLEST_SCALE <= scale <= _LARGEST_SCALE:
        raise InvalidParameterError(
            f"resolution: the picture shows {found_cm:.3g} cm of ground a pixel and {wanted_cm:g} cm are wanted; "
            f"it can be resized by 1/{1 / _SMALLEST_SCALE:g} to {_LARGEST_SCALE:g}, not by {scale:.3g}. "
            "Resample it first with `gdalwarp -tr`, or take its pixels as they are with resolution=file"
        )
    return scale, f"resized by {scale:.4g}, from {found_cm:.3g} to {wanted_cm:g} cm of ground a pixel"
