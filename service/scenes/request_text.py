"""What callers of the service and of the command line write, as a `SceneRequest` takes it."""

from math import inf
from typing import Protocol

from service.errors import InvalidParameterError
from service.manifest import Manifest
from service.raster_scaling import Percentiles, Scaling, ValueRange
from service.scenes.recipe import Resolution, SceneRequest


class RequestText(Protocol):
    """Options of a scene as they are written; both `DetectOptions` and `SceneQuery` have them."""

    @property
    def bands(self) -> str | None: ...

    @property
    def scaling(self) -> str: ...

    @property
    def resolution(self) -> str: ...

    @property
    def overlap(self) -> int | None: ...


def read_request(text: RequestText, manifest: Manifest, heat: bool) -> SceneRequest:
    """The request that these options make of a model. Raises InvalidParameterError."""
    return SceneRequest.for_model(
        manifest,
        bands=None if text.bands is None else _bands(text.bands),
        scaling=_scaling(text.scaling),
        resolution=_resolution(text.resolution),
        overlap=text.overlap,
        heat=heat,
    )


def _bands(text: str) -> tuple[int, int, int]:
    """Three numbers from 1."""
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise InvalidParameterError(f"bands: {text!r} is not three bands; write 3,2,1") from None
    return red, green, blue


def _scaling(text: str) -> Scaling:
    """`auto`, `none`, two values or two percentiles."""
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


def _resolution(text: str) -> float | Resolution:
    """`model`, `file` or centimetres."""
    if text == "model" or text == "file":
        return text
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < inf:
        raise InvalidParameterError(f"resolution: {text!r} is none; write model, file, or centimetres such as 30")
    return value
