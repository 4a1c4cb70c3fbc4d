"""How many queries a picture gets, and what is a detection."""

import numpy as np
import pytest

from service.analysis import Analysis, HeatMaps
from service.detections import DetectionOptions
from service.errors import EngineError
from service.letterbox import Letterbox
from service.manifest import QuerySpec
from service.queries import query_counts

SPEC = QuerySpec(k_min=100, k_max=600, t=3.0)


@pytest.mark.parametrize(("count", "k"), [(0.0, 100), (-4.0, 100), (40.0, 120), (60.2, 181), (5000.0, 600)])
def test_queries_follow_the_count_between_their_limits(count: float, k: int) -> None:
    assert query_counts(np.array([count], dtype=np.float32), SPEC, available=8400) == [k]


def test_half_a_query_is_rounded_to_even() -> None:
    spec = QuerySpec(k_min=1, k_max=600, t=0.5)
    assert query_counts(np.array([5.0, 7.0], dtype=np.float32), spec, available=8400) == [2, 4]


def test_there_are_no_more_queries_than_tokens() -> None:
    assert query_counts(np.array([0.0, 500.0], dtype=np.float32), SPEC, available=84) == [84, 84]


@pytest.mark.parametrize("count", [np.nan, np.inf])
def test_a_count_that_is_no_number_is_an_error_of_the_engine(count: float) -> None:
    with pytest.raises(EngineError, match=f"a count of {count} objects"):
        query_counts(np.array([5.0, count], dtype=np.float32), SPEC, available=8400)


def test_a_box_in_the_padding_takes_no_place_in_the_list() -> None:
    analysis = Analysis(
        image_id="",
        upload=b"",
        frame=Letterbox.fit(200, 100, 100),  # the lower half of the canvas is padding
        estimated_count=2.0,
        query_count=2,
        boxes=np.array([[10, 60, 30, 80], [10, 10, 30, 30]], dtype=np.float32),
        scores=np.array([[0.9], [0.5]], dtype=np.float32),
        maps=HeatMaps(np.zeros((1, 1), dtype=np.float32), (), ()),
        notes=(),
        timing_ms={},
    )
    found = analysis.detections(DetectionOptions(np.zeros(1, np.float32), None, nms_iou=None, max_detections=1))
    assert found.boxes.tolist() == [[20, 20, 60, 60]]
