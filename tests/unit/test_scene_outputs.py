"""Inputs of `python -m service detect`, and where what is found in them goes."""

from pathlib import Path

import pytest

from service.scenes.kinds import RESULT_KINDS, SUFFIXES, ResultKind
from service.scenes.outputs import Outputs, Task, UsageError, plan_tasks


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: `scenes` with two pictures, a text, and a folder with a further picture."""
    monkeypatch.chdir(tmp_path)
    for name in ("scenes/b.tif", "scenes/a.JPG", "scenes/notes.txt", "scenes/deep/c.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


def plan(
    *places: str, out: str = "out", kind: ResultKind | None = "csv", heat: str = "", preview: str = ""
) -> list[Task]:
    outputs = Outputs(Path(out), kind, Path(heat) if heat else None, Path(preview) if preview else None)
    return plan_tasks(places, outputs)


def names(tasks: list[Task]) -> list[str]:
    return [task.source.name for task in tasks]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("scenes", ["a.JPG", "b.tif"]),
        ("scenes/b.tif", ["b.tif"]),
        ("scenes/*.tif", ["b.tif"]),
        ("scenes/**/*.[jp][pn]g", ["c.png"]),
        ("scenes/notes.txt", ["notes.txt"]),
    ],
)
def test_a_place_is_a_file_a_folder_or_a_pattern(place: str, found: list[str]) -> None:
    assert names(plan(place)) == found


@pytest.mark.usefixtures("folder")
def test_a_picture_named_twice_is_worked_on_once() -> None:
    assert names(plan("scenes/b.tif", "scenes")) == ["b.tif", "a.JPG"]


def test_a_name_may_hold_the_signs_of_a_pattern(folder: Path) -> None:
    (folder / "scenes/b[1]*.tif").touch()
    assert names(plan("scenes/b[1]*.tif")) == ["b[1]*.tif"]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("place", ["absent.tif", "scenes/*.bmp"])
def test_a_place_without_pictures_is_named(place: str) -> None:
    with pytest.raises(UsageError) as error:
        plan(place)
    assert str(error.value).startswith(f"{place}: no such file")


def test_a_folder_without_pictures_says_what_was_looked_for(folder: Path) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(UsageError, match=r"^empty: no files in it that end in \.tif, "):
        plan("empty")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("kind", RESULT_KINDS)
def test_the_ending_says_the_format(kind: ResultKind) -> None:
    (task,) = plan("scenes/b.tif", out=f"r{SUFFIXES[kind].upper()}", kind=None)
    assert task.kind == kind


@pytest.mark.usefixtures("folder")
def test_several_inputs_go_to_folders() -> None:
    second = plan("scenes", out="out", heat="heat", preview="out")[1]
    assert second == Task(Path("scenes/b.tif"), Path("out/b.csv"), "csv", Path("heat/b.tif"), Path("out/b.png"))
    assert second.state == Path("out/b.csv.state")


@pytest.mark.usefixtures("folder")
def test_a_folder_needs_a_format() -> None:
    with pytest.raises(UsageError, match=r"^--out out: write a file that ends in .*--format \{geojson,"):
        plan("scenes", kind=None)


@pytest.mark.usefixtures("folder")
def test_one_file_for_several_inputs_is_refused_with_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"there are 2 inputs, so name a folder: --out r --format gpkg"):
        plan("scenes", out="r.gpkg", kind=None)


def test_two_pictures_of_one_name_are_refused(folder: Path) -> None:
    (folder / "scenes/b.png").touch()
    with pytest.raises(UsageError, match=r"out/b\.csv would be written for scenes/b\.png and for scenes/b\.tif"):
        plan("scenes")


@pytest.mark.usefixtures("folder")
def test_no_input_is_written_over() -> None:
    with pytest.raises(UsageError, match=r"scenes/b\.tif would be written over the input"):
        plan("scenes/b.tif", heat="scenes")


def test_through_a_link_neither(folder: Path) -> None:
    (folder / "again").symlink_to(folder / "scenes")
    with pytest.raises(UsageError, match="would be written over the input"):
        plan("scenes/b.tif", heat="again")


@pytest.mark.usefixtures("folder")
def test_an_ending_that_contradicts_the_format_is_refused() -> None:
    with pytest.raises(UsageError, match=r"boxes\.gpkg ends as gpkg does, and --format says csv"):
        plan("scenes/b.tif", out="boxes.gpkg", kind="csv")
