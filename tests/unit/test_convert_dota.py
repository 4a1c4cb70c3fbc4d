"""DOTA in its published form."""

from pathlib import Path

import pytest
from PIL import Image

from converting import objects, read, run

PLANE = "3 4 13 4 13 10 3 10 plane 0\n"


def write_dota(root: Path, text: str, labels: str = "labelTxt", size: tuple[int, int] = (40, 20)) -> Path:
    """The published folders with one picture."""
    for folder in ("images", labels):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", size).save(root / "images" / "P0001.png")
    (root / labels / "P0001.txt").write_text(text, encoding="utf-8", newline="")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_an_oriented_box_becomes_the_upright_one_around_it(tmp_path: Path, out: Path) -> None:
    text = "imagesource:GoogleEarth\r\ngsd:0.146\r\n10.0 2.5 18.0 8.0 12.0 16.0 4.0 9.0 large-vehicle 0\r\n"
    run("dota", write_dota(tmp_path / "s", text), "--out", out)
    assert objects(out) == [("large-vehicle", [4, 2.5, 14, 13.5], 0)]


@pytest.mark.parametrize("header", ["", "imagesource:\ngsd:\n", "gsd:null\n", "\nimagesource:GF2\n\ngsd:1\n"])
def test_the_header_may_be_empty_or_absent(tmp_path: Path, out: Path, header: str) -> None:
    run("dota", write_dota(tmp_path / "s", header + PLANE), "--out", out)
    assert objects(out) == [("plane", [3, 4, 10, 6], 0)]


@pytest.mark.parametrize(("flag", "crowd"), [(0, 0), (1, 1), (2, 1)])
def test_difficult_objects_are_crowd(tmp_path: Path, out: Path, flag: int, crowd: int) -> None:
    run("dota", write_dota(tmp_path / "s", PLANE.replace("0\n", f"{flag}\n")), "--out", out)
    assert [entry[2] for entry in objects(out)] == [crowd]


@pytest.mark.parametrize(
    ("version", "classes", "last"), [("1.0", 15, "helicopter"), ("1.5", 16, "container-crane"), ("2.0", 18, "helipad")]
)
def test_each_version_has_its_classes(tmp_path: Path, out: Path, version: str, classes: int, last: str) -> None:
    root = write_dota(tmp_path / "s", PLANE.replace("plane", last))
    run("dota", root, "--out", out, "--version", version)
    assert (len(read(out)["categories"]), objects(out)[0][0]) == (classes, last)


def test_another_folder_of_labels_can_be_named(tmp_path: Path, out: Path) -> None:
    root = write_dota(tmp_path / "s", PLANE, "labelTxt-v1.5/DOTA-v1.5_val")
    run("dota", f"val={root}:labelTxt-v1.5/DOTA-v1.5_val", "--out", out)
    assert len(objects(out, "val")) == 1


def test_chips_are_named_by_picture_and_place_and_share_the_object_between_them(tmp_path: Path, out: Path) -> None:
    root = write_dota(tmp_path / "s", "18 4 28 4 28 10 18 10 ship 0\n")
    run("dota", root, "--out", out, "--chip", 24, "--overlap", 8, "--min-visible", 0.7)
    assert [image["file_name"] for image in read(out)["images"]] == ["P0001__0__0.png", "P0001__16__0.png"]
    assert objects(out) == [("ship", [18, 4, 6, 6], 1), ("ship", [2, 4, 10, 6], 0)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3 4 13 4 13 10 3 10 plane", "9 fields, not the 10 of `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`"),
        ("3 4 13 4 13 10 3 10 storage tank 0", "11 fields"),
        ("3 4 13 4 13 ten 3 10 plane 0", "a corner is 'ten'"),
        ("3 4 13 4 13 NaN 3 10 plane 0", "a corner is 'NaN', not a finite number"),
        ("3 4 13 4 13 10 3 10 plane 3", "difficult is '3', not a whole number from 0 to 2"),
        ("3 4 13 4 13 10 3 10 zeppelin 0", "unknown class 'zeppelin'"),
        ("gsd:0.1", "1 fields"),
    ],
)
def test_a_malformed_line_is_an_error_with_file_and_line(tmp_path: Path, out: Path, line: str, message: str) -> None:
    root = write_dota(tmp_path / "s", f"imagesource:x\ngsd:1\n{PLANE}{line}\n")
    with pytest.raises(ValueError, match=r"P0001\.txt:4: ") as caught:
        run("dota", root, "--out", out)
    assert message in str(caught.value)


def test_a_newer_class_names_the_option_that_leaves_it_out(tmp_path: Path, out: Path) -> None:
    root = write_dota(tmp_path / "s", PLANE + PLANE.replace("plane", "helipad"))
    with pytest.raises(ValueError, match=r"unknown class 'helipad'.*--ignore"):
        run("dota", root, "--out", out)
    assert "1 boxes of class helipad left out" in run("dota", root, "--out", out, "--ignore", "helipad")


def test_a_very_large_picture_needs_a_raised_limit_and_then_is_cut(tmp_path: Path, out: Path) -> None:
    root = write_dota(tmp_path / "s", PLANE, size=(1200, 900))
    with pytest.raises(ValueError, match=r"P0001\.png has 1200 x 900 px, the limit is 1 MP; raise it with --max-meg"):
        run("dota", root, "--out", out, "--chip", 1024, "--max-megapixels", 1)
    run("dota", root, "--out", out, "--chip", 1024, "--max-megapixels", 2)
    assert [image["file_name"] for image in read(out)["images"]] == ["P0001__0__0.png", "P0001__176__0.png"]
