"""COCO files: what is read, what is left out and counted, what is an error and what it says."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.data.datasets import CocoDataset

CLASSES = ("ship", "tank")


def write_picture(path: Path, width: int = 40, height: int = 20, **save: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    pixels = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **save)


def write_coco(folder: Path, boxes: dict[str, list[list[float]]], **changes: Any) -> Path:
    """A COCO file of 40 x 20 px pictures, all boxes ships; `changes` replace whole top-level lists."""
    names = list(boxes)
    images = [{"id": i, "file_name": n, "width": 40, "height": 20} for i, n in enumerate(names, 1)]
    annotations = [
        {"id": 100 * i + j, "image_id": i, "category_id": 7, "bbox": box}
        for i, name in enumerate(names, 1)
        for j, box in enumerate(boxes[name])
    ]
    categories = [{"id": 7, "name": "ship"}, {"id": 9, "name": "tank"}]
    data = {"images": images, "annotations": annotations, "categories": categories, **changes}
    path = folder / "instances.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with three good pictures of 40 x 20 px."""
    for name in "abc":
        write_picture(tmp_path / "images" / f"{name}.jpg")
    return tmp_path / "images"


def load(images: Path, annotations: Path, size: int | None = None, **options: Any) -> CocoDataset:
    return CocoDataset(images, annotations, CLASSES, size, **options)


def test_a_sample_has_its_boxes_in_xyxy_and_its_label_by_class_order(images: Path, tmp_path: Path) -> None:
    dataset = CocoDataset(images, write_coco(tmp_path, {"a.jpg": [[4, 2, 10, 6]]}), ("tank", "ship"), size=None)
    sample = dataset[0]
    assert sample.image.shape == (20, 40, 3)
    assert sample.boxes.tolist() == [[4, 2, 14, 8]]
    assert sample.labels.tolist() == [1]
    assert sample.image_id == 1


@pytest.mark.parametrize(("size", "shape"), [(20, (10, 20, 3)), (80, (40, 80, 3))])
def test_the_longest_side_and_the_boxes_are_resized(
    images: Path, tmp_path: Path, size: int, shape: tuple[int, ...]
) -> None:
    sample = load(images, write_coco(tmp_path, {"a.jpg": [[4, 2, 10, 6]]}), size)[0]
    assert sample.image.shape == shape
    np.testing.assert_allclose(sample.boxes, np.array([[4, 2, 14, 8]]) * size / 40)


def test_a_picture_without_boxes_stays(images: Path, tmp_path: Path) -> None:
    dataset = load(images, write_coco(tmp_path, {"a.jpg": [], "b.jpg": [[1, 1, 5, 5]]}))
    assert len(dataset) == 2
    assert dataset[0].boxes.shape == (0, 4)
    assert dataset[0].labels.shape == (0,)


def test_file_names_may_start_with_the_images_folder(images: Path, tmp_path: Path) -> None:
    assert len(load(images, write_coco(tmp_path, {"images/a.jpg": []}))) == 1


def test_a_box_reaching_outside_is_clipped_and_counted(images: Path, tmp_path: Path) -> None:
    dataset = load(images, write_coco(tmp_path, {"a.jpg": [[-5, -5, 10, 10], [30, 10, 100, 100], [1, 1, 2, 2]]}))
    assert dataset[0].boxes.tolist() == [[0, 0, 5, 5], [30, 10, 40, 20], [1, 1, 3, 3]]
    assert (dataset.report.boxes, dataset.report.clipped) == (3, 2)


@pytest.mark.parametrize("box", [[50, 5, 10, 10], [5, 5, 0, 4], [5, 5, -3, 4], [5, 5, float("nan"), 4], [-9, 0, 9, 9]])
def test_a_degenerate_box_is_dropped_and_counted(images: Path, tmp_path: Path, box: list[float]) -> None:
    dataset = load(images, write_coco(tmp_path, {"a.jpg": [box]}))
    assert len(dataset[0].boxes) == 0
    assert (dataset.report.degenerate, dataset.report.clipped, dataset.report.boxes) == (1, 0, 0)


def test_a_box_that_resizing_makes_too_small_is_dropped_and_counted(images: Path, tmp_path: Path) -> None:
    dataset = load(images, write_coco(tmp_path, {"a.jpg": [[1, 1, 3, 9], [1, 1, 9, 9]]}), size=20, min_box_px=2)
    assert len(dataset[0].boxes) == 1
    assert dataset.report.too_small == 1


def test_crowds_are_ignored_and_counted(images: Path, tmp_path: Path) -> None:
    crowd = {"id": 1, "image_id": 1, "category_id": 7, "bbox": [1, 1, 9, 9], "iscrowd": 1}
    dataset = load(images, write_coco(tmp_path, {"a.jpg": []}, annotations=[crowd]))
    assert (len(dataset[0].boxes), dataset.report.crowd) == (0, 1)


def test_a_file_that_is_no_picture_is_skipped_with_a_warning_that_names_it(images: Path, tmp_path: Path) -> None:
    (images / "b.jpg").write_bytes(b"not a picture")
    with pytest.warns(UserWarning, match=r"b\.jpg"):
        dataset = load(images, write_coco(tmp_path, {"a.jpg": [], "b.jpg": [[1, 1, 5, 5]], "c.jpg": []}))
    assert [dataset[i].image_id for i in range(len(dataset))] == [1, 3]
    assert (dataset.report.images, dataset.report.corrupt, dataset.report.boxes) == (2, 1, 0)


def test_the_next_picture_replaces_one_that_is_cut_short(images: Path, tmp_path: Path) -> None:
    whole = (images / "b.jpg").read_bytes()
    (images / "b.jpg").write_bytes(whole[: len(whole) // 2])
    dataset = load(images, write_coco(tmp_path, {"a.jpg": [], "b.jpg": [[1, 1, 5, 5]], "c.jpg": []}))
    with pytest.warns(UserWarning, match=r"b\.jpg") as caught:
        picked = [dataset[1].image_id, dataset[1].image_id]
    assert picked == [3, 3]
    assert len(caught) == 1
    assert dataset.report.corrupt == 1


def test_pictures_of_which_none_can_be_decoded_are_an_error(tmp_path: Path, images: Path) -> None:
    whole = (images / "a.jpg").read_bytes()
    (images / "a.jpg").write_bytes(whole[: len(whole) // 2])
    dataset = load(images, write_coco(tmp_path, {"a.jpg": []}))
    with pytest.warns(UserWarning, match="corrupt"), pytest.raises(ValueError, match=r"a\.jpg"):
        dataset[0]


def test_a_missing_picture_is_an_error_that_names_it(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
        load(images, write_coco(tmp_path, {"gone.jpg": []}))


def test_a_missing_annotation_file_is_an_error_that_names_it(images: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.json"):
        load(images, tmp_path / "gone.json")


def test_an_unknown_category_is_an_error_that_names_it_and_the_classes(images: Path, tmp_path: Path) -> None:
    annotations = write_coco(tmp_path, {"a.jpg": []}, categories=[{"id": 1, "name": "submarine"}])
    with pytest.raises(ValueError, match=r"'submarine' at categories\[0\].*ship, tank"):
        load(images, annotations)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"image_id": 1, "category_id": 8, "bbox": [1, 1, 2, 2]}, r"annotations\[0\] has category_id 8"),
        ({"image_id": 5, "category_id": 7, "bbox": [1, 1, 2, 2]}, r"annotations\[0\] belongs to image 5"),
        ({"image_id": 1, "category_id": 7}, r"annotations\[0\] has no 'bbox'"),
        ({"image_id": 1, "category_id": 7, "bbox": [1, 2, 3]}, r"annotations\[0\] has bbox \[1, 2, 3\]"),
        ({"image_id": 1, "category_id": 7, "bbox": [1, 2, 3, "4"]}, r"annotations\[0\] has bbox"),
    ],
)
def test_a_malformed_annotation_is_an_error_that_says_where(
    images: Path, tmp_path: Path, annotation: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load(images, write_coco(tmp_path, {"a.jpg": []}, annotations=[annotation]))


def test_broken_json_is_an_error_that_names_file_and_place(images: Path, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    path.write_text('{"images": [],\n "annotations": ]}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.json: not JSON at line 2, column 17"):
        load(images, path)


@pytest.mark.parametrize("text", ["[]", '{"images": [], "annotations": []}'])
def test_json_that_is_not_coco_is_an_error(images: Path, tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"other\.json: not a COCO detection file"):
        load(images, path)


def test_repeated_picture_ids_are_an_error(images: Path, tmp_path: Path) -> None:
    twice = [{"id": 1, "file_name": "a.jpg"}, {"id": 1, "file_name": "b.jpg"}]
    with pytest.raises(ValueError, match=r"images\[1\] repeats the id 1"):
        load(images, write_coco(tmp_path, {}, images=twice))


def test_annotations_that_contradict_the_picture_size_are_an_error(images: Path, tmp_path: Path) -> None:
    write_picture(images / "a.jpg", width=20, height=40)
    with pytest.raises(ValueError, match=r"a\.jpg has \(20, 40\) px.*\(40, 20\)"):
        load(images, write_coco(tmp_path, {"a.jpg": []}))


def test_annotations_without_pictures_are_an_error(images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no picture"):
        load(images, write_coco(tmp_path, {}))


def test_boxes_refer_to_stored_pixels_so_exif_orientation_is_not_applied(images: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write_picture(images / "a.jpg", exif=exif)
    assert load(images, write_coco(tmp_path, {"a.jpg": []}))[0].image.shape == (20, 40, 3)


@pytest.mark.parametrize("cache_bytes", [0, 5000, 10**6])
def test_the_cache_budget_does_not_change_the_pictures(images: Path, tmp_path: Path, cache_bytes: int) -> None:
    annotations = write_coco(tmp_path, {"a.jpg": [], "b.jpg": [], "c.jpg": []})
    dataset = load(images, annotations, cache_bytes=cache_bytes)
    dataset.preload()
    for i, name in enumerate("abc"):
        with Image.open(images / f"{name}.jpg") as picture:
            np.testing.assert_array_equal(dataset[i].image, np.array(picture))


def test_grey_and_transparent_pictures_become_rgb(images: Path, tmp_path: Path) -> None:
    Image.new("LA", (40, 20), (77, 0)).save(images / "grey.png")
    image = load(images, write_coco(tmp_path, {"grey.png": []}))[0].image
    assert image.shape == (20, 40, 3)
    assert np.unique(image).tolist() == [77]


def test_preloading_stops_when_the_budget_is_spent(images: Path, tmp_path: Path) -> None:
    annotations = write_coco(tmp_path, {"a.jpg": [], "b.jpg": [], "c.jpg": []})
    dataset = CocoDataset(images, annotations, CLASSES, size=None, cache_bytes=1)
    (images / "b.jpg").unlink()  # reading it would fail
    dataset.preload()
    assert len(dataset) == 3
