"""What is refused of a scene before any of its pixels is read, and how GDAL is opened so that it reads one file only.

GDAL opens two hundred formats, some of which name other files or addresses. The driver follows from the first bytes,
nothing beside the file is looked at, and no claim of a header costs memory before it was weighed.
"""

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import rasterio
from rasterio._err import CPLE_BaseError, CPLE_OutOfMemoryError  # raised as they are by some calls
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader

from service.errors import OutOfMemoryError, PictureTooLargeError, UndecodableImageError, UnsupportedTypeError
from service.imaging import sniff
from service.picture_headers import PictureHeader, read_jpeg_header, read_png_header
from service.tiff_directories import TiffDirectory, read_directories

Driver = Literal["GTiff", "JPEG", "PNG"]
DTYPE_BYTES = {"uint8": 1, "int16": 2, "uint16": 2, "float32": 4, "float64": 8}
_CACHE_BYTES = 64 << 20  # two rows of 512 px blocks of a scene 20,000 px wide
_GDAL_OPTIONS = {
    "GDAL_CACHEMAX": _CACHE_BYTES,
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_PAM_ENABLED": "NO",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/nothing",
}
_OPENING = threading.Lock()  # filters of warnings are the whole process's
_RETILE = "Rewrite it with `gdal_translate -co TILED=YES -co COMPRESS=DEFLATE IN.tif OUT.tif`"


@dataclass(frozen=True)
class RasterLimits:
    """What a scene may claim.

    Attributes:
        max_pixels: width x height.
        max_block_bytes: of one tile or strip, which is always decoded whole.
        max_blocks: of one picture.
        max_claim: pixels per byte of the file, for pictures of more than `claims_from` pixels; blocks of one colour
            compress to about 800 px a byte, a sparse file claims any number.
        max_row_pixels: of a picture that is stored by rows, of which some hundreds are kept in memory.
        max_whole_bytes: of a picture that can only be decoded whole: interlaced, progressive, or stored sideways.
    """

    max_pixels: int = 40_000_000_000
    max_block_bytes: int = 64 << 20
    max_blocks: int = 4_000_000
    max_claim: int = 2000
    claims_from: int = 1_000_000_000
    max_row_pixels: int = 1 << 17
    max_whole_bytes: int = 256 << 20


@contextmanager
def gdal(path: Path) -> Iterator[None]:
    """GDAL with the options that all our calls need; its errors come out as ours, without the folder of the file."""
    try:
        with rasterio.Env(**_GDAL_OPTIONS):
            yield
    except (CPLE_OutOfMemoryError, MemoryError) as error:
        raise OutOfMemoryError(f"not enough memory to read {path.name}") from error
    except (RasterioError, CPLE_BaseError) as error:
        reason = str(error.__cause__ or error).replace(str(path), path.name)
        raise UndecodableImageError(f"{path.name} cannot be decoded: {reason[:200]}") from error


def weigh(path: Path, limits: RasterLimits) -> tuple[Driver, PictureHeader, tuple[str, ...]]:
    """The driver that may open a file and what its own headers say, with notes, before GDAL has seen it.

    Raises:
        UndecodableImageError, UnsupportedTypeError, PictureTooLargeError.
    """
    try:
        with path.open("rb") as file:
            driver = _driver_of(file)
            if driver == "PNG":
                return driver, read_png_header(file), ()
            if driver == "JPEG":
                return driver, read_jpeg_header(file), ()
            directories = _check_directories(file, path.stat().st_size, limits)
    except OSError as error:
        raise UndecodableImageError(f"{path.name} cannot be read: {error.strerror}") from error
    several = sum(directory.is_page for directory in directories) > 1
    notes = ("this TIFF holds several pictures; the first one was used",) if several else ()
    return driver, PictureHeader(directories[0].orientation), notes


def _driver_of(file: BinaryIO) -> Driver:
    """The only driver that may open the file, from its first bytes.

    Raises:
        UndecodableImageError, UnsupportedTypeError.
    """
    file.seek(0)
    match sniff(file.read(16)):
        case "TIFF":
            return "GTiff"
        case "JPEG":
            return "JPEG"
        case "PNG":
            return "PNG"
        case kind:
            raise UnsupportedTypeError(f"the content is {kind}; scenes are read from TIFF, JPEG and PNG")


def _check_directories(file: BinaryIO, file_bytes: int, limits: RasterLimits) -> list[TiffDirectory]:
    """Weigh the claims of all directories of a TIFF: pictures, overviews and masks.

    Raises:
        UndecodableImageError, PictureTooLargeError.
    """
    directories = read_directories(file)
    for directory in directories:
        _check_size(directory.width, directory.height, file_bytes, limits)
        if directory.blocks > limits.max_blocks:
            raise PictureTooLargeError(
                f"the TIFF has {directory.blocks:,} blocks of {directory.block_width:,} x "
                f"{directory.block_height:,} px; the limit is {limits.max_blocks:,}. {_RETILE}"
            )
        if not directory.lazy_strips:
            _check_block(directory.block_width, directory.block_height, directory.bytes_per_pixel, limits)
    return directories


def _check_size(width: int, height: int, file_bytes: int, limits: RasterLimits) -> None:
    """Refuse pictures of nothing, giants, and files far too small for what they claim."""
    if width < 1 or height < 1:
        raise UndecodableImageError(f"the picture claims to be {width:,} x {height:,} px")
    pixels = width * height
    if pixels > limits.max_pixels:
        raise PictureTooLargeError(
            f"the picture is {width:,} x {height:,} px = {pixels:,} px; the limit is {limits.max_pixels:,} px. "
            "Cut it in parts with `gdal_translate -srcwin`"
        )
    if pixels > limits.claims_from and pixels > file_bytes * limits.max_claim:
        raise PictureTooLargeError(
            f"the picture claims {width:,} x {height:,} px in {file_bytes:,} bytes; the limit is "
            f"{limits.max_claim:,} px a byte. Cut out the part that holds data with `gdal_translate -srcwin`"
        )


def _check_block(width: int, height: int, bytes_per_pixel: int, limits: RasterLimits) -> None:
    """Refuse blocks that take too much memory, as a block is always decoded whole."""
    size = width * height * bytes_per_pixel
    if size > limits.max_block_bytes:
        raise PictureTooLargeError(
            f"one block of the picture is {width:,} x {height:,} px and takes {size:,} bytes; "
            f"the limit is {limits.max_block_bytes:,}. {_RETILE}"
        )


@contextmanager
def open_dataset(
    path: Path, driver: Driver, limits: RasterLimits, overview: int | None = None
) -> Iterator[DatasetReader]:
    """Open the picture, or one of its overviews (from 0), with one driver, and weigh what GDAL makes of it.

    Raises:
        UndecodableImageError, PictureTooLargeError, UnsupportedTypeError.
    """
    level: dict[str, Any] = {} if overview is None else {"overview_level": overview}
    with _OPENING, warnings.catch_warnings(), gdal(path):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # plain pictures are welcome
        dataset = rasterio.open(path, driver=driver, sharing=False, **level)
    with dataset:
        with gdal(path):
            _check_dataset(dataset, path.stat().st_size, limits)
        yield dataset


def _check_dataset(dataset: DatasetReader, file_bytes: int, limits: RasterLimits) -> None:
    """Weigh what GDAL makes of the file, and refuse what would lead it to another one."""
    _check_size(dataset.width, dataset.height, file_bytes, limits)
    if dataset.count < 1:
        raise UndecodableImageError("the picture has no bands")
    together = dataset.count if dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE") == "PIXEL" else 1
    for (height, width), dtype in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        if dtype not in DTYPE_BYTES:
            raise UnsupportedTypeError(
                f"the picture's values are {dtype}; the types taken are {', '.join(DTYPE_BYTES)}. "
                "Convert it with `gdal_translate -ot`"
            )
        _check_block(width, height, DTYPE_BYTES[dtype] * together, limits)
    if dataset.tags(ns="OVERVIEWS").get("OVERVIEW_FILE"):  # GDAL would open it, with any driver and from any address
        raise UnsupportedTypeError("the TIFF names another file for its overviews. Rewrite it with `gdal_translate`")


def is_in_rows(dataset: DatasetReader) -> bool:
    """Whether the file is stored by whole rows, so that reading a window decodes all that lies beside it."""
    return dataset.block_shapes[0][1] == dataset.width


def check_rows(dataset: DatasetReader, needs_all: bool, limits: RasterLimits) -> None:
    """Refuse what is stored by rows where too much of it would have to be kept in memory.

    Args:
        needs_all: no part of the picture can be read before all of it was.
    Raises:
        PictureTooLargeError.
    """
    if dataset.width > limits.max_row_pixels:
        raise PictureTooLargeError(
            f"the picture is stored in rows of {dataset.width:,} px; the limit is {limits.max_row_pixels:,}. {_RETILE}"
        )
    size = dataset.width * dataset.height * max(4, sum(DTYPE_BYTES[dtype] for dtype in dataset.dtypes))
    if needs_all and size > limits.max_whole_bytes:
        raise PictureTooLargeError(
            "the picture is interlaced, progressive or stored sideways, and so can only be decoded whole, which takes "
            f"{size:,} bytes; the limit is {limits.max_whole_bytes:,}. {_RETILE}"
        )
