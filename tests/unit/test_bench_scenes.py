"""What benchmarks/scenes.py does with what it measures."""

import json
import os
import sqlite3
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import scenes
from benchmarks.scene_accuracy import Look, accuracy, double_pairs, read_found
from benchmarks.scene_crash import is_writing, plan_lives, tiles_done
from benchmarks.scene_figures import (
    Accuracy,
    Compared,
    Crashes,
    Doubles,
    Growth,
    Kill,
    Run,
    Scan,
    SceneFigures,
    Seams,
    Tool,
    Workers,
)
from benchmarks.scene_report import report, verdicts
from benchmarks.scene_runs import Pauses, fresh, run
from benchmarks.scene_seams import OFF, ON, Seen, by_border, by_change, find_doubles
from benchmarks.serving_figures import Provenance
from service.tiling import plan_scene
from training.evaluation.matches import Detections, Truth

MEASURED: dict[str, Any] = {
    "provenance": Provenance(machine="a machine", runtime="a runtime", model="m/1", date="2026-11-26", commit="0" * 14),
    "load": (0.1, 2.0),
}
CLASSES = ("ship", "vehicle")
SHIPPED = Path(__file__).resolve().parents[2] / "service" / "models" / "nano-nwpu" / "5"


def a_run(wall: float = 10, peak_mb: float = 400) -> Run:
    return Run(wall_seconds=wall, ready_seconds=1, cpu_seconds=2 * wall, peak_mb=peak_mb)


def growth(seconds: float = 105, small_mb: float = 400, large_mb: float = 420) -> Growth:
    scans = [
        Scan(side=side, tiles=1000, lanes=2, run=a_run(seconds, peak), engine_seconds=[0.1, 0.2, 0.3])
        for side, peak in ((5_000, small_mb), (20_000, large_mb))
    ]
    return Growth(**MEASURED, scans=scans)


def quality(ap: float) -> Accuracy:
    return Accuracy(objects=100, ap=ap, ap50=ap)


def compared(ours: float, theirs: float, ap: float = 0.7) -> Compared:
    def tool(wall: float, ap: float) -> Tool:
        return Tool(tiles=169, found=200, accuracy=quality(ap), runs=[a_run(wall)] * 3)

    peers = {"as it comes": tool(2 * theirs, 0.69), "slices only": tool(theirs, 0.65)}
    return Compared(**MEASURED, sahi="0.12", side=5_000, score=0.1, ours=tool(ours, ap), theirs=peers)


def seams(on: float = 0.7, moved_on: float = 0.7, two_windows: int = 0) -> Seams:
    return Seams(
        **MEASURED,
        side=5_000,
        score=0.1,
        everything=quality(0.7),
        on_border=quality(on),
        elsewhere=quality(0.7),
        moved_on_border=quality(moved_on),
        moved_off_border=quality(0.7),
        shown_score=0.3,
        shown=500,
        doubles=Doubles(of_one_window=4, of_two_windows=two_windows),
    )


def crashes(*, heat_equal: bool = True) -> Crashes:
    kills = [Kill(after_seconds=3, tiles_done=number, writing=number == 3) for number in range(4)]
    return Crashes(**MEASURED, side=5_000, tiles=169, kills=kills, equal={"boxes": True, "heat": heat_equal})


def workers(two: float) -> Workers:
    return Workers(**MEASURED, side=5_000, runs={1: [a_run(10)] * 3, 2: [a_run(two)] * 3})


def verdict(**parts: Any) -> list[bool | None]:
    """Whether each aim of some parts is reached."""
    return [found.reached for found in verdicts(SceneFigures(**parts))]


def objects(*boxes: tuple[float, ...], scores: float | list[float] = 0.9, label: int = 0) -> Detections:
    wide = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(
        wide, np.broadcast_to(np.array(scores, np.float32), len(wide)), np.full(len(wide), label, np.int64)
    )


def truth(*boxes: tuple[float, ...]) -> Truth:
    found = objects(*boxes)
    return Truth(found.boxes, found.labels)


def test_the_time_to_beat_is_that_of_the_engine_in_all_lanes() -> None:
    assert growth().scans[0].ideal_seconds == pytest.approx(1000 * 0.2 / 2)


def test_time_within_a_tenth_of_the_engine_reaches_its_aim() -> None:
    assert verdict(growth=growth(seconds=109)) == [True, True, True]
    assert verdict(growth=growth(seconds=111)) == [True, True, False]


def test_memory_may_neither_be_large_nor_grow() -> None:
    assert verdict(growth=growth(small_mb=1_150, large_mb=1_210)) == [False, True, True]
    assert verdict(growth=growth(small_mb=400, large_mb=450)) == [True, False, True]


def test_the_fastest_settings_of_sahi_are_to_be_beaten_and_the_best_ap() -> None:
    assert compared(10, 30).fastest == "slices only"
    assert verdict(compared=compared(10, 31)) == [True, True]
    assert verdict(compared=compared(10, 29, ap=0.68)) == [False, False]


def test_seams_may_cost_a_hundredth_of_ap_and_no_double() -> None:
    assert verdict(seams=seams(on=0.691, moved_on=0.75)) == [True, True, True]
    assert verdict(seams=seams(on=0.68, moved_on=0.68, two_windows=1)) == [False, False, False]


def test_one_file_that_differs_after_kills_is_told() -> None:
    assert verdict(crashes=crashes()) == [True]
    (found,) = verdicts(SceneFigures(crashes=crashes(heat_equal=False)))
    assert (found.reached, found.value) == (False, 1)


def test_two_workers_are_held_against_one() -> None:
    assert verdict(workers=workers(6)) == [True]
    assert verdict(workers=workers(7)) == [False]


def test_the_page_has_a_section_for_each_part_and_no_other() -> None:
    parts = {"growth": growth(), "compared": compared(10, 31), "seams": seams(), "crashes": crashes()}
    lines = report(SceneFigures(**parts))
    titles = [line for line in lines if line.startswith("### ")]
    assert titles == ["### Memory and time by size", "### Beside SAHI", "### Seams", "### Kills"]
    assert "| 20,000 | 1,000 | 420 | 105 | 1.0 | 200 (150 - 250) | 100 | +5.0% | +4.0% | 210 |" in lines


def test_figures_survive_their_file(tmp_path: Path) -> None:
    figures = SceneFigures(seams=seams(), workers=workers(6))
    figures.write(tmp_path / "figures.json")
    assert SceneFigures.read(tmp_path / "figures.json") == figures


def test_without_the_engine_workers_are_left_out_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scenes, "ray_is_there", lambda: False)
    given = [str(SHIPPED), "--data", "none.json", "--work", str(tmp_path), "--json", str(tmp_path / "figures.json")]
    scenes.main([*given, "--only", "workers"])
    assert "workers: left out, as `python -m service detect` has no --engine" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_a_group_is_scored_by_its_own_objects() -> None:
    look = Look(
        truth((0, 0, 20, 20), (50, 50, 70, 70)),
        objects((0, 0, 20, 20)),
        truth_group=np.array([1, 2]),
        found_group=np.array([2]),  # a right box counts where its object is
    )
    first, second = accuracy([look], CLASSES, groups=2)
    assert (first.ap, second.ap) == (pytest.approx(1), 0)
    assert (first.objects, second.objects) == (1, 1)


def test_a_false_alarm_counts_in_its_own_group_alone() -> None:
    look = Look(
        truth((0, 0, 20, 20), (50, 50, 70, 70)),
        objects((100, 0, 120, 20), (0, 0, 20, 20), (50, 50, 70, 70), scores=[0.9, 0.8, 0.7]),
        truth_group=np.array([1, 2]),
        found_group=np.array([2, 1, 2]),
    )
    first, second = accuracy([look], CLASSES, groups=2)
    assert first.ap == pytest.approx(1)
    assert second.ap == pytest.approx(0.5)


def test_a_class_that_one_group_lacks_is_left_out_of_all() -> None:
    there = Truth(np.array([[0, 0, 9, 9], [20, 0, 29, 9], [40, 0, 49, 9]], np.float32), np.array([0, 0, 1]))
    found = Detections(there.boxes[:2], np.array([0.9, 0.8], np.float32), there.labels[:2])
    look = Look(there, found, truth_group=np.array([1, 2, 2]), found_group=np.array([1, 2]))
    assert [group.ap for group in accuracy([look], CLASSES, groups=2)] == pytest.approx([1, 1])


def test_boxes_of_a_coco_file_get_labels_by_the_names_of_classes(tmp_path: Path) -> None:
    row = {"bbox": [1, 2, 3, 4], "category_id": 7, "score": 0.5}
    document = {"categories": [{"id": 7, "name": "vehicle"}], "annotations": [row]}
    (tmp_path / "found.json").write_text(json.dumps(document), encoding="utf-8")
    found = read_found(tmp_path / "found.json", CLASSES)
    assert found.boxes.tolist() == [[1, 2, 4, 6]]
    assert (found.labels.tolist(), found.scores.tolist()) == ([1], [0.5])


def test_two_boxes_of_one_object_are_a_double_and_so_is_a_part_of_it() -> None:
    boxes = (0, 0, 20, 20), (1, 0, 21, 20), (0, 0, 6, 20), (60, 0, 80, 20)
    pairs = double_pairs(truth((0, 0, 20, 20), (60, 0, 80, 20)), objects(*boxes))
    assert {tuple(pair) for pair in pairs.tolist()} == {(0, 1), (0, 2), (1, 2)}


def test_boxes_that_overlap_as_their_objects_do_are_no_doubles() -> None:
    boxes = (0, 0, 20, 20), (8, 0, 28, 20)
    assert not len(double_pairs(truth(*boxes), objects(*boxes)))


def seen(merged: Detections, *windows: Detections, moved: int = 0) -> Seen:
    """A scene of 160 x 64 px through windows of 96, of which two overlap by 32 from x = 64 to 96."""
    return Seen(plan_scene(160 - moved, 64, 96, 32, 32), moved, list(windows), merged)


def test_a_double_is_the_models_own_where_one_window_saw_both_boxes() -> None:
    both = objects((66, 0, 86, 20), (74, 0, 94, 20))
    here = truth((66, 0, 86, 20))
    assert find_doubles(seen(both, both), here, 0.3) == Doubles(of_one_window=1, of_two_windows=0)


def test_a_double_is_of_two_windows_where_each_saw_one_box() -> None:
    both = objects((66, 0, 86, 20), (74, 0, 94, 20))
    windows = objects((66, 0, 86, 20)), objects((74, 0, 94, 20))
    assert find_doubles(seen(both, *windows), truth((66, 0, 86, 20)), 0.3) == Doubles(of_one_window=0, of_two_windows=1)


def test_boxes_below_the_score_are_no_doubles() -> None:
    both = objects((66, 0, 86, 20), (74, 0, 94, 20), scores=[0.9, 0.2])
    assert find_doubles(seen(both, both), truth((66, 0, 86, 20)), 0.3) == Doubles(of_one_window=0, of_two_windows=0)


def test_a_box_that_a_seam_crosses_is_on_a_border() -> None:
    look = by_border(seen(objects()), truth((75, 0, 85, 9), (5, 0, 15, 9)))
    assert look.truth_group.tolist() == [ON, OFF]


def test_only_boxes_that_a_border_crosses_in_one_of_two_plans_are_compared() -> None:
    there = truth((75, 0, 85, 9), (100, 0, 105, 9), (0, 0, 9, 9))
    here, moved = seen(objects()), seen(objects(), moved=32)
    assert not moved.crosses(there.boxes)[0]
    groups = by_change(here, moved, there).truth_group, by_change(moved, here, there).truth_group
    assert [group[0] for group in groups] == [0, 0]  # at y = 0, which the moved plan does not show
    lower = Truth(there.boxes + np.array([0, 32, 0, 32], np.float32), there.labels)
    groups = by_change(here, moved, lower).truth_group, by_change(moved, here, lower).truth_group
    assert [group[0] for group in groups] == [ON, OFF]
    assert [group[2] for group in groups] == [0, 0]


def test_lives_leave_work_for_the_end_and_some_end_before_the_first_tile() -> None:
    lives = plan_lives(20, Run(wall_seconds=41, ready_seconds=5, cpu_seconds=60, peak_mb=400))
    early = [life.seconds for life in lives if not life.from_first_tile]
    assert (len(lives), len(early)) == (20, 5)
    assert max(early) < 5
    assert sum(life.seconds for life in lives if life.from_first_tile) < 36


def test_what_an_earlier_life_was_writing_is_not_taken_for_the_present(tmp_path: Path) -> None:
    partial = tmp_path / ".boxes.part.geojson"
    partial.touch()
    os.utime(partial, (1_000, 1_000))
    assert not is_writing(tmp_path, since=2_000)
    assert is_writing(tmp_path, since=500)


def test_finished_tiles_are_counted_without_touching_the_table(tmp_path: Path) -> None:
    state = tmp_path / "boxes.gpkg.state"
    assert tiles_done(state) == 0
    database = sqlite3.connect(state)
    database.executescript("CREATE TABLE scene (done INTEGER); INSERT INTO scene VALUES (7)")
    database.close()
    before = state.read_bytes()
    assert tiles_done(state) == 7
    assert state.read_bytes() == before


def test_a_fresh_place_has_no_state_and_nothing_half_written(tmp_path: Path) -> None:
    for name in ("boxes.gpkg", "boxes.gpkg.state-wal", ".boxes.part.gpkg", "boxes, batched.gpkg"):
        (tmp_path / name).touch()
    assert fresh(tmp_path / "boxes.gpkg") == tmp_path / "boxes.gpkg"
    assert [path.name for path in tmp_path.iterdir()] == ["boxes, batched.gpkg"]


def test_pauses_do_not_count_in_the_time_of_a_run(tmp_path: Path) -> None:
    script = "import pathlib, sys, time; pathlib.Path(sys.argv[1]).touch(); time.sleep(0.5)"
    begun, pauses = tmp_path / "begun", []
    stopped = Pauses(0.1, lambda: pauses.append(begun.exists()))
    found = run([sys.executable, "-c", script, str(begun)], begun, tmp_path / "log", stopped)
    assert pauses
    assert all(pauses)
    assert found.ready_seconds < found.wall_seconds
    assert found.peak_mb > 5


def test_a_run_that_fails_says_where_its_log_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3; .*log says why"):
        run([sys.executable, "-c", "raise SystemExit(3)"], tmp_path / "begun", tmp_path / "log")
