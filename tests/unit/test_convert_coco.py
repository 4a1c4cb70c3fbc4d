"""COCO JSON, as AI-TOD and many others use it."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from converting import objects, read, run
from training.data.coco import Report, read_coco

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "nwpu-vhr10"


def image(image_id: Any = 70, file_name: str = "a.png", **changes: Any) -> dict[str, Any]:
    return {"id": image_id, "file_name": file_name, "width": 40, "height": 20, "license": 4, **changes}


def box(category: Any = 9, bbox: Any = (4, 2, 10, 6), **changes: Any) -> dict[str, Any]:
    segmentation = [[4, 2, 14, 2, 14, 8]]
    return {"id": 5, "image_id": 70, "category_id": category, "bbox": bbox, "segmentation": segmentation, **changes}


def write_coco(folder: Path, annotations: list[Any], name: str = "a.json", **changes: Any) -> Path:
    """A COCO file of one picture of 40 x 20 px beside it in `images`; `changes` replace top-level lists."""
    categories = [{"id": 9, "name": "ship"}, {"id": 2, "name": "airplane"}]
    data = {"images": [image()], "annotations": annotations, "categories": categories, **changes}
    for entry in data["images"]:
        if isinstance(entry, dict) and isinstance(entry.get("file_name"), str):
            picture = folder / "images" / entry["file_name"].removeprefix("images/")
            picture.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 20)).save(picture)
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    return folder / name


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_ids_become_new_ones_and_categories_keep_their_order(tmp_path: Path, out: Path) -> None:
    run("coco", write_coco(tmp_path, [box(), box(2, iscrowd=0)]), "--out", out)
    data = read(out)
    assert data["categories"] == [{"id": 1, "name": "ship"}, {"id": 2, "name": "airplane"}]
    assert data["images"] == [{"id": 1, "file_name": "a.png", "width": 40, "height": 20}]
    plain = {"image_id": 1, "bbox": [4, 2, 10, 6], "area": 60, "iscrowd": 0}
    assert data["annotations"] == [{"id": 1, "category_id": 1, **plain}, {"id": 2, "category_id": 2, **plain}]


def test_files_whose_categories_have_other_ids_are_merged_by_name(tmp_path: Path, out: Path) -> None:
    first = write_coco(tmp_path / "one", [box()])
    categories = [{"id": 9, "name": "airplane"}, {"id": 2, "name": "ship"}]
    second = write_coco(tmp_path / "two", [box()], images=[image(file_name="b.png")], categories=categories)
    run("coco", first, second, "--out", out)
    assert [name for name, _, _ in objects(out)] == ["ship", "airplane"]


def test_files_with_other_categories_need_stated_classes(tmp_path: Path, out: Path) -> None:
    first = write_coco(tmp_path / "one", [box()])
    categories = [{"id": 9, "name": "boat"}]
    second = write_coco(tmp_path / "two", [box()], images=[image(file_name="b.png")], categories=categories)
    with pytest.raises(ValueError, match="differ in the categories airplane, boat, ship; state all names"):
        run("coco", first, second, "--out", out)
    run("coco", first, second, "--out", out, "--classes", "boat,ship,airplane")
    assert [name for name, _, _ in objects(out)] == ["ship", "boat"]


def test_crowd_boxes_stay_crowd(tmp_path: Path, out: Path) -> None:
    run("coco", write_coco(tmp_path, [box(iscrowd=1)]), "--out", out)
    assert objects(out) == [("ship", [4, 2, 10, 6], 1)]


def test_pictures_in_sub_folders_get_flat_names(tmp_path: Path, out: Path) -> None:
    images = [image(1, "north/a.png"), image(2, "south/a.png"), image(3, "images/a.png")]
    run("coco", write_coco(tmp_path, [], images=images), "--out", out)
    assert [entry["file_name"] for entry in read(out)["images"]] == ["north__a.png", "south__a.png", "a.png"]


def test_the_folder_of_the_pictures_can_be_named(tmp_path: Path, out: Path) -> None:
    path = write_coco(tmp_path, [box()])
    (tmp_path / "images").rename(tmp_path / "val2017")
    with pytest.raises(FileNotFoundError, match=r"images\[0\]: there is no picture 'a\.png' .* behind a colon"):
        run("coco", path, "--out", out)
    run("coco", f"val={path}:{tmp_path / 'val2017'}", "--out", out)
    assert len(objects(out, "val")) == 1


def test_a_byte_order_mark_is_tolerated(tmp_path: Path, out: Path) -> None:
    path = write_coco(tmp_path, [box()])
    path.write_text(path.read_text(), encoding="utf-8-sig")
    run("coco", path, "--out", out)
    assert len(objects(out)) == 1


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (box(3), "category_id 3 is not among the categories"),
        (box([9]), r"category_id \[9\] is not among"),
        (box(image_id=71), "belongs to image 71, which is not among the images"),
        (box(image_id=[70]), r"image_id is \[70\]"),
        (box(bbox=[1, 2, 3]), "not four finite numbers"),
        (box(bbox="1 2 3 4"), "not four finite numbers"),
        (box(bbox=[1, 2, float("nan"), 4]), "bbox is .*nan.*, not four finite numbers"),
        (box(bbox=[1, 2, 10**400, 4]), "not four finite numbers"),
        (box(bbox=[1, 2, True, 4]), "not four finite numbers"),
        (box(bbox=[1, 2, -3, 4]), "ends before it begins"),
        ({"image_id": 70, "category_id": 9}, "has no 'bbox'; add it"),
        (7, "has no 'image_id'"),
    ],
)
def test_a_malformed_annotation_is_an_error_with_its_place(
    tmp_path: Path, out: Path, annotation: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=r"a\.json: annotations\[1\]:? .*" + message):
        run("coco", write_coco(tmp_path, [box(), annotation]), "--out", out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": [image(), image()]}, r"images\[1\] repeats the id 70"),
        ({"images": [image(), image(71)]}, "used twice"),
        ({"images": [image([1])]}, r"images\[0\] has the id \[1\]"),
        ({"images": [image(width=20, height=40)]}, r"images\[0\]: states 20 x 40 px"),
        ({"images": [image(width="40")]}, "not two numbers"),
        ({"images": [{"id": 1}]}, r"images\[0\] has no 'file_name'"),
        ({"images": 5}, "the list 'images' is missing"),
        ({"images": []}, "there is no picture for train"),
        (
            {"categories": [{"id": 9, "name": "ship"}, {"id": 2, "name": "ship"}]},
            r"categories\[1\] has the name 'ship'",
        ),
        ({"categories": [{"id": 9, "name": 4}]}, r"categories\[0\] has the name 4"),
    ],
)
def test_a_malformed_list_is_an_error_with_its_place(
    tmp_path: Path, out: Path, changes: dict[str, Any], message: str
) -> None:
    path = write_coco(tmp_path, [])
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match=message):
        run("coco", path, "--out", out)


@pytest.mark.parametrize("name", ["../a.png", "/a.png", "b/../../a.png", "..\\a.png", ""])
def test_a_picture_outside_the_folder_is_an_error(tmp_path: Path, out: Path, name: str) -> None:
    path = write_coco(tmp_path, [])
    path.write_text(path.read_text().replace('"a.png"', json.dumps(name)))
    with pytest.raises(ValueError, match=r"images\[0\]: picture .* is not a path below"):
        run("coco", path, "--out", out)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n"images": [,]}', r"a\.json:2: not JSON at column"),
        ("[" * 100_000, r"a\.json: not COCO"),
        ("[" + "9" * 5000 + "]", r"a\.json: not COCO"),
        ("[]", r"a\.json: not a COCO detection file"),
    ],
)
def test_a_file_that_is_not_coco_is_an_error(tmp_path: Path, out: Path, text: str, message: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        run("coco", tmp_path / "a.json", "--out", out)


@pytest.mark.skipif(not REAL.is_dir(), reason="real pictures lie beside the checkout in shared/data, not here")
def test_real_annotations_come_through_unchanged(out: Path) -> None:
    run("coco", f"val={REAL / 'instances_val.json'}", "--out", out, "--link", "copy")
    classes = tuple(category["name"] for category in read(out, "val")["categories"])
    before = read_coco(REAL / "instances_val.json", classes, Report())
    after = read_coco(out / "instances_val.json", classes, Report())
    assert [entry.file_name for entry in after] == [entry.file_name for entry in before]
    assert [entry.boxes_xywh.tolist() for entry in after] == [entry.boxes_xywh.tolist() for entry in before]
    assert [entry.labels.tolist() for entry in after] == [entry.labels.tolist() for entry in before]
    assert sum(len(entry.labels) for entry in after) == 838
