"""Every format keeps the boxes, within its rounding."""

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from service.formats import to_coco, to_geojson, to_labelstudio, to_supervision, to_yolo
from service.schemas import DetectionItem, DetectResponse, ModelName

CLASSES = ("red square", "blue square")
PIXELS = 0.011  # an answer's own rounding is 0.01 px


def make_answer(
    width: int = 320, height: int = 240, boxes: list[tuple[float, float, float, float]] | None = None
) -> DetectResponse:
    items = [DetectionItem(box=box, score=0.5, label=CLASSES[1], class_id=1) for box in boxes or []]
    return DetectResponse(
        image_id="5f2b6c0e9d3a41c7b8e6f0a1d2c3b4a5",
        width=width,
        height=height,
        model=ModelName(name="toy", version="1", sha256="0" * 64),
        query_count=4,
        estimated_count=0,
        detections=items,
        timing_ms={},
        notes=[],
    )


@st.composite
def answers(draw: st.DrawFn) -> DetectResponse:
    width, height = draw(st.integers(1, 20_000)), draw(st.integers(1, 20_000))

    def span(side: int) -> st.SearchStrategy[list[float]]:
        edge = st.floats(0, side).map(lambda value: round(value, 2))
        return st.lists(edge, min_size=2, max_size=2).map(sorted)

    spans = draw(st.lists(st.tuples(span(width), span(height)), max_size=5))
    return make_answer(width, height, [(x[0], y[0], x[1], y[1]) for x, y in spans])


def truth(answer: DetectResponse) -> np.ndarray:
    return np.array([item.box for item in answer.detections]).reshape(-1, 4)


@given(answers())
@settings(deadline=None)
def test_geojson_keeps_the_boxes(answer: DetectResponse) -> None:
    rings = np.array([item.geometry.coordinates[0] for item in to_geojson(answer).features]).reshape(-1, 5, 2)
    boxes = np.concatenate([rings.min(axis=1), rings.max(axis=1)], axis=1) * [1, -1, 1, -1]
    np.testing.assert_allclose(boxes[:, [0, 3, 2, 1]], truth(answer), atol=1e-9)


@given(answers())
@settings(deadline=None)
def test_coco_keeps_the_boxes(answer: DetectResponse) -> None:
    boxes = np.array([item.bbox for item in to_coco(answer, CLASSES).annotations]).reshape(-1, 4)
    np.testing.assert_allclose(boxes + np.pad(boxes[:, :2], ((0, 0), (2, 0))), truth(answer), atol=PIXELS)


@given(answers())
@settings(deadline=None)
def test_supervision_keeps_the_boxes(answer: DetectResponse) -> None:
    np.testing.assert_array_equal(np.array(to_supervision(answer).xyxy).reshape(-1, 4), truth(answer))


@given(answers())
@settings(deadline=None)
def test_labelstudio_keeps_the_boxes(answer: DetectResponse) -> None:
    values = [item.value for item in to_labelstudio(answer).predictions[0].result]
    boxes = np.array([(v.x, v.y, v.x + v.width, v.y + v.height) for v in values]).reshape(-1, 4)
    sides = np.array([answer.width, answer.height] * 2)
    np.testing.assert_allclose(boxes / 100 * sides, truth(answer), atol=1e-6 * sides.max() + PIXELS)


@given(answers())
@settings(deadline=None)
def test_yolo_keeps_the_boxes(answer: DetectResponse) -> None:
    rows = np.array([line.split() for line in to_yolo(answer).splitlines()], dtype=float).reshape(-1, 6)
    half = rows[:, 3:5] / 2
    boxes = np.concatenate([rows[:, 1:3] - half, rows[:, 1:3] + half], axis=1)
    sides = np.array([answer.width, answer.height] * 2)
    np.testing.assert_allclose(boxes * sides, truth(answer), atol=1e-6 * sides.max() + PIXELS)


@given(answers())
@settings(deadline=None)
def test_geojson_rings_are_closed_and_never_clockwise(answer: DetectResponse) -> None:
    for feature in to_geojson(answer).features:
        [ring] = feature.geometry.coordinates
        area = sum(a[0] * b[1] - b[0] * a[1] for a, b in pairwise(ring)) / 2
        assert ring[0] == ring[-1]
        assert area >= -1e-6


def test_a_box_at_the_top_has_no_negative_zero() -> None:
    assert "-0.0" not in to_geojson(make_answer(boxes=[(0, 0, 5, 5)])).model_dump_json()


def test_labelstudio_scores_a_picture_by_the_mean_of_its_objects() -> None:
    answer = make_answer(boxes=[(0, 0, 1, 1), (1, 1, 2, 2)])
    answer.detections[0].score = 0.9
    assert to_labelstudio(answer).predictions[0].score == 0.7


def test_labelstudio_of_an_empty_picture_scores_zero() -> None:
    [prediction] = to_labelstudio(make_answer()).predictions
    assert (prediction.score, prediction.result) == (0, [])


def test_supervision_of_an_empty_picture_is_zero_by_four() -> None:
    document = to_supervision(make_answer())
    assert np.array(document.xyxy).reshape(-1, 4).shape == (0, 4)
    assert (document.confidence, document.class_id, document.data.class_name) == ([], [], [])
