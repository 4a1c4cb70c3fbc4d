"""How many decoder queries a picture gets (D3Q): the host reads the estimated count between the two graphs."""

from collections.abc import Sequence

import numpy as np

from service.errors import EngineError
from service.letterbox import FloatArray
from service.manifest import QuerySpec


def query_counts(count: FloatArray, spec: QuerySpec, available: int) -> Sequence[int]:
    """K per image from (B,) estimated counts: round half to even, between k_min and what there is.

    Raises:
        EngineError: a count is not a number or infinite.
    """
    if not np.isfinite(count).all():
        raise EngineError(f"the model estimated a count of {count[~np.isfinite(count)][0]} objects on this picture")
    upper = min(spec.k_max, available)
    rounded = np.rint(np.float32(spec.t) * count)
    return [int(k) for k in np.clip(rounded, min(spec.k_min, upper), upper)]
