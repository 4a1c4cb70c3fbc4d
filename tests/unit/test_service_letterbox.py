"""The picture on the canvas, and the way back."""

import numpy as np
import pytest
from PIL import Image

from service.letterbox import Letterbox


@pytest.mark.parametrize(
    ("width", "height", "new"),
    [(640, 640, (640, 640)), (1280, 640, (640, 320)), (100, 50, (640, 320)), (333, 1000, (213, 640))],
)
def test_the_longer_side_fills_the_canvas(width: int, height: int, new: tuple[int, int]) -> None:
    frame = Letterbox.fit(width, height, 640)
    assert (frame.new_width, frame.new_height) == new


def test_no_side_falls_below_one_pixel() -> None:
    frame = Letterbox.fit(1, 20_000, 640)
    assert (frame.new_width, frame.new_height) == (1, 640)


def test_the_picture_lies_in_the_top_left_corner_over_padding() -> None:
    canvas = Letterbox.fit(20, 10, 64).draw(Image.new("RGB", (20, 10), (1, 2, 3)), pad_value=114)
    assert canvas.shape == (3, 64, 64)
    assert (canvas[:, :32] == np.array([1, 2, 3])[:, None, None]).all()
    assert (canvas[:, 32:] == 114).all()


@pytest.mark.parametrize(
    ("width", "height", "cut"),
    [
        (20, 10, (3, 32, 64)),
        (10, 20, (3, 64, 32)),
        (64, 64, (3, 64, 64)),
        (1000, 520, (3, 64, 64)),
        (900, 1, (3, 32, 64)),
    ],
)
def test_without_its_padding_the_canvas_is_as_small_as_the_strides_allow(
    width: int, height: int, cut: tuple[int, int, int]
) -> None:
    picture, frame = Image.new("RGB", (width, height), (1, 2, 3)), Letterbox.fit(width, height, 64)
    canvas = frame.draw(picture, pad_value=114, multiple_of=32)
    assert canvas.shape == cut
    assert (canvas == frame.draw(picture, pad_value=114)[:, : cut[1], : cut[2]]).all()


def test_boxes_come_back_in_picture_pixels() -> None:
    frame = Letterbox.fit(333, 1000, 640)
    canvas_box = np.array([[21.3, 64.0, 213.0, 640.0]], dtype=np.float32)
    np.testing.assert_allclose(frame.boxes_to_picture(canvas_box), [[33.3, 100, 333, 1000]], rtol=1e-5)


def test_boxes_are_clipped_to_the_picture() -> None:
    frame = Letterbox.fit(200, 100, 640)
    canvas_box = np.array([[-5.0, -5.0, 700.0, 700.0]], dtype=np.float32)
    assert frame.boxes_to_picture(canvas_box).tolist() == [[0, 0, 200, 100]]
