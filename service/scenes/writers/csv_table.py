"""CSV, RFC 4180: a line for each object, with the place of its centre where it is known."""

import csv
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from service.detections import Detections
from service.scenes.scene_info import SceneInfo, centres_in_degrees
from service.scenes.writers.rows import object_rows

_COLUMNS = ("label", "class_id", "score", "x1", "y1", "x2", "y2")
_PLACE = ("longitude", "latitude")
_DEGREE_DIGITS = 8


def write(path: Path, info: SceneInfo, batches: Iterable[Detections]) -> None:
    """Write a table; the columns longitude and latitude are there where the scene has a place on the ground."""
    place = info.georeference
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS if place is None else _COLUMNS + _PLACE)
        for batch in batches:
            rows = ((info.classes[row.class_id], row.class_id, row.score, *row.box) for row in object_rows(batch))
            if place is None:
                writer.writerows(rows)
                continue
            centres = np.round(centres_in_degrees(batch.boxes, place), _DEGREE_DIGITS).tolist()
            writer.writerows((*row, *centre) for row, centre in zip(rows, centres, strict=True))
