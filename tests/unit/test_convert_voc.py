"""PASCAL VOC in its published form."""

from pathlib import Path

import pytest
from PIL import Image

from converting import objects, read, run


def item(name: str = "car", box: str = "1 1 40 20", difficult: str | None = "0") -> str:
    """One <object>; `box` is xmin ymin xmax ymax."""
    corners = "".join(f"<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box.split(), strict=True))
    flag = "" if difficult is None else f"<difficult>{difficult}</difficult>"
    part = "<part><name>head</name><bndbox><xmin>2</xmin><ymin>2</ymin><xmax>3</xmax><ymax>3</ymax></bndbox></part>"
    return f"<object><name>{name}</name>{flag}<bndbox>{corners}</bndbox>{part}</object>"


def write_voc(root: Path, pictures: dict[str, str], **sets: str) -> Path:
    """A year's folder with 40 x 20 px pictures, their objects as XML, and image sets."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for stem, text in pictures.items():
        Image.new("RGB", (40, 20)).save(root / "JPEGImages" / f"{stem}.jpg")
        size = "<size><width>40</width><height>20</height><depth>3</depth></size>"
        xml = f"<annotation><filename>{stem}.jpg</filename>{size}{text}</annotation>"
        (root / "Annotations" / f"{stem}.xml").write_text(xml, encoding="utf-8")
    for name, text in sets.items():
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text(text, encoding="utf-8", newline="")
    return root


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def test_pixels_count_from_one_and_include_the_last(tmp_path: Path, out: Path) -> None:
    text = item(box="1 1 40 20") + item("person", "11 6 11 6") + item("dog", "3.5 2 9.25 5", None)
    report = run("voc", write_voc(tmp_path / "s", {"000001": text}), "--out", out)
    wanted = [("car", [0, 0, 40, 20], 0), ("person", [10, 5, 1, 1], 0), ("dog", [2.5, 1, 6.75, 4], 0)]
    assert objects(out) == wanted
    assert "clipped" not in report


def test_years_are_merged_by_their_image_sets(tmp_path: Path, out: Path) -> None:
    old = write_voc(
        tmp_path / "VOC2007", dict.fromkeys(("000001", "000002"), item()), trainval="000001\r\n", test="000002"
    )
    new = write_voc(tmp_path / "VOC2012", dict.fromkeys(("2008_1", "2008_2"), item()), trainval="2008_1\n")
    run("voc", f"train={old}:trainval", f"train={new}:trainval", f"val={old}:test", "--out", out)
    assert [image["file_name"] for image in read(out)["images"]] == ["000001.jpg", "2008_1.jpg"]
    assert [image["file_name"] for image in read(out, "val")["images"]] == ["000002.jpg"]


def test_a_picture_in_train_and_val_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": item()}, trainval="1", test="1")
    with pytest.raises(ValueError, match="used twice, in train and in val"):
        run("voc", f"{root}:trainval", f"val={root}:test", "--out", out)


@pytest.mark.parametrize(("policy", "crowds"), [("crowd", [1, 0]), ("drop", [0]), ("keep", [0, 0])])
def test_difficult_objects_are_crowd_or_left_out_or_kept(
    tmp_path: Path, out: Path, policy: str, crowds: list[int]
) -> None:
    root = write_voc(tmp_path / "s", {"1": item(difficult="1") + item()})
    report = run("voc", root, "--out", out, "--difficult", policy)
    assert [crowd for _, _, crowd in objects(out)] == crowds
    assert ("1 difficult, ignored or crowd boxes left out" in report) == (policy == "drop")


def test_other_classes_can_be_stated_in_label_order(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": item("plane") + item("ship")})
    run("voc", root, "--out", out, "--classes", "ship, plane")
    assert [entry["name"] for entry in read(out)["categories"]] == ["ship", "plane"]
    assert [name for name, _, _ in objects(out)] == ["plane", "ship"]


def test_a_size_of_zero_is_not_stated(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": item()})
    path = root / "Annotations" / "1.xml"
    path.write_text(path.read_text().replace(">40<", ">0<", 1).replace(">20<", ">0<", 1))
    run("voc", root, "--out", out)
    assert len(objects(out)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (item("boot"), r"1\.xml: object 1 \(boot\): unknown class 'boot'; the classes are aeroplane.*--ignore"),
        (item() + item(box="9 1 3 5"), r"object 2 \(car\): xmax or ymax is below"),
        (item(box="4 1 3 5"), "xmax or ymax is below"),
        (item(box="nan 1 3 5"), r"object 1 \(car\): xmin is 'nan', not a finite number"),
        (item(box="1 1 3 five"), "ymax is 'five'"),
        (item(difficult="maybe"), "difficult is 'maybe'"),
        ("<object><name>car</name></object>", "there is no 'bndbox/xmin'; add it"),
        ("<object><bndbox/></object>", "object 1: there is no 'name'"),
        ("<object>", r"1\.xml:1: not XML at column"),
        ("\n&nbsp;", r"1\.xml:2: not XML"),
    ],
)
def test_malformed_xml_is_an_error_with_file_and_place(tmp_path: Path, out: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run("voc", write_voc(tmp_path / "s", {"1": text}), "--out", out)


def test_entities_are_refused_before_they_grow(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": ""})
    text = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>'
    for encoding in ("utf-8", "utf-16"):
        (root / "Annotations" / "1.xml").write_text(text, encoding=encoding)
        with pytest.raises(ValueError, match=r"1\.xml: has a document type"):
            run("voc", root, "--out", out)


def test_the_encoding_that_xml_declares_is_honoured(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": ""})
    xml = f'<?xml version="1.0" encoding="GBK"?>\r\n<annotation><owner>\u9ad8</owner>{item()}</annotation>'
    (root / "Annotations" / "1.xml").write_text(xml, encoding="gbk", newline="")
    run("voc", root, "--out", out)
    assert len(objects(out)) == 1


def test_an_unknown_encoding_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": ""})
    (root / "Annotations" / "1.xml").write_text('<?xml version="1.0" encoding="martian"?><annotation/>')
    with pytest.raises(ValueError, match=r"1\.xml:1: unknown encoding 'martian'"):
        run("voc", root, "--out", out)


def test_a_picture_of_another_size_is_an_error(tmp_path: Path, out: Path) -> None:
    root = write_voc(tmp_path / "s", {"1": item()})
    Image.new("RGB", (20, 40)).save(root / "JPEGImages" / "1.jpg")
    with pytest.raises(ValueError, match=r"1\.xml: states 40 x 20 px, the picture is stored with 20 x 40"):
        run("voc", root, "--out", out)


@pytest.mark.parametrize(
    ("image_set", "message"),
    [
        ("1\n2\n", r"s\.txt:2: there is no picture 2 in"),
        ("1\n3\n", r"s\.txt:2: there is no .*3\.xml"),
        ("1\n\n1\n", r"s\.txt:3: '1' is named before, at .*s\.txt:1"),
        ("1 -1\n", r"s\.txt:1: '1 -1' is not one name"),
    ],
)
def test_a_line_of_a_set_that_leads_nowhere_is_an_error(
    tmp_path: Path, out: Path, image_set: str, message: str
) -> None:
    root = write_voc(tmp_path / "s", {"1": item(), "3": item()}, s=image_set)
    (root / "Annotations" / "3.xml").unlink()
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        run("voc", f"{root}:s", "--out", out)


def test_a_missing_set_is_an_error(tmp_path: Path, out: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file .*nope\.txt"):
        run("voc", f"{write_voc(tmp_path / 's', {'1': item()})}:nope", "--out", out)
