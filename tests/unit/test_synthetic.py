"""Synthetic scenes: the same for the same seed, with boxes that fit, in files that the dataset reads."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.data.datasets import CocoDataset
from training.data.samples import Sample
from training.data.synthetic import CLASSES, scene, synthesize
from training.data.synthetic_world import OBJECTS, World


def scenes(count: int, size: int = 256) -> list[Sample]:
    return [scene(np.random.default_rng([0, i]), size) for i in range(count)]


@pytest.fixture(scope="module")
def sixty() -> list[Sample]:
    """Sixty scenes of 256 px."""
    return scenes(60)


def world_with(name: str, wanted: int, length: float, angle: float, seed: int) -> Sample:
    world = World(np.random.default_rng(seed), "sea", 96, wanted, zoom=1.0)
    world.add_object(name, length, angle, (50.3, 44.6))
    return world.finish()


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(("length", "angle"), [(14.0, 0.0), (33.0, 0.6), (58.0, 2.3)])
def test_the_box_is_tight_on_the_pixels_that_the_object_changes(
    name: str, length: float, angle: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(OBJECTS, name, (OBJECTS[name][0], 0.0))  # no height, so no shadow beside the object
    seed = 5
    with_object, without = (world_with(name, wanted, length, angle, seed) for wanted in (1, 0))
    difference = np.abs(with_object.image.astype(int) - without.image.astype(int)).max(axis=2)
    rows, columns = np.nonzero(difference > 8)
    extent = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert len(without.boxes) == 0
    np.testing.assert_allclose(with_object.boxes[0], extent, atol=1.6)


@pytest.mark.parametrize("name", CLASSES)
def test_a_label_is_the_position_of_its_class(name: str) -> None:
    assert CLASSES[world_with(name, 1, 30.0, 0.3, seed=0).labels[0]] == name


def test_the_same_seed_gives_the_same_scene() -> None:
    first, second = scenes(4), scenes(4)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        np.testing.assert_array_equal(one.labels, other.labels)


def test_scenes_have_the_size_asked_for_and_boxes_inside(sixty: list[Sample]) -> None:
    for sample in sixty:
        assert sample.image.shape == (256, 256, 3)
        assert sample.image.dtype == np.uint8
        assert len(sample.boxes) == len(sample.labels)
        if len(sample.boxes):
            assert sample.boxes.min() >= 0
            assert sample.boxes.max() <= 256
            assert (sample.boxes[:, 2:] - sample.boxes[:, :2]).min() >= 2


def test_scenes_range_from_empty_to_crowded_over_all_classes_and_sizes(sixty: list[Sample]) -> None:
    counts = [len(sample.labels) for sample in sixty]
    assert min(counts) == 0
    assert max(counts) > 25
    assert set(np.concatenate([sample.labels for sample in sixty]).tolist()) == set(range(len(CLASSES)))
    sides = np.concatenate([(sample.boxes[:, 2:] - sample.boxes[:, :2]).max(axis=1) for sample in sixty])
    assert sides.min() < 8
    assert 30 < sides.max() <= 70


def test_a_large_scene_can_hold_well_over_a_hundred_objects() -> None:
    world = World(np.random.default_rng(0), "sea", 512, 200, zoom=0.6)
    for _ in range(3000):
        world.add_object("ship", 10.0, 0.0, world.anywhere())
    assert len(world.finish().labels) == 200


def test_objects_do_not_hide_each_other() -> None:
    world = World(np.random.default_rng(0), "sea", 96, 5, zoom=1.0)
    assert world.add_object("tank", 30.0, 0.0, (40.0, 40.0))
    assert not world.add_object("vehicle", 10.0, 0.0, (44.0, 40.0))
    assert world.add_object("vehicle", 10.0, 0.0, (70.0, 40.0))


def test_an_object_reaching_outside_the_picture_is_not_placed() -> None:
    world = World(np.random.default_rng(0), "sea", 96, 5, zoom=1.0)
    assert not world.add_object("ship", 30.0, 0.0, (5.0, 40.0))


def test_written_scenes_are_read_back_as_coco(tmp_path: Path) -> None:
    synthesize(tmp_path / "set", count=6, size=128, seed=3, progress=False)
    dataset = CocoDataset(tmp_path / "set" / "images", tmp_path / "set" / "instances.json", CLASSES, size=None)
    assert len(dataset) == 6
    assert dataset.report.boxes > 0
    assert (dataset.report.clipped, dataset.report.degenerate, dataset.report.corrupt) == (0, 0, 0)
    for i in range(6):
        expected = scene(np.random.default_rng([3, i + 1]), 128)
        np.testing.assert_allclose(dataset[i].boxes, expected.boxes, atol=0.02)
        np.testing.assert_array_equal(dataset[i].labels, expected.labels)


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        synthesize(tmp_path / name, count=3, size=64, seed=9, progress=False)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 4
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_annotations_hold_areas_and_one_based_categories(tmp_path: Path) -> None:
    synthesize(tmp_path / "set", count=4, size=128, seed=0, progress=False)
    data = json.loads((tmp_path / "set" / "instances.json").read_text(encoding="utf-8"))
    assert [category["id"] for category in data["categories"]] == [1, 2, 3, 4, 5]
    for annotation in data["annotations"]:
        assert annotation["area"] == pytest.approx(annotation["bbox"][2] * annotation["bbox"][3], abs=0.01)


def test_a_folder_with_files_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        synthesize(tmp_path, count=1, size=64, seed=0, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    synthesize(tmp_path, count=1, size=64, seed=0, progress=False)
    assert (tmp_path / "images" / "000001.jpg").is_file()
