"""What all formats share: the layout, linking, clipping, chips, splits, and all or nothing."""

import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from converting import read, run
from training.data.convert.chips import Chipping, boxes_in
from training.data.convert.records import Box
from training.data.datasets import CocoDataset


def visdrone(root: Path, pictures: dict[str, str], size: tuple[int, int] = (40, 20), **save: Any) -> Path:
    """A VisDrone folder: the shortest of the formats. Pictures by name, with the lines of their annotations."""
    for number, (name, lines) in enumerate(pictures.items()):
        for folder in ("images", "annotations"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "images" / name, **save)
        (root / "annotations" / name).with_suffix(".txt").write_text(lines, encoding="utf-8")
    return root


def boxes(out: Path, split: str = "train") -> list[list[float]]:
    return [annotation["bbox"] for annotation in read(out, split)["annotations"]]


CAR = "4,2,10,6,1,4,0,0\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return visdrone(tmp_path / "source", {"a.jpg": CAR, "b.jpg": "", "c.jpg": CAR + CAR, "d.jpg": CAR})


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "new" / "out"


def test_training_reads_what_is_written(source: Path, out: Path) -> None:
    run("visdrone", source, "--out", out)
    classes = tuple(category["name"] for category in read(out)["categories"])
    dataset = CocoDataset(out / "images", out / "instances_train.json", classes, size=None)
    assert len(dataset) == 4
    assert dataset[0].boxes.tolist() == [[4, 2, 14, 8]]
    assert classes[dataset[0].labels[0]] == "car"


def test_ids_count_from_one_and_areas_are_those_of_the_boxes(source: Path, out: Path) -> None:
    run("visdrone", source, "--out", out)
    data = read(out)
    assert [image["id"] for image in data["images"]] == [1, 2, 3, 4]
    assert [annotation["id"] for annotation in data["annotations"]] == [1, 2, 3, 4]
    assert [category["id"] for category in data["categories"]] == list(range(1, 11))
    assert {annotation["area"] for annotation in data["annotations"]} == {60.0}


def test_pictures_are_hard_links_by_default(source: Path, out: Path) -> None:
    run("visdrone", source, "--out", out)
    assert os.path.samefile(out / "images" / "a.jpg", source / "images" / "a.jpg")


def test_copies_are_files_of_their_own(source: Path, out: Path) -> None:
    run("visdrone", source, "--out", out, "--link", "copy")
    copied, original = out / "images" / "a.jpg", source / "images" / "a.jpg"
    assert not os.path.samefile(copied, original)
    assert copied.read_bytes() == original.read_bytes()


def test_where_hard_links_are_impossible_pictures_are_copied(
    source: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    run("visdrone", source, "--out", out)
    assert not os.path.samefile(out / "images" / "a.jpg", source / "images" / "a.jpg")


def test_a_symbolic_link_in_the_source_is_not_one_in_the_result(source: Path, out: Path) -> None:
    (source / "images" / "a.jpg").rename(source / "real.jpg")
    (source / "images" / "a.jpg").symlink_to(source / "real.jpg")
    run("visdrone", source, "--out", out)
    assert not (out / "images" / "a.jpg").is_symlink()


def test_a_folder_with_something_in_it_is_refused(source: Path, out: Path) -> None:
    out.mkdir(parents=True)
    (out / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="not an empty folder"):
        run("visdrone", source, "--out", out)
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_filled(source: Path, out: Path) -> None:
    out.mkdir(parents=True)
    run("visdrone", source, "--out", out)
    assert (out / "instances_train.json").is_file()


def test_nothing_is_left_behind_by_a_failure(source: Path, out: Path) -> None:
    (source / "annotations" / "d.txt").write_text("nonsense")
    with pytest.raises(ValueError, match=r"d\.txt:1"):
        run("visdrone", source, "--out", out)
    assert list(out.parent.iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        run("visdrone", source, "--out", out, "--link", "copy")
    assert list(out.parent.iterdir()) == []


def test_boxes_are_clipped_and_those_outside_left_out_both_counted(tmp_path: Path, out: Path) -> None:
    lines = "-5,-5,10,10,1,4,0,0\n35,15,20,20,1,4,0,0\n50,5,10,10,1,4,0,0\n5,5,0,3,1,4,0,0\n"
    report = run("visdrone", visdrone(tmp_path / "s", {"a.jpg": lines}), "--out", out)
    assert boxes(out) == [[0, 0, 5, 5], [35, 15, 5, 5]]
    assert "2 boxes clipped at the border" in report
    assert "2 boxes left out: no area" in report


def test_the_report_counts_pictures_boxes_and_classes(source: Path, out: Path) -> None:
    report = run("visdrone", source, "--out", out).splitlines()
    rows = {line.rsplit(maxsplit=1)[0].strip(): int(line.rsplit(maxsplit=1)[1]) for line in report[1:]}
    assert (rows["pictures"], rows["without boxes"], rows["boxes"], rows["car"], rows["bus"]) == (4, 1, 4, 4, 0)


def test_an_ignored_class_is_left_out_and_gets_no_category(source: Path, out: Path) -> None:
    report = run("visdrone", source, "--out", out, "--ignore", "car,bus")
    assert boxes(out) == []
    assert "car" not in [category["name"] for category in read(out)["categories"]]
    assert "4 boxes of class car left out" in report


def test_an_exif_orientation_is_reported_and_not_applied(tmp_path: Path, out: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    report = run("visdrone", visdrone(tmp_path / "s", {"a.jpg": CAR}, exif=exif), "--out", out)
    assert (read(out)["images"][0]["width"], boxes(out)) == (40, [[4, 2, 10, 6]])
    assert "1 pictures carry an EXIF orientation" in report


def test_a_file_that_is_no_picture_is_named(source: Path, out: Path) -> None:
    (source / "images" / "b.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"b\.jpg cannot be read as a picture"):
        run("visdrone", source, "--out", out)


def test_a_picture_above_the_limit_is_refused_with_the_option_that_raises_it(source: Path, out: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.jpg has 40 x 20 px, the limit is 0\.0005 MP.*--max-megapixels"):
        run("visdrone", source, "--out", out, "--max-megapixels", 0.0005)


def test_the_limit_of_pillow_is_as_before(source: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    run("visdrone", source, "--out", out, "--chip", 16, "--overlap", 4)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--max-megapixels", "nan"), "--max-megapixels is nan"),
        (("--max-megapixels", "inf"), "--max-megapixels is inf"),
        (("--val-share", "1.5"), "--val-share is 1.5"),
        (("--val-share", "0.01"), "takes 0 of 4"),
        (("--chip", "100"), "--overlap is 200 px"),
        (("--chip", "300", "--min-visible", "0"), "--min-visible is 0.0"),
    ],
)
def test_an_option_out_of_range_is_named(source: Path, out: Path, option: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("visdrone", source, "--out", out, *option)


def test_sources_go_to_the_splits_they_name(source: Path, tmp_path: Path, out: Path) -> None:
    other = visdrone(tmp_path / "other", {"e.jpg": CAR})
    run("visdrone", f"train={source}", f"val={other}", "--out", out)
    assert [image["file_name"] for image in read(out, "val")["images"]] == ["e.jpg"]
    assert len(read(out)["images"]) == 4


def test_a_share_of_train_goes_to_val_and_depends_on_the_seed_only(source: Path, tmp_path: Path) -> None:
    chosen = []
    for number, seed in enumerate((0, 0, 1, 2, 3)):
        run("visdrone", source, "--out", tmp_path / str(number), "--val-share", 0.5, "--seed", seed)
        chosen.append({image["file_name"] for image in read(tmp_path / str(number), "val")["images"]})
    assert {len(names) for names in chosen} == {2}
    assert chosen[0] == chosen[1]
    assert len({frozenset(names) for names in chosen}) > 1


def test_a_list_names_the_val_pictures_with_or_without_suffix(source: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "val.txt").write_bytes(b"\xef\xbb\xbfc\r\na.jpg\r\n")
    run("visdrone", source, "--out", out, "--val-list", tmp_path / "val.txt")
    assert [image["file_name"] for image in read(out, "val")["images"]] == ["a.jpg", "c.jpg"]


def test_an_unknown_name_in_the_list_is_an_error_with_its_line(source: Path, tmp_path: Path, out: Path) -> None:
    (tmp_path / "val.txt").write_text("a\n\nz\n")
    with pytest.raises(ValueError, match=r"val\.txt:3: 'z' is not among the 4 train pictures"):
        run("visdrone", source, "--out", out, "--val-list", tmp_path / "val.txt")


def test_one_name_in_two_sources_is_an_error(source: Path, tmp_path: Path, out: Path) -> None:
    other = visdrone(tmp_path / "other", {"a.jpg": CAR})
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.jpg have one name; --prefix"):
        run("visdrone", source, other, "--out", out)


def test_a_prefix_tells_sources_apart(source: Path, tmp_path: Path, out: Path) -> None:
    other = visdrone(tmp_path / "other", {"a.jpg": CAR})
    run("visdrone", source, other, f"val={visdrone(tmp_path / 'third', {'a.jpg': CAR})}", "--out", out, "--prefix")
    assert {path.name for path in (out / "images").glob("*a.jpg")} == {"train1_a.jpg", "train2_a.jpg", "val1_a.jpg"}


def test_the_same_picture_in_two_splits_is_an_error_even_with_a_prefix(source: Path, out: Path) -> None:
    with pytest.raises(ValueError, match="used twice, in train and in val"):
        run("visdrone", source, f"val={source}", "--out", out, "--prefix")


def test_a_missing_source_is_named(tmp_path: Path, out: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no .*nowhere; a source is written"):
        run("visdrone", f"val={tmp_path / 'nowhere'}", "--out", out)


def test_a_path_that_exists_is_not_taken_apart(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run("visdrone", visdrone(Path("run=1:2"), {"a.jpg": CAR}), "--out", out)
    assert len(read(out)["images"]) == 1


def test_large_pictures_are_cut_and_small_ones_stay_whole(tmp_path: Path, out: Path) -> None:
    root = visdrone(tmp_path / "s", {"big.png": CAR}, size=(50, 30))
    visdrone(root, {"small.png": CAR}, size=(20, 20))
    run("visdrone", root, "--out", out, "--chip", 24, "--overlap", 4)
    names = {image["file_name"]: (image["width"], image["height"]) for image in read(out)["images"]}
    wanted = {f"big__{x}__{y}.png": (24, 24) for x in (0, 20, 26) for y in (0, 6)}
    assert names == {**wanted, "small.png": (20, 20)}


def test_a_chip_shows_the_pixels_of_its_place(tmp_path: Path, out: Path) -> None:
    root = visdrone(tmp_path / "s", {"a.png": ""}, size=(50, 30))
    run("visdrone", root, "--out", out, "--chip", 24, "--overlap", 4)
    with Image.open(root / "images" / "a.png") as whole, Image.open(out / "images" / "a__20__6.png") as chip:
        np.testing.assert_array_equal(np.asarray(chip), np.asarray(whole)[6:30, 20:44])


def test_a_grey_picture_is_cut_into_rgb_chips(tmp_path: Path, out: Path) -> None:
    root = visdrone(tmp_path / "s", {"a.png": ""})
    Image.new("L", (40, 20), 7).save(root / "images" / "a.png")
    run("visdrone", root, "--out", out, "--chip", 24, "--overlap", 4)
    with Image.open(out / "images" / "a__0__0.png") as chip:
        assert (chip.mode, chip.getpixel((0, 0))) == ("RGB", (7, 7, 7))


def test_a_picture_cut_short_is_named_when_it_is_chipped(tmp_path: Path, out: Path) -> None:
    root = visdrone(tmp_path / "s", {"a.png": ""}, size=(90, 90))
    picture = root / "images" / "a.png"
    picture.write_bytes(picture.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded"):
        run("visdrone", root, "--out", out, "--chip", 24, "--overlap", 4)


def test_a_box_that_is_mostly_outside_a_chip_is_crowd_there() -> None:
    box = Box((8, 0, 18, 10), 0, crowd=False)
    ((_, left),) = boxes_in((0, 0, 16, 16), [box], 0.7)
    ((_, right),) = boxes_in((12, 0, 28, 16), [box], 0.7)
    assert left == Box((8, 0, 16, 10), 0, crowd=False)
    assert right == Box((0, 0, 6, 10), 0, crowd=True)


def test_objects_that_no_chip_shows_well_are_counted(tmp_path: Path, out: Path) -> None:
    root = visdrone(tmp_path / "s", {"a.png": "2,2,36,16,1,4,0,0\n"})
    report = run("visdrone", root, "--out", out, "--chip", 20, "--overlap", 0)
    assert "1 objects visible enough in no chip" in report
    assert [annotation["iscrowd"] for annotation in read(out)["annotations"]] == [1, 1]


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    side=st.integers(2, 120),
    overlap=st.integers(0, 119),
)
def test_chips_cover_every_pixel_and_share_the_overlap(size: tuple[int, int], side: int, overlap: int) -> None:
    overlap = min(overlap, side - 1)
    windows = Chipping(side, overlap, 0.7).windows(size)
    assert len(set(windows)) == len(windows)
    for axis, length in enumerate(size):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert {end - start for start, end in spans} == {min(side, length)}
        assert all(before[1] - after[0] >= overlap for before, after in pairwise(spans))


@settings(max_examples=200)
@given(
    corner=st.tuples(st.integers(0, 180), st.integers(0, 180)),
    sides=st.tuples(st.integers(1, 20), st.integers(1, 20)),
)
def test_an_object_no_larger_than_the_overlap_is_whole_in_some_chip(
    corner: tuple[int, int], sides: tuple[int, int]
) -> None:
    box = Box((corner[0], corner[1], corner[0] + sides[0], corner[1] + sides[1]), 0, crowd=False)
    windows = Chipping(64, 20, 1.0).windows((200, 200))
    assert any(not found.crowd for window in windows for _, found in boxes_in(window, [box], 1.0))
