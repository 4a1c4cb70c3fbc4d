"""The formats that what is found in a scene is written in."""

from typing import Literal, get_args

ResultKind = Literal["geojson", "gpkg", "coco", "csv"]
RESULT_KINDS: tuple[ResultKind, ...] = get_args(ResultKind)
SUFFIXES: dict[ResultKind, str] = {"geojson": ".geojson", "gpkg": ".gpkg", "coco": ".json", "csv": ".csv"}
MEDIA_TYPES: dict[ResultKind, str] = {
    "geojson": "application/geo+json",
    "gpkg": "application/geopackage+sqlite3",
    "coco": "application/json",
    "csv": "text/csv",
}
