"""Finds pictures and reads their headers."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from PIL import ExifTags, Image

from training.data.convert.records import Size
from training.data.convert.report import Report
from training.data.files import UNREADABLE

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def files_by_stem(folder: Path, suffixes: frozenset[str]) -> dict[str, Path]:
    """Files of a folder by name without suffix, in order of names; hidden files are passed over.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: two files differ in their suffix only, so that neither can be named by its stem.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {folder}")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem].name} differ in their suffix only; remove one")
        found[path.stem] = path
    return found


def pairs(pictures: Path, labels: Path) -> list[tuple[Path, Path]]:
    """Every picture of one folder with its `.txt` of the same stem in another.

    Raises:
        FileNotFoundError: a folder is missing, holds no picture, or a file has no partner.
    """
    of_picture, of_label = files_by_stem(pictures, SUFFIXES), files_by_stem(labels, frozenset({".txt"}))
    if not of_picture:
        raise FileNotFoundError(f"there is no picture in {pictures}")
    for stem, path in of_picture.items():
        if stem not in of_label:
            raise FileNotFoundError(
                f"{path} has no {labels / stem}.txt; make an empty one if there is nothing in the picture"
            )
    for stem, path in of_label.items():
        if stem not in of_picture:
            raise FileNotFoundError(f"{path} has no picture in {pictures}; restore the picture or remove the file")
    return [(path, of_label[stem]) for stem, path in of_picture.items()]


def flat_name(where: str, relative: str) -> str:
    """One file name for a path below the pictures' folder: a/b.jpg becomes a__b.jpg.

    Raises:
        ValueError: the path is empty or leads out of the folder.
    """
    path = PurePosixPath(relative.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise ValueError(f"{where}: picture {relative!r} is not a path below the pictures' folder; correct it")
    return "__".join(path.parts)


def stored_size(path: Path, max_pixels: int, report: Report) -> Size:
    """(width, height) from the header of a picture.

    Raises:
        ValueError: it cannot be read, or has more than `max_pixels`.
    """
    try:
        with open_picture(path) as picture:
            size = picture.size
            turned = _is_turned(picture)
    except UNREADABLE as error:
        raise ValueError(
            f"{path} cannot be read as a picture ({error}); restore it, or remove it with its annotations"
        ) from error
    if size[0] * size[1] > max_pixels:
        raise ValueError(
            f"{path} has {size[0]} x {size[1]} px, the limit is {max_pixels / 1e6:g} MP; "
            "raise it with --max-megapixels if you trust the file and have the memory"
        )
    report.remarks["pictures carry an EXIF orientation; it is not applied, boxes refer to stored pixels"] += turned
    return size


def check_size(where: str, stated: Size, stored: Size) -> None:
    """Raises ValueError if the annotations describe a picture of other sides."""
    if stated != stored:
        raise ValueError(
            f"{where}: states {stated[0]} x {stated[1]} px, the picture is stored with {stored[0]} x {stored[1]}; "
            "boxes must refer to stored pixels: correct the size, or store the picture upright"
        )


@contextmanager
def open_picture(path: Path) -> Iterator[Image.Image]:
    """An opened picture, whatever its size: the caller checks that before it decodes."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with Image.open(path) as picture:
            yield picture
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_turned(picture: Image.Image) -> bool:
    """Whether an EXIF orientation asks viewers to turn the picture."""
    if "exif" not in picture.info:  # `getexif` would decode a whole PNG to look behind its pixels
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # damaged EXIF is no concern here
        return picture.getexif().get(ExifTags.Base.Orientation, 1) != 1
