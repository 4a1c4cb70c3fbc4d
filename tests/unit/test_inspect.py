"""`inspect`: what is told of the data before training, and what is wrong with them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.config import Recipe
from training.pictures.sheets import Tile, class_colours, sheet
from training.survey.command import TILES, choose, inspect
from training.survey.measure import Facts, Survey, find_twins, survey
from training.survey.tables import roots, shared_cells, suggestions

CLASSES = ("car", "boat")
ROOT = Path(__file__).parents[2]
Boxes = list[tuple[int, list[float]]]
"""(category id, xywh) of one picture."""


def ground(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A picture of coarse patches; each seed looks different from the others."""
    patches = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BILINEAR)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes pictures into `images/` and a COCO file beside it."""

    def write_set(name: str, pictures: dict[str, Image.Image], boxes: dict[str, Boxes]) -> Path:
        (tmp_path / "images").mkdir(exist_ok=True)
        images, annotations = [], []
        for place, (file_name, picture) in enumerate(pictures.items()):
            picture.save(tmp_path / "images" / file_name)
            images.append({"id": place, "file_name": file_name, "width": picture.width, "height": picture.height})
            for category, box in boxes.get(file_name, []):
                annotation = {"id": len(annotations), "image_id": place, "category_id": category, "bbox": box}
                annotations.append(annotation)
        categories = [{"id": label + 1, "name": class_name} for label, class_name in enumerate(CLASSES)]
        document = {"images": images, "annotations": annotations, "categories": categories}
        path = tmp_path / f"{name}.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return path

    return write_set


def facts(boxes: list[list[float]], labels: list[int] | None = None, size: tuple[int, int] = (600, 600)) -> Facts:
    array = np.array(boxes, np.float32).reshape(-1, 4)
    kinds = np.array(labels or [0] * len(boxes), np.int64)
    return Facts(Path("a.png"), size, array, kinds, b"", np.zeros((0, 4), np.uint64))


def seen(*pictures: Facts) -> Survey:
    made = Survey("train", CLASSES, list(pictures))
    made.report.boxes = sum(len(picture.labels) for picture in pictures)
    return made


def test_a_report_tells_boxes_and_sizes_and_shows_pictures(write: Callable[..., Path], tmp_path: Path) -> None:
    boxes: dict[str, Boxes] = {"a.png": [(1, [0, 0, 10, 10]), (2, [20, 20, 40, 40])]}
    source = write("instances", {"a.png": ground(0), "b.png": ground(1)}, boxes)
    report = inspect(source, None, tmp_path / "out")
    assert (tmp_path / "out" / "report.md").read_text("utf-8") == report + "\n"
    assert "| pictures | 2 |" in report
    assert "| of these without boxes | 1 |" in report
    assert "| car | 1 | 50.0% | 1 | 10.0 |" in report
    assert "| tiny (8-16) | 1 (50%) |" in report
    for name in ("distributions.png", "instances.png"):
        assert f"({name})" in report
        with Image.open(tmp_path / "out" / name) as picture:
            assert min(picture.size) > 100


def test_a_recipe_shows_train_val_and_training_crops(write: Callable[..., Path], tmp_path: Path) -> None:
    boxes: dict[str, Boxes] = {"a.png": [(1, [10, 10, 30, 30])], "b.png": [(2, [10, 10, 1, 30])]}
    train = write("train", {"a.png": ground(0), "b.png": ground(1)}, boxes)
    val = write("val", {"c.png": ground(0), "d.png": ground(3)}, {"c.png": [(1, [10, 10, 30, 30])]})
    shipped = Recipe.from_toml(ROOT / "training" / "recipes" / "nano-nwpu-oblong.toml")
    where = {"train_annotations": train, "val_annotations": val, "classes": CLASSES, "train_size": 64}
    where |= {"train_images": tmp_path / "images", "val_images": tmp_path / "images"}
    recipe = shipped.model_copy(update={"data": shipped.data.model_copy(update=where)})
    (tmp_path / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    report = inspect(tmp_path / "recipe.toml", None, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {
        "distributions.png",
        "train.png",
        "val.png",
        "crops.png",
        "twins.png",
    }
    assert "**in train and val**: 1 pairs of equal files, 0 pairs that look nearly the same." in report
    assert "1 pairs of train and val pictures look alike" in report
    assert "data.min_box_px 1.5 leaves out 1 of the train boxes." in report
    assert "The recipe has 8, 16, 32." in report
    assert "val has no box of boat." in report
    assert "largest_object_px = 170.2 in the model's card: on a canvas of 544 px" in report


def test_broken_and_missing_pictures_are_named_and_the_others_are_looked_at(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    source = write("instances", {name: ground(seed) for seed, name in enumerate(("a.png", "b.png", "c.png"))}, {})
    cut = tmp_path / "images" / "a.png"
    cut.write_bytes(cut.read_bytes()[:200])
    (tmp_path / "images" / "b.png").unlink()
    looked = survey("train", tmp_path / "images", source, CLASSES)
    assert [picture.path.name for picture in looked.pictures] == ["c.png"]
    assert [("a.png" in line, "b.png" in line) for line in looked.problems] == [(True, False), (False, True)]


def test_a_picture_of_another_size_than_written_is_named(write: Callable[..., Path], tmp_path: Path) -> None:
    source = write("instances", {"a.png": ground(0)}, {})
    ground(0, (50, 40)).save(tmp_path / "images" / "a.png")
    problems = survey("train", tmp_path / "images", source, CLASSES).problems
    assert problems == ["a.png is 50 x 40 px; the annotations say (96, 64)"]


def test_no_readable_picture_at_all_is_an_error(write: Callable[..., Path], tmp_path: Path) -> None:
    source = write("instances", {"a.png": ground(0)}, {})
    (tmp_path / "images" / "a.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"no picture of .*instances\.json can be read: a\.png cannot be read"):
        survey("train", tmp_path / "images", source, CLASSES)


@pytest.mark.parametrize(
    "change",
    [
        lambda picture: picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        lambda picture: picture.transpose(Image.Transpose.ROTATE_90),
        lambda picture: picture.transpose(Image.Transpose.TRANSVERSE),
        lambda picture: picture.resize((48, 32)),
        lambda picture: picture.point(lambda value: int(0.7 * value) + 20),
    ],
    ids=["mirrored", "turned", "transposed", "smaller", "paler"],
)
def test_a_changed_copy_is_nearly_the_same(write: Callable[..., Path], tmp_path: Path, change: Callable) -> None:
    pictures = {"a.png": ground(0), "b.png": change(ground(0)), "c.png": ground(1), "d.png": ground(2)}
    looked = survey("train", tmp_path / "images", write("instances", pictures, {}), CLASSES).pictures
    pairs = [(twins.first.path.name, twins.second.path.name) for twins in find_twins(looked, looked)]
    assert pairs == [("a.png", "b.png")]


def test_equal_files_come_first_and_once(write: Callable[..., Path], tmp_path: Path) -> None:
    pictures = {
        "a.png": ground(0),
        "b.png": ground(0).point([value // 2 for value in range(256)] * 3),
        "c.png": ground(0),
    }
    looked = survey("train", tmp_path / "images", write("instances", pictures, {}), CLASSES).pictures
    twins = find_twins(looked, looked)
    assert [(pair.first.path.name, pair.second.path.name, pair.bits < 0) for pair in twins] == [
        ("a.png", "c.png", True),
        ("a.png", "b.png", False),
        ("b.png", "c.png", False),
    ]


def test_flat_pictures_do_not_all_look_alike(write: Callable[..., Path], tmp_path: Path) -> None:
    pictures = {f"{grey}.png": Image.new("RGB", (32, 32), (grey, grey, grey)) for grey in (10, 90, 200)}
    looked = survey("train", tmp_path / "images", write("instances", pictures, {}), CLASSES).pictures
    assert find_twins(looked, looked) == []


def test_sizes_are_told_after_resizing_too() -> None:
    picture = facts([[0, 0, 40, 10]], size=(1200, 600))
    assert roots(seen(picture), None).tolist() == [20]
    assert roots(seen(picture), 300).tolist() == pytest.approx([5])


def test_boxes_share_a_cell_if_their_centres_do() -> None:
    picture = facts([[0, 0, 6, 6], [1, 1, 7, 7], [8, 8, 14, 14]])
    assert [shared_cells(seen(picture), None, stride) for stride in (1, 8, 16)] == [0, 2, 3]
    assert shared_cells(seen(picture), 300, 8) == 3


def test_tiny_objects_ask_for_a_finer_stride_than_large_ones() -> None:
    tiny = seen(facts([[x, 0, x + 9, 9] for x in range(0, 300, 12)]))
    large = seen(facts([[x, 0, x + 60, 60] for x in range(0, 500, 70)]))
    assert "Strides 4 to 16" in suggestions([tiny], None, [])[0]
    assert "Strides 16 to 32" in suggestions([large], None, [])[0]


def test_full_pictures_ask_for_more_queries() -> None:
    crowded = seen(facts([[x, y, x + 4, y + 4] for x in range(0, 200, 5) for y in range(0, 50, 5)]))
    assert suggestions([crowded], None, [])[1].startswith(
        "query.k_max of 600 or more: the fullest picture has 400 boxes"
    )


def test_a_rare_class_is_named() -> None:
    uneven = seen(facts([[0, 0, 30, 30]] * 63, [0] * 60 + [1] * 3))
    words = " ".join(suggestions([uneven], None, []))
    assert "car has 20 times the boxes of boat" not in words
    assert "Fewer than 20 boxes to learn from: boat (3)." in words
    more = seen(facts([[0, 0, 30, 30]] * 64, [0] * 61 + [1] * 3))
    assert "car has 20 times the boxes of boat" in " ".join(suggestions([more], None, []))


def test_every_class_is_on_the_contact_sheet() -> None:
    common = [facts([[0, 0, 9, 9]]) for _ in range(3 * TILES)]
    rare = facts([[0, 0, 9, 9]], [1])
    assert any(picture is rare for picture in choose(seen(*common, rare), TILES))


def test_data_without_boxes_get_a_report(write: Callable[..., Path], tmp_path: Path) -> None:
    report = inspect(write("instances", {"a.png": ground(0)}, {}), None, tmp_path / "out")
    assert "There is no box in the train pictures: there is nothing to learn." in report


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "", "neither a recipe"),
        ("a.json", "[]", "is no COCO detection file"),
        ("a.json", "{", "is no COCO detection file"),
    ],
)
def test_a_source_of_another_kind_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        inspect(tmp_path / name, None, tmp_path / "out")


def test_images_beside_a_recipe_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a recipe names its pictures itself"):
        inspect(ROOT / "training" / "recipes" / "nano-nwpu.toml", tmp_path, tmp_path / "out")


def test_a_sheet_shows_each_box_in_its_colour_and_keeps_within_its_width() -> None:
    colours = class_colours(2)
    boxes = np.array([[10, 10, 30, 30], [50, 20, 90, 40]], np.float32)
    tile = Tile(np.zeros((50, 100, 3), np.uint8), boxes, colours, "a very long name of a picture" * 9)
    drawn = np.asarray(sheet([tile] * 3, columns=2, side=400, title="title", legend={}))
    assert drawn.shape[1] < 830
    assert [int((drawn == colour).all(axis=2).sum()) > 0 for colour in colours] == [True, True]


def test_the_colours_of_many_classes_differ() -> None:
    assert len(set(class_colours(40))) == 40
