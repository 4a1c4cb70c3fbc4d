"""COCO: boxes in pixels of the picture, whose annotations also serve as results."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from service.detections import Detections
from service.format_schemas import CocoAnnotation, CocoImage
from service.formats import coco_annotation, coco_categories
from service.scenes.scene_info import SceneInfo
from service.scenes.writers.documents import SceneCoco, SceneNote, write_items
from service.scenes.writers.rows import object_rows


def write(path: Path, info: SceneInfo, batches: Iterable[Detections]) -> None:
    """Write a data set of one picture."""
    document = SceneCoco(
        info=SceneNote.of(info),
        images=[CocoImage(id=1, file_name=info.file_name, width=info.width, height=info.height)],
        categories=coco_categories(info.classes),
    )
    write_items(path, document, _annotations(batches))


def _annotations(batches: Iterable[Detections]) -> Iterator[CocoAnnotation]:
    number = 0
    for batch in batches:
        for row in object_rows(batch):
            number += 1
            yield coco_annotation(number, row.box, row.class_id, row.score)
