"""Results of a run that never was, for tests of what keeps them."""

import hashlib

import numpy as np

from service.analysis import Analysis, HeatArray, HeatMaps, keep_heat
from service.letterbox import Letterbox


def make_result(upload: bytes, queries: int = 5, classes: int = 2, size: int = 160, seed: int = 0) -> Analysis:
    """A result of a model with strides 8, 16 and 32 for a picture of 320 x 240 px, every value random."""
    random = np.random.default_rng(seed)
    cells = [size // stride for stride in (8, 16, 32)]

    def heat(channels: int, side: int) -> HeatArray:
        return keep_heat(random.random((channels, side, side), dtype=np.float32))

    return Analysis(
        image_id=hashlib.sha256(upload).hexdigest()[:32],
        upload=upload,
        frame=Letterbox.fit(320, 240, size),
        estimated_count=2.5,
        query_count=queries,
        boxes=random.random((queries, 4), dtype=np.float32),
        scores=random.random((queries, classes), dtype=np.float32),
        maps=HeatMaps(
            random.random((cells[0], cells[0]), dtype=np.float32),
            tuple(heat(classes, side) for side in cells),
            tuple(heat(4, side) for side in cells),
        ),
        notes=("turned upright (EXIF orientation 6)",),
        timing_ms={"encode": 1.5},
    )
