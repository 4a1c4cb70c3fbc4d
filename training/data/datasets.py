"""COCO-format pictures in memory.

Boxes of COCO files refer to pixels as they are stored, so an EXIF orientation is *not* applied here (the
service, whose pictures come without annotations, does apply it). A picture that its annotations describe with
other sides than the file has is an error: its boxes would lie somewhere else.
"""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.data.canvas import fitted_size
from training.data.coco import Entry, Report, read_coco, usable_boxes
from training.data.files import UNREADABLE, locate, read_picture
from training.data.samples import Sample


class CocoDataset:
    """The pictures of one COCO annotation file, resized once and kept in memory as far as the budget goes.

    Corrupt pictures are skipped with a warning that names them: when the dataset is built if the header is
    bad, later if only the pixels are; then the next good picture takes the place. Boxes are clipped to the
    picture; degenerate, too small and crowd boxes are dropped. `report` counts all of it.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        classes: tuple[str, ...],
        size: int | None,
        min_box_px: float = 0.0,
        cache_bytes: int = 2 * 1024**3,
    ) -> None:
        """Read the annotations and the header of every picture.

        Args:
            images: folder of the pictures.
            annotations: COCO file.
            classes: names in label order; a category that is not among them is an error.
            size: longest side in pixels after the one resize, up or down; None leaves pictures as stored.
            min_box_px: boxes with a side below this after resizing are dropped.
            cache_bytes: decoded pictures are kept up to this many bytes; the rest is read again each time.
        Raises:
            FileNotFoundError: a picture or the annotation file is missing.
            ValueError: the annotations are malformed, contradict a picture, or leave no picture to use.
        """
        self.size = size
        self.classes = classes
        self.report = Report()
        self.paths: list[Path] = []
        self._boxes: list[tuple[NDArray[np.float32], NDArray[np.int64]]] = []
        self._ids: list[int] = []
        self._cache: dict[int, NDArray[np.uint8]] = {}
        self._cache_left = cache_bytes
        self._undecodable: set[int] = set()
        for entry in read_coco(annotations, classes, self.report):
            self._add(entry, images, min_box_px)
        self.report.images = len(self.paths)
        if not self.paths:
            raise ValueError(f"{annotations} leaves no picture to use")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        """Picture `index`, or the next one that can be decoded. Raises ValueError if none can."""
        if not 0 <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        for candidate in ((index + step) % len(self) for step in range(len(self))):
            if (image := self._image(candidate)) is not None:
                boxes, labels = self._boxes[candidate]
                return Sample(image, boxes, labels, self._ids[candidate])
        raise ValueError(f"none of the {len(self)} pictures beside {self.paths[index]} can be decoded")

    def path_of(self, image_id: int) -> Path:
        """The file of a picture, by its id in the annotations."""
        return self.paths[self._ids.index(image_id)]

    def preload(self) -> None:
        """Fill the cache now, so that worker processes forked later share it."""
        for index in range(len(self)):
            if self._image(index) is not None and index not in self._cache:
                return  # the budget is spent

    def _add(self, entry: Entry, images: Path, min_box_px: float) -> None:
        """Check one picture's header and take over its boxes; skip it with a warning if it is corrupt."""
        path = locate(images, entry.file_name)
        try:
            with Image.open(path) as picture:
                stored = picture.size
        except Image.DecompressionBombError as error:
            raise ValueError(f"{path}: {error}; cut it into smaller pictures") from error
        except UNREADABLE as error:
            self.report.corrupt += 1
            warnings.warn(f"skipped corrupt picture {path}: {error}", stacklevel=3)
            return
        if entry.size not in (None, stored):
            raise ValueError(f"{path} has {stored} px (width, height), its annotations say {entry.size}")
        resized = stored if self.size is None else fitted_size(stored, self.size)
        self.paths.append(path)
        self._ids.append(entry.image_id)
        self._boxes.append(usable_boxes(entry, stored, resized, min_box_px, self.report))

    def _image(self, index: int) -> NDArray[np.uint8] | None:
        """Pixels of one picture from the cache or the file; None, with one warning, if they are corrupt."""
        if index in self._undecodable:
            return None
        if (cached := self._cache.get(index)) is not None:
            return cached
        try:
            image = read_picture(self.paths[index], self.size)
        except UNREADABLE as error:
            self._undecodable.add(index)
            self.report.corrupt += 1
            warnings.warn(f"skipped corrupt picture {self.paths[index]}: {error}", stacklevel=3)
            return None
        if image.nbytes <= self._cache_left:
            self._cache_left -= image.nbytes
            self._cache[index] = image
        return image
