"""What was found in a scene, as a file for other tools. Objects stream through: any number, in little memory.

The same objects give the same file, byte for byte, however they came in batches: no file holds a time.

Dimension letters: M objects.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np

from service.detections import DetectionOptions, Detections
from service.letterbox import FloatArray
from service.scenes.kinds import ResultKind
from service.scenes.scene_info import SceneInfo
from service.scenes.whole_file import whole_file
from service.scenes.writers import coco, csv_table, geojson, geopackage

_BATCH = 20_000  # objects written at once


class Found(Protocol):
    """Objects in pixels of the scaled scene, such as `service.merging.Merged`."""

    @property
    def boxes(self) -> FloatArray:
        """(M, 4) xyxy."""
        ...

    @property
    def scores(self) -> FloatArray:
        """(M,)."""
        ...

    @property
    def labels(self) -> np.ndarray:
        """(M,) class ids."""
        ...


def write_result(
    kind: ResultKind, path: Path, info: SceneInfo, batches: Iterable[Found], options: DetectionOptions
) -> int:
    """Write what counts as a detection; returns how many there are.

    Args:
        path: appears when it is whole; an older file under this name is replaced.
        batches: in the order in which they are written.
        options: its thresholds and classes hold; a scene has no longest list, and merging has taken the doubles.
    Raises:
        StorageError: the disk is full, or the folder cannot be written.
        InvalidParameterError: the format cannot hold this scene.
    """
    count = 0

    def counted() -> Iterator[Detections]:
        nonlocal count
        for batch in _rebatch(select_objects(each, info, options) for each in batches):
            count += len(batch)
            yield batch

    with whole_file(path) as partial:
        match kind:
            case "geojson":
                geojson.write(partial, info, counted())
            case "gpkg":
                geopackage.write(partial, info, counted())
            case "coco":
                coco.write(partial, info, counted())
            case "csv":
                csv_table.write(partial, info, counted())
    return count


def select_objects(found: Found, info: SceneInfo, options: DetectionOptions) -> Detections:
    """The wanted ones in native pixels, clipped to the scene; what lies wholly beside it is dropped."""
    limit = np.array([info.width, info.height] * 2, dtype=np.float64)
    boxes = np.clip(found.boxes.astype(np.float64) / info.scale, 0, limit).astype(np.float32)
    wanted = found.scores > options.thresholds[found.labels]
    wanted &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    if options.classes is not None:
        wanted &= np.isin(found.labels, sorted(options.classes))
    return Detections(boxes, found.scores, found.labels.astype(np.int64)).take(wanted)


def _rebatch(batches: Iterable[Detections]) -> Iterator[Detections]:
    """The same objects in batches of `_BATCH`: opening a file for three objects would cost more than they do."""
    waiting: list[Detections] = []
    held = 0
    for batch in batches:
        waiting.append(batch)
        held += len(batch)
        if held >= _BATCH:
            joined = _join(waiting)
            whole = held - held % _BATCH
            for start in range(0, whole, _BATCH):
                yield joined.take(np.arange(start, start + _BATCH))
            waiting, held = [joined.take(np.arange(whole, held))], held - whole
    if held:
        yield _join(waiting)


def _join(batches: list[Detections]) -> Detections:
    return Detections(
        np.concatenate([batch.boxes for batch in batches]),
        np.concatenate([batch.scores for batch in batches]),
        np.concatenate([batch.labels for batch in batches]),
    )
