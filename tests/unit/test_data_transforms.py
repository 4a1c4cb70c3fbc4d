"""Random changes keep boxes on the pixels they belong to, and give exactly the crop that was asked for."""

from typing import Any

import numpy as np
import pytest

from training.config import AugmentConfig
from training.data.samples import Sample
from training.data.transforms import (
    Augment,
    draw_origin,
    flip_and_turn,
    pad,
    photometric,
    zoom_and_crop,
)

PLAIN: dict[str, Any] = {
    "crop": 64, "scale": (1.0, 1.0), "aspect": 1.0, "crop_on_object": 0.0, "min_visible": 0.5, "mosaic": 0.0,
    "flips": False, "brightness": 0.0, "contrast": 0.0, "colour": 0.0, "grey": 0.0, "noise": 0.0,
    "channel_shuffle": 0.0,
    "position_shift": 0,
}  # fmt: skip


def config(**changes: Any) -> AugmentConfig:
    return AugmentConfig(**{**PLAIN, **changes})


def painted(width: int, height: int, boxes: list[tuple[int, int, int, int]], image_id: int = 1) -> Sample:
    """Black picture whose boxes are filled with white."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        image[y1:y2, x1:x2] = 255
    array = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Sample(image, array, np.zeros(len(boxes), dtype=np.int64), image_id)


def white_extent(image: np.ndarray, over: int = 127) -> list[int]:
    """xyxy of the bright pixels."""
    rows, columns = np.nonzero(image[:, :, 0] > over)
    return [int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_flips_and_turns_move_boxes_with_their_pixels(flip: bool, turns: int) -> None:
    turned = flip_and_turn(painted(60, 40, [(5, 7, 25, 13)]), flip, turns)
    assert turned.boxes[0].tolist() == white_extent(turned.image)
    assert turned.image.shape == ((60, 40, 3) if turns % 2 else (40, 60, 3))


@pytest.mark.parametrize("zoom", [0.5, 1.0, 2.5])
def test_zoom_moves_boxes_with_their_pixels(zoom: float) -> None:
    sample = painted(100, 80, [(20, 16, 60, 48)])
    scaled = (round(100 * zoom), round(80 * zoom))
    view = zoom_and_crop(sample, scaled, (4, 2), (200, 200), min_visible=0.5)
    np.testing.assert_allclose(view.boxes[0], white_extent(view.image), atol=1)


def test_a_resized_crop_equals_the_crop_of_the_resized_picture() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    sample = Sample(noise, np.zeros((0, 4), np.float32), np.zeros(0, np.int64), 1)
    for scaled in [(50, 40), (300, 200)]:
        whole = zoom_and_crop(sample, scaled, (0, 0), scaled, 0.5).image
        part = zoom_and_crop(sample, scaled, (13, 9), (30, 25), 0.5).image
        difference = part.astype(int) - whole[9:34, 13:43]
        assert np.abs(difference).max() <= 1


def test_a_box_with_too_small_a_part_inside_is_dropped_and_others_are_cut() -> None:
    sample = painted(100, 100, [(0, 0, 20, 20), (30, 30, 50, 50)])
    view = zoom_and_crop(sample, (100, 100), (11, 0), (30, 64), min_visible=0.5)
    assert view.boxes.tolist() == [[19, 30, 30, 50]]  # 9/20 of the first is inside, 11/20 of the second


def test_a_box_left_with_a_side_under_two_pixels_is_dropped() -> None:
    view = zoom_and_crop(painted(100, 100, [(10, 10, 13, 30)]), (50, 50), (0, 0), (50, 50), min_visible=0.0)
    assert len(view.boxes) == 0


def test_padding_moves_boxes_and_has_its_exact_value() -> None:
    padded = pad(painted(20, 10, [(2, 3, 8, 9)]), (32, 30), (5, 6), pad_value=114)
    assert padded.boxes.tolist() == [[7, 9, 13, 15]]
    outside = np.ones((30, 32), dtype=bool)
    outside[6:16, 5:25] = False
    assert np.unique(padded.image[outside]).tolist() == [114]


def test_padding_keeps_its_value_under_photometric_changes() -> None:
    augment = Augment(config(brightness=60, contrast=0.5, colour=0.5, noise=20))
    sample = augment([painted(40, 64, [])], 0, (64, 64), np.random.default_rng(3))
    grey_columns = [x for x in range(64) if (sample.image[:, x] == 114).all()]
    assert len(grey_columns) == 24


def test_a_picture_smaller_than_the_crop_lands_anywhere_but_whole() -> None:
    rng = np.random.default_rng(0)
    corners = {draw_origin(painted(60, 50, []), (60, 50), (64, 64), None, rng) for _ in range(400)}
    assert {x for x, _ in corners} == {-4, -3, -2, -1, 0}
    assert {y for _, y in corners} == set(range(-14, 1))


def test_a_crop_around_an_object_contains_its_centre() -> None:
    rng = np.random.default_rng(0)
    sample = painted(400, 300, [(310, 20, 330, 30)])
    for _ in range(100):
        x, y = draw_origin(sample, (800, 600), (64, 64), sample.boxes[0], rng)
        assert x <= 640 <= x + 64
        assert y <= 50 <= y + 64


@pytest.mark.parametrize(("width", "height"), [(300, 200), (50, 40), (64, 64), (7, 500)])
def test_crops_have_the_size_asked_for_and_boxes_inside(width: int, height: int) -> None:
    augment = Augment(config(scale=(0.3, 3.0), aspect=1.5, mosaic=0.5, flips=True, crop_on_object=0.5))
    pictures = [painted(width, height, [(1, 1, 6, 30), (2, 10, 5, 20)]), painted(33, 77, [])]
    for seed in range(60):
        crop = (64, 64) if seed % 3 else (96, 32)
        sample = augment(pictures, seed % 2, crop, np.random.default_rng(seed))
        assert sample.image.shape == (*crop[::-1], 3)
        assert sample.image.flags.c_contiguous
        assert sample.boxes.dtype == np.float32
        assert len(sample.boxes) == len(sample.labels)
        if len(sample.boxes):
            assert sample.boxes.min() >= 0
            assert (sample.boxes.max(axis=0) <= [*crop, *crop]).all()
            assert (sample.boxes[:, 2:] - sample.boxes[:, :2]).min() >= 2


def test_oblong_crops_keep_the_area_and_go_as_far_as_asked_both_ways() -> None:
    augment, rng = Augment(config(crop=448, crop_aspect=1.5)), np.random.default_rng(0)
    sizes = {augment.draw_size(rng) for _ in range(200)}
    assert {(448, 448), (544, 352), (352, 544)} <= sizes
    assert all(side % 32 == 0 and 352 <= side <= 544 for size in sizes for side in size)
    assert all(0.9 < width * height / 448**2 < 1.1 for width, height in sizes)
    assert Augment(config(crop=448)).draw_size(rng) == (448, 448)


def test_mosaic_boxes_are_tight_on_their_painted_objects() -> None:
    augment = Augment(config(mosaic=1.0, min_visible=0.0, flips=True, scale=(0.8, 1.5), aspect=1.2))
    pictures = [painted(90, 90, [(20, 30, 60, 70)], image_id) for image_id in range(5)]
    found = 0
    for seed in range(40):
        sample = augment(pictures, seed % 5, (160, 96) if seed % 2 else (128, 128), np.random.default_rng(seed))
        bright = sample.image[:, :, 0] > 127
        covered = np.zeros_like(bright)
        for box in sample.boxes:
            x1, y1, x2, y2 = (round(float(v)) for v in box)
            covered[y1:y2, x1:x2] = True
            assert bright[y1:y2, x1:x2].mean() > 0.9
            found += 1
        assert (bright & ~covered).sum() <= 0.02 * bright.size
    assert found > 100


def test_a_mosaic_keeps_the_labels_of_all_four_pictures() -> None:
    pictures = []
    for label in range(4):
        sample = painted(400, 400, [(0, 0, 400, 400)])
        pictures.append(Sample(sample.image, sample.boxes, np.array([label]), label))
    sample = Augment(config(mosaic=1.0, min_visible=0.0))(pictures, 2, (64, 64), np.random.default_rng(1))
    assert len(sample.labels) == 4
    assert sample.labels[0] == 2


def test_the_same_generator_state_gives_the_same_sample() -> None:
    augment = Augment(config(scale=(0.5, 2.0), mosaic=0.5, flips=True, noise=9, colour=0.3, grey=0.5))
    pictures = [painted(90, 70, [(20, 30, 60, 50)]), painted(100, 110, [])]
    first, second = (augment(pictures, 0, (64, 64), np.random.default_rng([5, 6])) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)


def test_without_random_changes_a_picture_of_the_crop_size_stays_as_it_is() -> None:
    picture = painted(64, 64, [(10, 10, 20, 30)])
    sample = Augment(config())([picture], 0, (64, 64), np.random.default_rng(0))
    np.testing.assert_array_equal(sample.image, picture.image)
    np.testing.assert_array_equal(sample.boxes, picture.boxes)


def test_photometric_changes_do_not_alter_the_picture_they_are_given() -> None:
    image = np.full((8, 8, 3), 100, dtype=np.uint8)
    photometric(image, config(brightness=50, noise=10, channel_shuffle=1.0), np.random.default_rng(0))
    assert np.unique(image).tolist() == [100]


def test_loss_of_colour_leaves_three_equal_channels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    grey = photometric(image, config(grey=1.0, colour=0.5), np.random.default_rng(0))
    np.testing.assert_array_equal(grey[:, :, 0], grey[:, :, 2])


def test_brightness_shifts_and_stops_at_white() -> None:
    image = np.full((4, 4, 3), 250, dtype=np.uint8)
    values = {int(photometric(image, config(brightness=40), np.random.default_rng(s))[0, 0, 0]) for s in range(50)}
    assert max(values) == 255
    assert 205 <= min(values) < 230


def test_noise_has_about_the_spread_asked_for() -> None:
    image = np.full((200, 200, 3), 128, dtype=np.uint8)
    spreads = [photometric(image, config(noise=10), np.random.default_rng(s)).std() for s in range(40)]
    assert max(spreads) == pytest.approx(10, rel=0.15)


def test_channel_shuffle_permutes_whole_channels() -> None:
    image = np.zeros((4, 4, 3), dtype=np.uint8) + np.array([10, 20, 30], dtype=np.uint8)
    seen = {
        tuple(photometric(image, config(channel_shuffle=1.0), np.random.default_rng(s))[0, 0].tolist())
        for s in range(60)
    }
    assert len(seen) == 6
    assert all(sorted(pixel) == [10, 20, 30] for pixel in seen)
