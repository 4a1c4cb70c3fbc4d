"""Writes the layout that training reads: images/ and instances_<split>.json in COCO format, whole or not at all."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from training.data.convert.boxes import DECIMALS, Difficult, usable_boxes
from training.data.convert.chips import Chipping, Window, cut_boxes
from training.data.convert.pictures import open_picture, stored_size
from training.data.convert.records import Box, Dataset, Picture, Size
from training.data.convert.report import Report
from training.data.convert.sources import check_unique
from training.data.files import UNREADABLE


@dataclass(frozen=True)
class Options:
    """How to write."""

    link: Literal["hard", "copy"] = "hard"
    """Hard links cost no space and fall back to copies between disks; a copy may be edited freely."""
    difficult: Difficult = "crowd"
    """What becomes of boxes marked difficult, ignored or crowd."""
    chipping: Chipping | None = None
    """How large pictures are cut; None leaves them whole."""
    max_pixels: int = 178_000_000
    """Larger pictures are refused; Pillow's own limit is about this."""


def write_dataset(dataset: Dataset, out: Path, options: Options, report: Report) -> None:
    """Check every picture and box, and write them to `out`.

    Raises:
        FileExistsError: `out` is a file or a folder that is not empty.
        ValueError: something in the source is malformed; the message says where, and nothing is written.
    """
    check_unique(dataset.splits)
    with _whole_or_nothing(out) as folder:
        (folder / "images").mkdir()
        total = sum(len(pictures) for pictures in dataset.splits.values())
        with tqdm(total=total, desc="convert", unit="picture") as bar:
            for split, pictures in dataset.splits.items():
                coco = _Coco(dataset.classes, split, report)
                for picture in pictures:
                    _write_picture(picture, dataset, coco, folder / "images", options, report)
                    bar.update()
                (folder / f"instances_{split}.json").write_text(json.dumps(coco.data), encoding="utf-8")


class _Coco:
    """One annotation file in the making; ids count from 1."""

    def __init__(self, classes: tuple[str, ...], split: str, report: Report) -> None:
        self.split = split
        self.report = report
        self.all_labels = range(len(classes))
        categories = [{"id": label, "name": name} for label, name in enumerate(classes, start=1)]
        self.data: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": categories}

    def add(self, name: str, size: Size, boxes: list[Box]) -> None:
        """Add a picture with its boxes; a crowd box of every class becomes one per class."""
        image_id = len(self.data["images"]) + 1
        self.data["images"].append({"id": image_id, "file_name": name, "width": size[0], "height": size[1]})
        self.report.pictures[self.split] += 1
        self.report.empty[self.split] += all(box.crowd for box in boxes)
        for box in boxes:
            for label in self.all_labels if box.label is None else (box.label,):
                self._add_box(image_id, label, box)

    def _add_box(self, image_id: int, label: int, box: Box) -> None:
        x1, y1, x2, y2 = box.corners
        width, height = round(x2 - x1, DECIMALS), round(y2 - y1, DECIMALS)
        entry = {"id": len(self.data["annotations"]) + 1, "image_id": image_id, "category_id": label + 1}
        shape = {"bbox": [round(x1, DECIMALS), round(y1, DECIMALS), width, height], "area": round(width * height, 3)}
        self.data["annotations"].append({**entry, **shape, "iscrowd": int(box.crowd)})
        if box.crowd:
            self.report.crowd[self.split] += 1
        else:
            self.report.boxes[self.split, label] += 1


def _write_picture(
    picture: Picture, dataset: Dataset, coco: _Coco, folder: Path, options: Options, report: Report
) -> None:
    """Link, copy or cut one picture and add what it shows."""
    size = stored_size(picture.path, options.max_pixels, report)
    boxes = usable_boxes(picture.read(size), size, dataset, options.difficult, report)
    if options.chipping is None or max(size) <= options.chipping.side:
        _place(picture.path, folder / picture.name, options.link)
        coco.add(picture.name, size, boxes)
        return
    chips = cut_boxes(options.chipping.windows(size), boxes, options.chipping.min_visible, report)
    stem = Path(picture.name).stem
    names = [f"{stem}__{window[0]}__{window[1]}.png" for window, _ in chips]
    _cut(picture.path, [(folder / name, window) for name, (window, _) in zip(names, chips, strict=True)])
    for name, ((left, top, right, bottom), found) in zip(names, chips, strict=True):
        coco.add(name, (right - left, bottom - top), found)


def _cut(path: Path, chips: list[tuple[Path, Window]]) -> None:
    """Save parts of a picture as PNG, which loses nothing; the picture is decoded once."""
    with open_picture(path) as picture:
        try:
            picture.load()
        except UNREADABLE as error:
            raise ValueError(
                f"{path} cannot be decoded ({error}); restore it, or remove it with its annotations"
            ) from error
        for target, window in chips:
            _refuse_existing(target, path)
            picture.crop(window).convert("RGB").save(target)


def _place(path: Path, target: Path, link: Literal["hard", "copy"]) -> None:
    """Link or copy one picture."""
    _refuse_existing(target, path)
    source = path.resolve()  # a link to a symbolic link would be one itself
    if link == "hard":
        try:
            os.link(source, target)
            return
        except OSError:  # another disk, or a file system without hard links
            pass
    shutil.copyfile(source, target)


def _refuse_existing(target: Path, path: Path) -> None:
    """Two pictures may come to one name when chips are named."""
    if target.exists():
        raise FileExistsError(f"{path}: there is already a picture {target.name}; --prefix or another name helps")


@contextmanager
def _whole_or_nothing(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its name at the end, or is removed if anything fails."""
    out = out.resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is not an empty folder; choose another one, nothing is overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    partial.mkdir()
    try:
        yield partial
        os.replace(partial, out)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
