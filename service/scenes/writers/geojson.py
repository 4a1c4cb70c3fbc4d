"""GeoJSON: degrees on WGS 84 as RFC 7946 wants them, or pixels where nothing is known of the ground."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from service.detections import Detections
from service.format_schemas import PIXEL_PLANE, GeoPolygon
from service.scenes.scene_info import SceneInfo, rings_in_crs, rings_in_degrees
from service.scenes.writers.documents import SceneCollection, SceneFeature, SceneNote, SceneProperties, write_items
from service.scenes.writers.rows import object_rows

_DEGREES = "longitude and latitude on WGS 84, in degrees"
_DEGREE_DIGITS, _PIXEL_DIGITS = 8, 2  # a millimetre on the ground: a picture from a drone may have pixels of 5 mm


def write(path: Path, info: SceneInfo, batches: Iterable[Detections]) -> None:
    """Write every object as a polygon."""
    system = PIXEL_PLANE if info.georeference is None else _DEGREES
    document = SceneCollection(coordinate_system=system, scene=SceneNote.of(info))
    write_items(path, document, _features(info, batches))


def _features(info: SceneInfo, batches: Iterable[Detections]) -> Iterator[SceneFeature]:
    for batch in batches:
        if info.georeference is None:
            rings = np.round(rings_in_crs(batch.boxes, None), _PIXEL_DIGITS)
        else:
            rings = np.round(rings_in_degrees(batch.boxes, info.georeference), _DEGREE_DIGITS)
        for ring, row in zip(rings.tolist(), object_rows(batch), strict=True):
            yield SceneFeature(
                geometry=GeoPolygon(coordinates=([(x, y) for x, y in ring],)),
                properties=SceneProperties(
                    label=info.classes[row.class_id], class_id=row.class_id, score=row.score, box=row.box
                ),
            )
