"""YOLO text: folders, data.yaml, boxes and polygons."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from converting import read, run

SHIP = "0 0.5 0.5 0.25 0.5\n"
SHIP_BOX = [15, 5, 10, 10]


def objects(out: Path, split: str = "train") -> list[tuple[str, list[float]]]:
    """(class, bbox) of every annotation."""
    data = read(out, split)
    names = {category["id"]: category["name"] for category in data["categories"]}
    return [(names[entry["category_id"]], entry["bbox"]) for entry in data["annotations"]]


def write_yolo(root: Path, pictures: dict[str, str | None], **files: str) -> Path:
    """Pictures of 40 x 20 px below `images` with their texts below `labels`; `classes.txt` unless files are given."""
    for name, text in pictures.items():
        picture, label = root / "images" / name, (root / "labels" / name).with_suffix(".txt")
        for path in (picture, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20)).save(picture)
        if text is not None:
            label.write_text(text, encoding="utf-8", newline="")
    for name, text in (files or {"classes_txt": "ship\r\ntank\r\n"}).items():
        (root / name.replace("_", ".")).write_text(text, encoding="utf-8", newline="")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_fractions_become_pixels(tmp_path: Path, out: Path) -> None:
    run("yolo", write_yolo(tmp_path / "s", {"a.png": f"\ufeff{SHIP}1 0.125 0.25 0.05 0.1\r\n"}), "--out", out)
    assert objects(out) == [("ship", SHIP_BOX), ("tank", [4, 4, 2, 2])]


@pytest.mark.parametrize("points", ["0.25 0.5 0.5 0.25 0.75 0.6", "0.25 0.25 0.75 0.25 0.75 0.6 0.25 0.6"])
def test_a_polygon_becomes_the_box_around_it(tmp_path: Path, out: Path, points: str) -> None:
    run("yolo", write_yolo(tmp_path / "s", {"a.png": f"1 {points}\n"}), "--out", out)
    assert objects(out) == [("tank", [10, 5, 20, 7])]


def test_an_empty_or_missing_label_is_a_picture_without_objects(tmp_path: Path, out: Path) -> None:
    report = run("yolo", write_yolo(tmp_path / "s", {"a.png": SHIP, "b.png": "", "c.png": None}), "--out", out)
    assert len(read(out)["images"]) == 3
    assert objects(out) == [("ship", SHIP_BOX)]
    assert "1 pictures have no label file" in report


@pytest.mark.parametrize(
    "names", ["[ship, 7]", "{0: ship, 1: 7}", "{1: 7, 0: ship}", "\n  - ship\n  - '7'", "\n  0: ship\n  1: 7"]
)
def test_names_may_be_a_list_or_numbered(tmp_path: Path, out: Path, names: str) -> None:
    root = write_yolo(tmp_path / "s", {"a.png": SHIP}, data_yaml=f"nc: 2\nnames: {names}\n")
    run("yolo", root, "--out", out)
    assert [entry["name"] for entry in read(out)["categories"]] == ["ship", "7"]


def test_a_yaml_file_names_the_splits(tmp_path: Path, out: Path) -> None:
    text = "path: .\ntrain: [images/train, images/more]\nval: images/val\ntest:\nnames: [ship, tank]\n"
    pictures: dict[str, str | None] = {"train/a.png": SHIP, "more/b.png": SHIP, "val/c.png": SHIP}
    run("yolo", write_yolo(tmp_path / "s", pictures, data_yaml=text) / "data.yaml", "--out", out)
    assert [image["file_name"] for image in read(out)["images"]] == ["a.png", "b.png"]
    assert objects(out, "val") == [("ship", SHIP_BOX)]


def test_a_split_may_be_a_list_of_pictures(tmp_path: Path, out: Path) -> None:
    text = "train: train.txt\nnames: [ship, tank]\n"
    root = write_yolo(tmp_path / "s", {"a.png": SHIP, "b.png": SHIP}, data_yaml=text, train_txt="./images/b.png\n")
    run("yolo", root / "data.yaml", "--out", out)
    assert [image["file_name"] for image in read(out)["images"]] == ["b.png"]


def test_a_picture_missing_from_a_list_is_an_error_with_its_line(tmp_path: Path, out: Path) -> None:
    text = "train: train.txt\nnames: [ship, tank]\n"
    root = write_yolo(tmp_path / "s", {"a.png": SHIP}, data_yaml=text, train_txt="images/a.png\nimages/z.png\n")
    with pytest.raises(FileNotFoundError, match=r"train\.txt:2: there is no picture .*z\.png"):
        run("yolo", root / "data.yaml", "--out", out)


def test_exporters_that_point_one_folder_too_high_are_understood(tmp_path: Path, out: Path) -> None:
    root = tmp_path / "s"
    write_yolo(root / "train", {"a.png": SHIP})
    (root / "data.yaml").write_text("train: ../train/images\nnames: [ship, tank]\n")
    run("yolo", root / "data.yaml", "--out", out)
    assert objects(out) == [("ship", SHIP_BOX)]


def test_a_sub_folder_can_be_a_split(tmp_path: Path, out: Path) -> None:
    root = write_yolo(tmp_path / "s", {"one/a.png": SHIP, "two/a.png": SHIP})
    run("yolo", f"train={root}:one", f"val={root}:two", "--out", out, "--prefix")
    assert [image["file_name"] for image in read(out, "val")["images"]] == ["val1_a.png"]


def test_labels_may_lie_beside_the_pictures(tmp_path: Path, out: Path) -> None:
    root = tmp_path / "s"
    write_yolo(root, {"a.png": SHIP}, data_yaml="train: data\nnames: [ship, tank]\n")
    (root / "images").rename(root / "data")
    (root / "labels" / "a.txt").rename(root / "data" / "a.txt")
    (root / "data" / "README.txt").write_text("not a label")
    run("yolo", root / "data.yaml", "--out", out)
    assert objects(out) == [("ship", SHIP_BOX)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2 0.5 0.5 0.2 0.2", "the class is '2', not a whole number from 0 to 1"),
        ("ship 0.5 0.5 0.2 0.2", "the class is 'ship'"),
        ("-1 0.5 0.5 0.2 0.2", "the class is '-1'"),
        ("0 0.5 0.5 0.2", "4 fields, not `class cx cy w h` or a polygon"),
        ("0", "1 fields"),
        ("0 0.5 0.5 0.2 0.2 0.9", "6 fields"),
        ("0 0.5 0.5 0.2 nan", "a coordinate is 'nan', not a finite number"),
        ("0 0,5 0.5 0.2 0.2", "a coordinate is '0,5'"),
        ("0 20 10 5 5", "is not in fractions of the picture; divide by its sides"),
        ("0 0.5 0.5 -0.2 0.2", "ends before it begins"),
    ],
)
def test_a_malformed_line_is_an_error_with_file_and_line(tmp_path: Path, out: Path, line: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"a\.txt:2: ") as caught:
        run("yolo", write_yolo(tmp_path / "s", {"a.png": f"{SHIP}{line}\n"}), "--out", out)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: [a, a]", "the class names"),
        ("names: []", "the class names"),
        ("names: [yes, no]", "class name True is not a text; put it in quotes"),
        ("names: {1: a, 2: b}", r"names are numbered \[1, 2\], not 0 to 1"),
        ("names: ship", "names is 'ship', not a list"),
        ("nc: 2", "names is None, not a list"),
        ("nc: 3\nnames: [a, b]", "nc is 3, but there are 2 names"),
        ("names: [a\nb: [", r"data\.yaml:\d: not YAML"),
        ("- a", "not a mapping"),
        ("names: !!python/object/apply:os.getcwd []", r"data\.yaml:1: not YAML"),
    ],
)
def test_a_malformed_yaml_file_is_an_error(tmp_path: Path, out: Path, text: str, message: str) -> None:
    root = write_yolo(tmp_path / "s", {"a.png": SHIP}, data_yaml=text)
    with pytest.raises(ValueError, match=message):
        run("yolo", root, "--out", out)


def test_a_yaml_file_without_splits_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_yolo(tmp_path / "s", {"a.png": SHIP}, data_yaml="names: [a]")
    with pytest.raises(ValueError, match=r"names neither train, val nor test; give its folder"):
        run("yolo", root / "data.yaml", "--out", out)


def test_a_yaml_file_that_names_a_missing_folder_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_yolo(tmp_path / "s", {"a.png": SHIP}, data_yaml="val: images/val\nnames: [a]")
    with pytest.raises(FileNotFoundError, match=r"data\.yaml: there is no 'images/val' in"):
        run("yolo", root / "data.yaml", "--out", out)


def test_a_folder_without_names_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_yolo(tmp_path / "s", {"a.png": SHIP})
    (root / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither data\.yaml nor classes\.txt"):
        run("yolo", root, "--out", out)


def test_a_label_without_a_picture_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_yolo(tmp_path / "s", {"a.png": SHIP, "b.png": SHIP})
    (root / "images" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.txt has no picture below"):
        run("yolo", root, "--out", out)


def test_no_label_at_all_is_an_error(tmp_path: Path, out: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"a\.png has no .*a\.txt, and no other picture"):
        run("yolo", write_yolo(tmp_path / "s", {"a.png": None}), "--out", out)


def test_sources_with_other_classes_are_not_merged(tmp_path: Path, out: Path) -> None:
    one = write_yolo(tmp_path / "one", {"a.png": SHIP})
    two = write_yolo(tmp_path / "two", {"b.png": SHIP}, classes_txt="tank\nship\n")
    with pytest.raises(ValueError, match="have different classes; convert them apart"):
        run("yolo", one, two, "--out", out)


@settings(max_examples=30, deadline=None)
@given(
    sides=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    found=st.lists(
        st.tuples(
            st.integers(0, 1), *(st.floats(0, 0.45) for _ in range(2)), *(st.floats(0.05, 0.5) for _ in range(2))
        ),
        max_size=4,
    ),
)
def test_boxes_survive_the_way_from_coco_to_yolo_and_back(
    sides: tuple[int, int], found: list[tuple[int, float, float, float, float]]
) -> None:
    width, height = sides
    boxes = [(label, x * width, y * height, w * width, h * height) for label, x, y, w, h in found]
    lines = [
        f"{label} {(x + w / 2) / width:.9f} {(y + h / 2) / height:.9f} {w / width:.9f} {h / height:.9f}\n"
        for label, x, y, w, h in boxes
    ]
    with tempfile.TemporaryDirectory() as folder:
        root = write_yolo(Path(folder) / "s", {"a.png": "".join(lines)})
        Image.new("RGB", sides).save(root / "images" / "a.png")
        run("yolo", root, "--out", Path(folder) / "out")
        back = objects(Path(folder) / "out")
    assert [name for name, _ in back] == [("ship", "tank")[label] for label, *_ in boxes]
    for (_, box), (_, *wanted) in zip(back, boxes, strict=True):
        assert box == pytest.approx(wanted, abs=2e-3)
