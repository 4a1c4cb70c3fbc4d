"""NWPU VHR-10 in its published form."""

from pathlib import Path

import pytest
from PIL import Image

from converting import objects, read, run


def write_nwpu(root: Path, truths: dict[str, str], negatives: int = 0) -> Path:
    """The published folders with 40 x 20 px pictures; ground truth by number."""
    for folder in ("positive image set", "negative image set", "ground truth"):
        (root / folder).mkdir(parents=True)
    for number, text in truths.items():
        Image.new("RGB", (40, 20)).save(root / "positive image set" / f"{number}.jpg")
        (root / "ground truth" / f"{number}.txt").write_text(text, encoding="utf-8", newline="")
    for number in range(1, negatives + 1):
        Image.new("RGB", (40, 20)).save(root / "negative image set" / f"{number:03d}.jpg")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_corners_become_boxes_and_numbers_classes(tmp_path: Path, out: Path) -> None:
    # line ends, spaces and blank lines as in the published files
    text = "(3,4),(13,10),1 \r\n( 5, 6),(15 ,16),10\r\n\r\n"
    run("nwpu", write_nwpu(tmp_path / "s", {"001": text}), "--out", out)
    assert objects(out) == [("airplane", [3, 4, 10, 6], 0), ("vehicle", [5, 6, 10, 10], 0)]


def test_categories_have_the_published_numbers(tmp_path: Path, out: Path) -> None:
    run("nwpu", write_nwpu(tmp_path / "s", {"001": ""}), "--out", out)
    names = "airplane,ship,storage tank,baseball diamond,tennis court,basketball court,ground track field,harbor,"
    assert [(entry["id"], entry["name"]) for entry in read(out)["categories"]] == list(
        enumerate((names + "bridge,vehicle").split(","), start=1)
    )


def test_an_empty_ground_truth_is_a_picture_without_objects(tmp_path: Path, out: Path) -> None:
    run("nwpu", write_nwpu(tmp_path / "s", {"001": ""}), "--out", out)
    assert (len(read(out)["images"]), objects(out)) == (1, [])


def test_negative_pictures_are_left_out_and_counted(tmp_path: Path, out: Path) -> None:
    report = run("nwpu", write_nwpu(tmp_path / "s", {"001": ""}, negatives=3), "--out", out)
    assert len(read(out)["images"]) == 1
    assert "3 pictures of the negative set left out" in report


def test_negative_pictures_get_names_of_their_own(tmp_path: Path, out: Path) -> None:
    run("nwpu", write_nwpu(tmp_path / "s", {"001": ""}, negatives=1), "--out", out, "--negatives")
    assert [image["file_name"] for image in read(out)["images"]] == ["001.jpg", "negative_001.jpg"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("(1,2),(3,4)", "is not `"),
        ("(1,2),(3,4),1,5", "is not `"),
        ("1,2,3,4,1", "is not `"),
        ("(1,2),(3,x),1", "a corner is 'x'"),
        ("(1,2),(3,nan),1", "a corner is 'nan', not a finite number"),
        ("(1,2),(3,1e999),1", "a corner is '1e999'"),
        ("(1,2),(3,),1", "a corner is ''"),
        ("(1,2),(3,4),11", "the class is '11', not a whole number from 1 to 10"),
        ("(1,2),(3,4),1.5", "the class is '1.5'"),
        ("(9,2),(3,4),1", "ends before it begins; exchange its corners"),
    ],
)
def test_a_malformed_line_is_an_error_with_file_and_line(tmp_path: Path, out: Path, line: str, message: str) -> None:
    root = write_nwpu(tmp_path / "s", {"001": f"(3,4),(13,10),1\n\n{line}\n"})
    with pytest.raises(ValueError, match=r"001\.txt:3: ") as caught:
        run("nwpu", root, "--out", out)
    assert message in str(caught.value)


def test_bytes_that_are_not_utf_8_are_an_error_with_their_line(tmp_path: Path, out: Path) -> None:
    root = write_nwpu(tmp_path / "s", {"001": ""})
    (root / "ground truth" / "001.txt").write_bytes(b"(3,4),(13,10),1\n\xff\xfa")
    with pytest.raises(ValueError, match=r"001\.txt:2: not utf-8 text; save the file as UTF-8"):
        run("nwpu", root, "--out", out)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_honoured(tmp_path: Path, out: Path, encoding: str) -> None:
    root = write_nwpu(tmp_path / "s", {"001": ""})
    (root / "ground truth" / "001.txt").write_text("(3,4),(13,10),1\n", encoding=encoding)
    run("nwpu", root, "--out", out)
    assert objects(out) == [("airplane", [3, 4, 10, 6], 0)]


def test_a_picture_without_ground_truth_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_nwpu(tmp_path / "s", {"001": "", "002": ""})
    (root / "ground truth" / "002.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"002\.jpg has no .*002\.txt; make an empty one"):
        run("nwpu", root, "--out", out)


def test_ground_truth_without_a_picture_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_nwpu(tmp_path / "s", {"001": "", "002": ""})
    (root / "positive image set" / "002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"002\.txt has no picture"):
        run("nwpu", root, "--out", out)


def test_a_folder_of_another_kind_is_an_error(tmp_path: Path, out: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*positive image set"):
        run("nwpu", tmp_path, "--out", out)
