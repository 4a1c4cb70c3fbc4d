"""The eight ways in which EXIF lets a picture be stored, and the way from what is shown to what is stored."""

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from rasterio import Affine

AnyValue = TypeVar("AnyValue", bound=np.generic)


@dataclass(frozen=True)
class PixelWindow:
    """A part of a picture, in whole pixels."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class Orientation:
    """The picture as shown is the stored one, its rows and columns swapped where `swapped`, then mirrored."""

    swapped: bool = False
    mirror_x: bool = False
    mirror_y: bool = False

    @classmethod
    def of_exif(cls, value: int) -> "Orientation":
        """The orientation that EXIF and TIFF number 1 to 8; anything else is taken as upright."""
        return _OF_EXIF.get(value, UPRIGHT)

    @property
    def reorders_rows(self) -> bool:
        """Whether reading what is shown from top to bottom does not read the file from its first row on."""
        return self.swapped or self.mirror_y

    def shown_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height as shown, of what is stored in width x height px."""
        return (height, width) if self.swapped else (width, height)

    def stored_window(self, window: PixelWindow, width: int, height: int) -> PixelWindow:
        """Where a window of the shown picture (of width x height px) lies in the stored one."""
        left = width - window.left - window.width if self.mirror_x else window.left
        top = height - window.top - window.height if self.mirror_y else window.top
        if self.swapped:
            return PixelWindow(top, left, window.height, window.width)
        return PixelWindow(left, top, window.width, window.height)

    def show(self, stored: NDArray[AnyValue]) -> NDArray[AnyValue]:
        """Turn (h, w) or (h, w, 3) values as they are shown."""
        shown = stored.swapaxes(0, 1) if self.swapped else stored
        return shown[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]

    def to_stored(self, width: int, height: int) -> Affine:
        """From positions on the shown picture (of width x height px) to positions on the stored one."""
        mirrored = Affine(
            -1 if self.mirror_x else 1, 0, width if self.mirror_x else 0,
            0, -1 if self.mirror_y else 1, height if self.mirror_y else 0,
        )  # fmt: skip
        return Affine(0, 1, 0, 1, 0, 0) @ mirrored if self.swapped else mirrored


UPRIGHT = Orientation()
_OF_EXIF = {
    2: Orientation(mirror_x=True),
    3: Orientation(mirror_x=True, mirror_y=True),
    4: Orientation(mirror_y=True),
    5: Orientation(swapped=True),
    6: Orientation(swapped=True, mirror_x=True),
    7: Orientation(swapped=True, mirror_x=True, mirror_y=True),
    8: Orientation(swapped=True, mirror_y=True),
}
