"""The whole of a scene as one small picture: read once, and kept beside the scene."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from service.raster import RasterOptions, open_raster
from service.scenes.jobs import Job
from service.scenes.recipe import SceneRequest
from service.scenes.store import JobFolder
from service.scenes.whole_file import whole_file

LARGEST_SIDE = 2048  # of what is kept, in pixels
_STRIP = 128  # rows of the overview that are read at once, so that little more than the overview is in memory
_QUALITY = 88


def read_overview(path: Path, options: RasterOptions, pad_value: int, side: int) -> Image.Image:
    """The whole scene as the model sees its values, as displayed, shrunk until no side is longer.

    Raises:
        ServiceError: see `open_raster` and `Raster.read`.
    """
    with open_raster(path, options, pad_value, side=side) as raster:
        width, height = raster.scaled_width, raster.scaled_height
        tops = range(0, height, _STRIP)
        strips = [raster.read(0, top, width, min(_STRIP, height - top)).pixels for top in tops]
    return Image.fromarray(np.concatenate(strips))


def preview_jpeg(job: Job, folder: JobFolder, pad_value: int, side: int) -> bytes:
    """The overview of a job as a JPEG, made from the kept one where somebody asked before.

    Raises:
        StorageError: it cannot be kept.
        ServiceError: see `read_overview`.
    """
    with folder.locked(wait=True):
        if not folder.overview.exists():
            options = SceneRequest.from_json(job.request).raster
            overview = read_overview(folder.scene, options, pad_value, LARGEST_SIDE)
            with whole_file(folder.overview) as partial:
                overview.save(partial, "JPEG", quality=_QUALITY)
    with Image.open(folder.overview) as kept:
        if side >= max(kept.size):
            return folder.overview.read_bytes()
        kept.draft("RGB", (side, side))
        kept.thumbnail((side, side), Image.Resampling.LANCZOS)
        buffer = BytesIO()
        kept.save(buffer, "JPEG", quality=_QUALITY)
        return buffer.getvalue()
