"""Pictures for the comparison lie on the canvas as in the service."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.pictures import picture_paths, read_canvas, real_canvases, synthetic_canvases
from service.letterbox import Letterbox

EXIF_ORIENTATION = 0x0112


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Coarse random colours."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("width", "height"), [(90, 41), (300, 200), (33, 250), (1, 300)])
def test_the_canvas_is_that_of_the_service(tmp_path: Path, width: int, height: int) -> None:
    picture = photo(width, height)
    picture.save(tmp_path / "a.png")
    ours = read_canvas(tmp_path / "a.png", 128, 114)
    np.testing.assert_array_equal(ours, Letterbox.fit(width, height, 128).draw(picture, 114))


def test_a_picture_is_turned_as_its_exif_says(tmp_path: Path) -> None:
    picture, exif = photo(60, 40), Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    picture.save(tmp_path / "turned.png", exif=exif)
    picture.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    turned, upright = (read_canvas(tmp_path / f"{name}.png", 64, 0) for name in ("turned", "upright"))
    np.testing.assert_array_equal(turned, upright)


def test_pictures_are_taken_from_the_whole_folder(tmp_path: Path) -> None:
    for i in range(9):
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    greys = [int(canvas[0, 0, 0]) for canvas in real_canvases(tmp_path, 32, 114, 3)]
    assert greys == [0, 4, 8]


def test_a_coco_file_names_the_pictures_of_a_split(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    document = {"images": [{"file_name": "b.png"}, {"file_name": "a.png"}]}
    (tmp_path / "instances_val.json").write_text(json.dumps(document), encoding="utf-8")
    assert picture_paths(tmp_path / "instances_val.json") == [tmp_path / "images" / n for n in ("a.png", "b.png")]


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    photo(50, 50).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"a\.jpg cannot be read"):
        real_canvases(tmp_path, 64, 114, 20)


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no pictures"):
        picture_paths(tmp_path)


def test_drawn_pictures_are_the_same_every_time() -> None:
    first, second = (np.stack(synthetic_canvases(64, 114, 3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.shape == (3, 3, 64, 64)
    assert first.std() > 10
