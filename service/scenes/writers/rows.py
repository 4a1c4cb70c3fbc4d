"""Objects one by one, rounded as the answers of POST /detect are."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from service.detections import Detections
from service.format_schemas import Box

PIXEL_DIGITS, SCORE_DIGITS = 2, 4


class ObjectRow(NamedTuple):
    """One object; the box is xyxy in native pixels."""

    class_id: int
    score: float
    box: Box


def object_rows(batch: Detections) -> Iterator[ObjectRow]:
    """The objects of a batch in their order."""
    # In float64: 0.1 as a float32 would be written as 0.10000000149.
    boxes = np.round(batch.boxes.astype(np.float64), PIXEL_DIGITS).tolist()
    scores = np.round(batch.scores.astype(np.float64), SCORE_DIGITS).tolist()
    for label, score, (x1, y1, x2, y2) in zip(batch.labels.tolist(), scores, boxes, strict=True):
        yield ObjectRow(label, score, (x1, y1, x2, y2))
