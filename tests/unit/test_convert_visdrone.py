"""VisDrone-DET in its published form."""

from pathlib import Path

import pytest
from PIL import Image

from converting import objects, run


def write_visdrone(root: Path, text: str) -> Path:
    """The published folders with one picture of 40 x 20 px."""
    for folder in ("images", "annotations"):
        (root / folder).mkdir(parents=True)
    Image.new("RGB", (40, 20)).save(root / "images" / "0000001_1.jpg")
    (root / "annotations" / "0000001_1.txt").write_text(text, encoding="utf-8", newline="")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_boxes_and_categories_are_read(tmp_path: Path, out: Path) -> None:
    text = "3,4,10,6,1,1,0,2\r\n5,6,7,8,1,10,1,0,\r\n"  # a comma at the end, as in some published files
    run("visdrone", write_visdrone(tmp_path / "s", text), "--out", out)
    assert objects(out) == [("pedestrian", [3, 4, 10, 6], 0), ("motor", [5, 6, 7, 8], 0)]


@pytest.mark.parametrize("category", [0, 11])
def test_regions_without_a_class_are_crowd_for_every_class(tmp_path: Path, out: Path, category: int) -> None:
    run("visdrone", write_visdrone(tmp_path / "s", f"3,4,10,6,0,{category},0,0\n"), "--out", out)
    found = objects(out)
    assert len({name for name, _, _ in found}) == len(found) == 10
    assert {(tuple(box), crowd) for _, box, crowd in found} == {((3, 4, 10, 6), 1)}


def test_regions_without_a_class_never_become_objects(tmp_path: Path, out: Path) -> None:
    run("visdrone", write_visdrone(tmp_path / "s", "3,4,10,6,1,11,0,0\n"), "--out", out, "--difficult", "keep")
    assert {crowd for _, _, crowd in objects(out)} == {1}


def test_score_zero_means_ignored(tmp_path: Path, out: Path) -> None:
    run("visdrone", write_visdrone(tmp_path / "s", "3,4,10,6,0,4,0,0\n"), "--out", out)
    assert objects(out) == [("car", [3, 4, 10, 6], 1)]


def test_ignored_boxes_can_be_left_out(tmp_path: Path, out: Path) -> None:
    root = write_visdrone(tmp_path / "s", "3,4,10,6,0,4,0,0\n3,4,10,6,0,0,0,0\n3,4,10,6,1,4,0,0\n")
    report = run("visdrone", root, "--out", out, "--difficult", "drop")
    assert objects(out) == [("car", [3, 4, 10, 6], 0)]
    assert "2 difficult, ignored or crowd boxes left out" in report


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("3,4,10,6,1,4,0", "7 fields, not the 8 of `x,y,w,h,score,category,truncation,occlusion`; correct the line"),
        ("3,4,10,6,1,4,0,0,1", "9 fields"),
        ("3,4,10,six,1,4,0,0", "a field is 'six'"),
        ("3,nan,10,6,1,4,0,0", "a field is 'nan', not a finite number"),
        ("3,4,1_0,6,1,4,0,0", "a field is '1_0'"),
        ("3,4,10,6,1,12,0,0", "the category is '12', not a whole number from 0 to 11"),
        ("3,4,-10,6,1,4,0,0", "ends before it begins"),
    ],
)
def test_a_malformed_line_is_an_error_with_file_and_line(tmp_path: Path, out: Path, line: str, message: str) -> None:
    root = write_visdrone(tmp_path / "s", f"3,4,10,6,1,4,0,0\n{line}\n")
    with pytest.raises(ValueError, match=r"0000001_1\.txt:2: ") as caught:
        run("visdrone", root, "--out", out)
    assert message in str(caught.value)


def test_a_colon_has_no_meaning_here(tmp_path: Path, out: Path) -> None:
    with pytest.raises(FileNotFoundError, match="this format takes"):
        run("visdrone", f"{write_visdrone(tmp_path / 's', '')}:train", "--out", out)
