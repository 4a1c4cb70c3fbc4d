"""What callers of the service and of the command line write, as a `SceneRequest` takes it."""

from math import inf

from service.errors import InvalidParameterError
from service.raster_scaling import Percentiles, Scaling, ValueRange
from service.scenes.recipe import Resolution


def read_bands(text: str) -> tuple[int, int, int]:
    """Three numbers from 1. Raises InvalidParameterError."""
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise InvalidParameterError(f"bands: {text!r} is not three bands; write 3,2,1") from None
    return red, green, blue


def read_scaling(text: str) -> Scaling:
    """`auto`, `none`, two values or two percentiles. Raises InvalidParameterError."""
    if text == "auto" or text == "none":
        return text
    try:
        if text.endswith("%"):
            lower, upper = (float(part.removesuffix("%")) for part in text.split(","))
            return Percentiles(lower, upper)
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise InvalidParameterError(
            f"scaling: {text!r} is none; write auto, none, two values (0,4095) or two percentiles (2%,98%)"
        ) from None
    return ValueRange(low, high)


def read_resolution(text: str) -> float | Resolution:
    """`model`, `file` or centimetres. Raises InvalidParameterError."""
    if text == "model" or text == "file":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise InvalidParameterError(f"resolution: {text!r} is none; write model, file, or centimetres such as 30")
    return value
