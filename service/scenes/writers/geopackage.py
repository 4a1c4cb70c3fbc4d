"""GeoPackage: one layer of polygons in the scene's own coordinate system, with a spatial index."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyogrio
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError, FeatureError
from pyogrio.raw import write as write_layer

from service.detections import Detections
from service.scenes.scene_info import Points, SceneInfo, rings_in_crs
from service.scenes.writers.rows import PIXEL_DIGITS, SCORE_DIGITS

LAYER = "detections"
_OPTIONS = {
    "OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z",  # else the same objects would make another file each second
    # The file is under another name until it is whole, and is then flushed: a journal would only cost time.
    "OGR_SQLITE_JOURNAL": "OFF",
    "OGR_SQLITE_SYNCHRONOUS": "OFF",
}
_POLYGON = 3
_WKB = np.dtype(
    [("little_endian", "u1"), ("type", "<u4"), ("rings", "<u4"), ("points", "<u4"), ("ring", "<f8", (5, 2))]
)


def write(path: Path, info: SceneInfo, batches: Iterable[Detections]) -> None:
    """Write a layer `detections`; without objects it is there and empty."""
    pyogrio.set_gdal_config_options(_OPTIONS)  # of pyogrio's own GDAL, which nothing else here uses
    try:
        _append(path, info, Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64)))
        for batch in batches:
            _append(path, info, batch)
    except (DataSourceError, DataLayerError, FeatureError) as error:
        raise OSError(str(error)) from error  # the data is sound: it is the disk


def _append(path: Path, info: SceneInfo, batch: Detections) -> None:
    boxes = np.round(batch.boxes.astype(np.float64), PIXEL_DIGITS)
    place = info.georeference
    columns: dict[str, NDArray[np.generic]] = {
        "label": np.array(info.classes, dtype=object)[batch.labels],
        "class_id": batch.labels.astype(np.int32),
        "score": np.round(batch.scores.astype(np.float64), SCORE_DIGITS),
        **{name: boxes[:, index] for index, name in enumerate(("x1", "y1", "x2", "y2"))},
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="'crs' was not provided", category=UserWarning)  # a plain picture
        write_layer(
            path,
            geometry=polygons_to_wkb(rings_in_crs(batch.boxes, place)),
            field_data=list(columns.values()),
            fields=list(columns),
            layer=LAYER,
            driver="GPKG",
            geometry_type="Polygon",
            crs=None if place is None else place.crs_wkt,
            append=path.exists(),
        )


def polygons_to_wkb(rings: Points) -> NDArray[np.object_]:
    """(M, 5, 2) closed rings to M polygons as well-known binary (OGC 06-103r4, section 8)."""
    records = np.zeros(len(rings), dtype=_WKB)
    records["little_endian"], records["type"], records["rings"], records["points"] = 1, _POLYGON, 1, rings.shape[1]
    records["ring"] = rings
    data, size = records.tobytes(), _WKB.itemsize
    polygons = np.empty(len(rings), dtype=object)
    polygons[:] = [data[start : start + size] for start in range(0, len(data), size)]
    return polygons
