"""From the values of a file (8 or 16 bits, floats, palette numbers) to the 8-bit RGB that the model sees."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameterError

Values = NDArray[Any]
Valid = NDArray[np.bool_]
_AUTO_PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True)
class ValueRange:
    """The values that become 0 and 255; what lies outside is clipped."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (np.isfinite(self.low) and np.isfinite(self.high) and self.low < self.high):
            raise InvalidParameterError(
                f"scaling: expected a lower and a higher value, found {self.low:g} and {self.high:g}"
            )


@dataclass(frozen=True)
class Percentiles:
    """The shares of all pixels, in percent, whose values become 0 and 255, for each band by itself."""

    lower: float
    upper: float

    def __post_init__(self) -> None:
        if not 0 <= self.lower < self.upper <= 100:
            raise InvalidParameterError(
                f"scaling: expected percentiles from 0 to 100, the lower first, found {self.lower:g} and {self.upper:g}"
            )


Scaling = Literal["auto", "none"] | ValueRange | Percentiles
"""`auto` leaves 8 bits as they are and takes the 2nd and 98th percentile of anything else; `none` clips to 0..255."""


@dataclass(frozen=True)
class Stretch:
    """Maps each band's values linearly so that `low` becomes 0 and `high` 255."""

    low: tuple[float, float, float]
    high: tuple[float, float, float]

    def to_rgb(self, values: Values, valid: Valid) -> tuple[NDArray[np.uint8], Valid]:
        """Map (3, h, w) values and (h, w) flags; returns (h, w, 3), and the flags without what is no number."""
        bands = values.transpose(1, 2, 0)  # (3, h, w) -> (h, w, 3)
        if values.dtype == np.uint8 and self == PLAIN:
            return bands, valid
        if values.dtype.kind == "f":
            finite = np.isfinite(bands)
            valid = valid & finite.all(axis=2)
            bands = np.where(finite, bands, 0)
        precision = np.float64 if values.dtype == np.float64 else np.float32
        low = np.array(self.low, precision)
        span = np.array(self.high, precision) - low
        factor = np.divide(255, span, out=np.zeros_like(span), where=span != 0)
        return np.rint(np.clip((bands - low) * factor, 0, 255)).astype(np.uint8), valid


PLAIN = Stretch((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True, eq=False)
class Palette:
    """Looks the one band's values up in a table of (n, 4) colours, the fourth being opacity."""

    colours: NDArray[np.uint8]

    def to_rgb(self, values: Values, valid: Valid) -> tuple[NDArray[np.uint8], Valid]:
        """Map (1, h, w) values and (h, w) flags; returns (h, w, 3), and the flags without what is transparent."""
        rgba = self.colours[np.clip(values[0], 0, len(self.colours) - 1)]  # (h, w, 4)
        return rgba[..., :3], valid & (rgba[..., 3] > 0)


def choose_stretch(
    scaling: Scaling, dtype: str, bits: int | None, sample: Callable[[], tuple[Values, Valid]]
) -> tuple[Stretch, str]:
    """How the values of a file are mapped, with a note where they are changed.

    Args:
        bits: that are in use, where the file says so.
        sample: gives (3, m) values of pixels from all over the file, and (m,) flags; called only where needed.
    """
    if scaling == "none":
        return PLAIN, ""
    if isinstance(scaling, ValueRange):
        return _even(scaling.low, scaling.high), ""
    if scaling == "auto" and dtype == "uint8":
        return _even(0.0, 2.0 ** min(bits or 8, 8) - 1), ""
    lower, upper = (scaling.lower, scaling.upper) if isinstance(scaling, Percentiles) else _AUTO_PERCENTILES
    values, valid = sample()
    known = values[:, valid & np.isfinite(values).all(axis=0)].astype(np.float64)
    if not known.size:
        return PLAIN, "no valid pixel was found to measure the range of values on"
    low, high = np.percentile(known, (lower, upper), axis=1).tolist()
    ranges = ", ".join(f"{first:g} to {last:g}" for first, last in zip(low, high, strict=True))
    note = f"{dtype} values from percentile {lower:g} to {upper:g} of each band ({ranges}) were mapped to 8 bits"
    return Stretch(tuple(low), tuple(high)), note


def _even(low: float, high: float) -> Stretch:
    return Stretch((low, low, low), (high, high, high))
