"""What a result says of the scene that it is about, and where its objects lie on the ground."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import InvalidParameterError
from service.georeference import Georeference
from service.letterbox import FloatArray
from service.scenes.recipe import Scene, SceneModel
from service.schemas import ModelName

Points = NDArray[np.float64]


@dataclass(frozen=True)
class SceneInfo:
    """A scene as its results need it.

    Attributes:
        file_name: of the picture, without folders.
        width, height: in native pixels.
        scale: scaled pixels, which the model sees, per native pixel.
        georeference: None where the file says nothing of the ground.
        classes: names in the order of their ids.
        notes: what was done to the picture that its owner should know.
    """

    file_name: str
    width: int
    height: int
    scale: float
    georeference: Georeference | None
    classes: tuple[str, ...]
    model: ModelName
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, scene: Scene, file_name: str, model: SceneModel) -> "SceneInfo":
        """What a scene that was prepared for a model says of itself."""
        manifest = model.manifest
        name = ModelName(name=manifest.name, version=manifest.version, sha256=model.sha256)
        ground = scene.georeference
        return cls(file_name, scene.width, scene.height, scene.scale, ground, manifest.classes, name, scene.notes)


def rings_in_crs(boxes: FloatArray, georeference: Georeference | None) -> Points:
    """(M, 4) native xyxy to closed rings (M, 5, 2) in the scene's own coordinate system.

    Without one they lie in a plane of pixels, y negative downwards, where QGIS lays a picture that has none either.
    """
    if georeference is None:
        return _rings(_corners(boxes) * (1.0, -1.0) + 0.0)  # adding 0 makes 0 of -0
    return _rings(_transformed(georeference.to_crs(_points(boxes))))


def rings_in_degrees(boxes: FloatArray, georeference: Georeference) -> Points:
    """(M, 4) native xyxy to closed rings (M, 5, 2) of longitude and latitude on WGS 84.

    A ring across the antimeridian goes on beyond 180 degrees, rather than once around the globe.
    """
    corners = _transformed(georeference.to_lonlat(_points(boxes)))
    longitudes = corners[..., 0]
    across = np.ptp(longitudes, axis=1, keepdims=True) > 180
    corners[..., 0] = np.where(across & (longitudes < 0), longitudes + 360, longitudes)
    return _rings(corners)


def centres_in_degrees(boxes: FloatArray, georeference: Georeference) -> Points:
    """(M, 4) native xyxy to (M, 2) longitude and latitude of the centres."""
    exact = boxes.astype(np.float64)
    return _finite(georeference.to_lonlat((exact[:, :2] + exact[:, 2:]) / 2))


def _corners(boxes: FloatArray) -> Points:
    """(M, 4) xyxy to (M, 4, 2)."""
    return boxes.astype(np.float64)[:, [[0, 3], [2, 3], [2, 1], [0, 1]]]


def _points(boxes: FloatArray) -> Points:
    """(M, 4) xyxy to the corners of all, (4 M, 2)."""
    return _corners(boxes).reshape(-1, 2)


def _transformed(points: Points) -> Points:
    """(4 M, 2) to (M, 4, 2)."""
    return _finite(points).reshape(-1, 4, 2)


def _finite(points: Points) -> Points:
    if not np.isfinite(points).all():
        raise InvalidParameterError(
            "the scene's coordinate system has no place for some of its pixels: check the file's georeference, "
            "or take the format coco, which needs none"
        )
    return points


def _rings(corners: Points) -> Points:
    """(M, 4, 2) in either direction to closed, counter-clockwise (M, 5, 2)."""
    x, y = corners[..., 0], corners[..., 1]
    # Around the first corner: the shoelace formula on large coordinates loses small areas.
    x, y = x - x[:, :1], y - y[:, :1]
    clockwise = (x * np.roll(y, -1, axis=1) - np.roll(x, -1, axis=1) * y).sum(axis=1) < 0
    turned = np.where(clockwise[:, None, None], corners[:, ::-1], corners)
    return np.concatenate([turned, turned[:, :1]], axis=1)
