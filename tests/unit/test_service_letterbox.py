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


def test_boxes_come_back_in_picture_pixels() -> None:
    frame = Letterbox.fit(333, 1000, 640)
    canvas_box = np.array([[21.3, 64.0, 213.0, 640.0]], dtype=np.float32)
    np.testing.assert_allclose(frame.boxes_to_picture(canvas_box), [[33.3, 100, 333, 1000]], rtol=1e-5)


def test_boxes_are_clipped_to_the_picture() -> None:
    frame = Letterbox.fit(200, 100, 640)
    canvas_box = np.array([[-5.0, -5.0, 700.0, 700.0]], dtype=np.float32)
    assert frame.boxes_to_picture(canvas_box).tolist() == [[0, 0, 200, 100]]
