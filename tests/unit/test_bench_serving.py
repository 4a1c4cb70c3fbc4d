"""What benchmarks/serving.py does with what it measures, and which calls it sends."""

import argparse
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.load import Answer
from benchmarks.serving import setting
from benchmarks.serving_bench import agreement
from benchmarks.serving_compare import in_turn
from benchmarks.serving_figures import (
    Choice,
    Curve,
    Figures,
    Latency,
    Mixed,
    Overhead,
    Overload,
    Provenance,
    Saturation,
    Soak,
    Start,
    Throughput,
    Waits,
    best_peer,
    calls_a_second,
    ratio,
    slope,
)
from benchmarks.serving_pictures import CROWDED, SPARSE, Pictures, crowded_from, read_pictures
from benchmarks.serving_plot import plot
from benchmarks.serving_report import aims_table, report, verdicts
from benchmarks.serving_servers import OURS, PEERS
from benchmarks.serving_soak import bomb, mistakes
from service.errors import PictureTooLargeError
from service.imaging import decode_picture
from service.manifest import Manifest

ROOT = Path(__file__).resolve().parents[2]
WHERE = Provenance(machine="a machine", runtime="a runtime", model="nano/1", date="2026-11-25", commit="0123456789abcd")
SHIPPED = ROOT / "service" / "models" / "nano-nwpu" / "5" / "model.json"


@pytest.fixture
def manifest() -> Manifest:
    return Manifest.model_validate_json(SHIPPED.read_bytes())


@pytest.fixture
def pictures(tmp_path: Path, manifest: Manifest) -> Pictures:
    """Three sparse pictures and one crowded, by what people found in them."""
    (tmp_path / "images").mkdir()
    objects = {"a.png": 0, "b.png": 33, "c.png": 34, "d.png": 1}
    for name in objects:
        Image.new("RGB", (8, 8)).save(tmp_path / "images" / name)
    truth = {
        "images": [{"id": place, "file_name": name} for place, name in enumerate(objects)],
        "annotations": [{"image_id": place} for place, number in enumerate(objects.values()) for _ in range(number)],
    }
    (tmp_path / "instances_val.json").write_text(json.dumps(truth), encoding="utf-8")
    return read_pictures(tmp_path, "val", manifest)


def waits(p50: float = 1, p99: float = 1, refused: int = 0) -> Waits:
    return Waits(answers=10, refused=refused, p50=p50, p95=p99, p99=p99, late_p99=0)


def saturation(**rates: list[float]) -> Saturation:
    rounds = {
        server: [Throughput(calls_a_second=rate, cpu_ms_a_call=100, refused=0) for rate in found]
        for server, found in rates.items()
    }
    by_callers = {server: {2: found[0] / 2, 4: found[0]} for server, found in rates.items()}
    return Saturation(provenance=WHERE, settings=dict.fromkeys(rates, "defaults"), by_callers=by_callers, rounds=rounds)


def latency(**p99s: list[float]) -> Latency:
    rounds = {server: [waits(p99=p99) for p99 in found] for server, found in p99s.items()}
    settings = dict.fromkeys(p99s, "defaults")
    return Latency(provenance=WHERE, load=0.7, rate=10, seconds=20, settings=settings, rounds=rounds)


def overload(**changes: Any) -> Overload:
    told: dict[str, Any] = {
        "provenance": WHERE,
        "times": 10,
        "seconds": 60,
        "deadline_seconds": 30,
        "before": 10,
        "during": 9,
        "after": 10,
        "statuses": {200: 600, 429: 5400},
        "accepted": waits(p99=2000),
        "refusal_p99_ms": 5,
        "resident_mb": [300, 310],
        "slope_mb_a_minute": 0.5,
    }
    return Overload(**told | changes)


def overhead(bare_ms: list[float], served_ms: list[float]) -> Overhead:
    return Overhead(provenance=WHERE, settings="", bare_ms=bare_ms, served_ms=served_ms, bare_cpu_ms=1, served_cpu_ms=2)


def soak(end_mb: float) -> Soak:
    return Soak(
        provenance=WHERE,
        minutes=30,
        calls={"real picture": 100, "mistake": 7},
        surprises=[],
        resident_mb=[300],
        begin_mb=300,
        end_mb=end_mb,
        open_files=(30, 30),
        threads=(12, 12),
    )


def verdict(**parts: Any) -> list[bool | None]:
    """Whether each aim of some parts is reached."""
    return [found.reached for found in verdicts(Figures(**parts))]


def test_a_picture_is_crowded_when_it_asks_for_more_than_the_least_number_of_queries(manifest: Manifest) -> None:
    assert (manifest.query.k_min, manifest.query.t) == (100, 3.0)
    assert crowded_from(manifest) == 34


def test_three_sparse_pictures_come_to_one_crowded(pictures: Pictures) -> None:
    assert (len(pictures.sparse), len(pictures.crowded)) == (3, 1)
    kinds = [call.kind for call in islice(pictures.mixed(seed=0), 8)]
    assert kinds == [SPARSE, SPARSE, SPARSE, CROWDED] * 2


def test_random_arrivals_hold_the_same_mix(pictures: Pictures) -> None:
    arrivals = pictures.arrivals(rate=40, seconds=100, seed=3)
    crowded = sum(call.kind == CROWDED for _, call in arrivals)
    assert crowded / len(arrivals) == pytest.approx(0.25, abs=0.03)
    assert arrivals == pictures.arrivals(rate=40, seconds=100, seed=3)


def test_data_without_a_crowded_picture_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / "instances_val.json").write_text('{"images": [], "annotations": []}', encoding="utf-8")
    with pytest.raises(ValueError, match="no sparse picture in val; crowded begins at 34 objects"):
        read_pictures(tmp_path, "val", manifest)


def test_waits_count_from_when_a_call_was_due_and_only_answers_with_200() -> None:
    answers = [Answer("k", 200, due=1, sent=1.01, done=1.1), Answer("k", 429, due=2, sent=2, done=2.001)]
    found = Waits.of(answers)
    assert (found.answers, found.refused) == (1, 1)
    assert found.p50 == pytest.approx(100)


def test_waits_of_one_kind_leave_out_the_other() -> None:
    answers = [Answer(SPARSE, 200, 0, 0, 0.1), Answer(CROWDED, 200, 0, 0, 9)]
    assert Waits.of(answers, SPARSE).p99 == pytest.approx(100)


def test_a_round_without_a_good_answer_says_what_came() -> None:
    with pytest.raises(ValueError, match="503: 1"):
        Waits.of([Answer("k", 503, 0, 0, 1)])


def test_calls_a_second_leave_out_the_lead_in_and_what_ends_after_the_last_was_sent() -> None:
    times = [(0, 0.5), (0.5, 1.5), (1.5, 2.5), (2.5, 4.0)]
    answers = [Answer("k", 200, sent, sent, done) for sent, done in times]
    assert calls_a_second(answers, lead_in=0.5) == pytest.approx(3 / 2)
    assert calls_a_second([Answer("k", 429, sent, sent, done) for sent, done in times], 0.5) == 0


def test_the_best_peer_is_never_ours() -> None:
    rounds = {OURS: [9.0, 9.0], "slow": [1.0, 1.0], "fast": [2.0, 3.0]}
    assert best_peer(rounds, OURS, highest=True) == ("fast", [2.0, 3.0])
    assert best_peer(rounds, OURS, highest=False) == ("slow", [1.0, 1.0])


def test_a_slow_round_does_not_move_the_ratio() -> None:
    assert ratio([10, 1, 10], [8, 0.8, 8]).median == pytest.approx(1.25)


def test_the_slope_is_told_a_minute() -> None:
    assert slope([0, 1, 2], [100, 101, 102]) == pytest.approx(60)


def test_servers_take_turns_forwards_and_backwards() -> None:
    assert [in_turn(["a", "b"], number) for number in (0, 1)] == [["a", "b"], ["b", "a"]]  # pyright: ignore[reportArgumentType]


def test_the_fastest_settings_of_a_peer_take_part() -> None:
    part = Choice(provenance=WHERE, tried={"peer": {"one": [1.0, 9.0, 1.0], "two": [2.0, 2.0, 2.0]}})
    assert part.best("peer") == "two"


def test_every_variant_of_a_peer_has_a_name_of_its_own() -> None:
    assert all(len({str(variant) for variant in variants}) == len(variants) for variants in PEERS.values())


def test_as_few_callers_as_reach_the_best_throughput() -> None:
    part = saturation(heatquery=[10.0], peer=[10.0])
    part.by_callers["peer"].update({8: 10.1, 16: 9.0})
    assert part.callers("peer") == 4


@pytest.mark.parametrize(("ours", "reached"), [(11.6, True), (11.4, False)])
def test_throughput_is_judged_beside_the_best_peer(ours: float, reached: bool) -> None:
    assert verdict(saturation=saturation(heatquery=[ours] * 3, a=[10.0] * 3, b=[5.0] * 3)) == [reached]


@pytest.mark.parametrize(("ours", "reached"), [(79.0, True), (81.0, False)])
def test_the_tail_is_judged_beside_the_best_peer(ours: float, reached: bool) -> None:
    assert verdict(latency=latency(heatquery=[ours] * 3, a=[100.0] * 3, b=[200.0] * 3)) == [reached]


@pytest.mark.parametrize(("added", "bare", "reached"), [(5.9, 10.0, True), (7.9, 100.0, True), (8.1, 100.0, False)])
def test_overhead_may_be_small_in_milliseconds_or_in_percent(added: float, bare: float, reached: bool) -> None:
    assert verdict(overhead=overhead([bare] * 3, [bare + added] * 3)) == [reached]


@pytest.mark.parametrize(("beside", "reached"), [(119.0, True), (121.0, False)])
def test_sparse_pictures_are_judged_beside_themselves_alone(beside: float, reached: bool) -> None:
    arms = {"alone": [waits(p50=100)], "as_many": [waits(p50=110)], "mixed": [waits(p50=beside)]}
    part = Mixed(provenance=WHERE, rate=5, load=0.5, busy=dict.fromkeys(arms, 0.5), **arms)
    assert verdict(mixed=part) == [reached]


def test_an_overload_that_is_stood_reaches_its_four_aims() -> None:
    assert verdict(overload=overload()) == [True] * 4


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({"statuses": {200: 1, 429: 1, 503: 1}}, 0),
        ({"statuses": {200: 1, 0: 1}}, 0),
        ({"accepted": waits(p99=30_001)}, 1),
        ({"slope_mb_a_minute": 1.5}, 2),
        ({"after": 9.0}, 3),
    ],
)
def test_each_aim_of_the_overload_can_be_missed(changes: dict[str, Any], missed: int) -> None:
    assert verdict(overload=overload(**changes)) == [place != missed for place in range(4)]


@pytest.mark.parametrize(("ready", "reached"), [(1.9, True), (2.1, False)])
def test_the_start_is_judged_by_its_median(ready: float, reached: bool) -> None:
    assert verdict(start=Start(provenance=WHERE, ready=[0.1, ready, 9.0], first_answer=[9.0] * 3)) == [reached]


@pytest.mark.parametrize(("end_mb", "reached"), [(314, True), (316, False), (284, False)])
def test_memory_may_drift_neither_up_nor_down(end_mb: float, reached: bool) -> None:
    assert verdict(soak=soak(end_mb)) == [reached]


def test_the_report_has_each_part_with_where_it_was_measured_and_the_aims_beside_it() -> None:
    figures = Figures(saturation=saturation(heatquery=[12.0] * 3, peer=[10.0] * 3), soak=soak(303))
    lines, aims = report(figures), aims_table(verdicts(figures))
    assert aims[2] == "| calls a second at saturation, by peer's | at least 1.15 x | 1.2 (1.2 - 1.2) x | reached |"
    assert [line for line in lines if line.startswith("### ")] == ["### Saturation", "### Soak"]
    assert sum(line.startswith("a machine; a runtime; 2026-11-25, commit `0123456789ab`") for line in lines) == 2


def test_every_table_of_the_report_has_rows_as_wide_as_its_head() -> None:
    arms = {name: [waits()] for name in ("alone", "as_many", "mixed")}
    figures = Figures(
        choice=Choice(provenance=WHERE, tried={"peer": {"one": [1.0]}}),
        saturation=saturation(heatquery=[12.0], peer=[10.0]),
        latency=latency(heatquery=[1.0], peer=[2.0]),
        overhead=overhead([1], [2]),
        mixed=Mixed(provenance=WHERE, rate=5, load=0.5, busy=dict.fromkeys(arms, 0.5), **arms),
        overload=overload(),
        start=Start(provenance=WHERE, ready=[1.0], first_answer=[2.0]),
        soak=soak(300),
    )
    for table in "\n".join(report(figures)).split("\n\n"):
        rows = [line for line in table.split("\n") if line.startswith("|")]
        assert len({row.count("|") for row in rows}) <= 1, table


def test_a_run_can_be_gone_on_with_from_its_file(tmp_path: Path) -> None:
    figures = Figures(saturation=saturation(heatquery=[12.0], peer=[10.0]), overload=overload())
    figures.write(tmp_path / "figures.json")
    assert Figures.read(tmp_path / "figures.json") == figures
    assert Figures.read(tmp_path / "none.json") == Figures()


def test_the_picture_of_waits_names_every_server(tmp_path: Path) -> None:
    curve = Curve(provenance=WHERE, rates={0.5: 5.0, 0.7: 7.0}, waits={"ours": {0.5: waits(), 0.7: waits()}})
    plot(curve, tmp_path / "waits.svg")
    assert "<svg" in (tmp_path / "waits.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("theirs", "share"),
    [
        ([{"box": [1, 0, 10, 10], "label": "ship", "score": 0.4}], 1),  # a little moved, a little less sure
        ([{"box": [5, 0, 15, 10], "label": "ship", "score": 0.9}], 0),
        ([{"box": [0, 0, 10, 10], "label": "bridge", "score": 0.9}], 0),
        ([], 0),
    ],
)
def test_servers_that_find_something_else_are_told_apart(theirs: list[dict], share: float) -> None:
    ours = [{"box": [0, 0, 10, 10], "label": "ship", "score": 0.9}]
    assert agreement([ours], [theirs]) == share


def test_servers_agree_where_neither_is_sure_of_anything() -> None:
    assert agreement([[]], [[{"box": [0, 0, 1, 1], "label": "ship", "score": 0.4}]]) == 1


def test_the_bomb_of_the_soak_is_one() -> None:
    with pytest.raises(PictureTooLargeError, match="HEATQUERY_MAX_PIXELS"):
        decode_picture(bomb(), max_pixels=100_000_000)


def test_mistakes_expect_to_be_refused() -> None:
    assert {status for _, status in mistakes(b"picture")} == {400, 404, 413, 415, 422}


def test_settings_of_the_service_are_told_by_their_full_name() -> None:
    assert setting("HEATQUERY_THREADS=1") == ("HEATQUERY_THREADS", "1")
    with pytest.raises(argparse.ArgumentTypeError, match="HEATQUERY_NAME=VALUE"):
        setting("threads=1")


def test_only_the_peer_imports_its_library() -> None:
    imports = re.compile(r"^\s*(from|import) litserve\b", re.MULTILINE)
    importing = {
        path.relative_to(ROOT).as_posix()
        for folder in ("model", "training", "export", "service", "benchmarks", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if imports.search(path.read_text(encoding="utf-8"))
    }
    assert importing == {"benchmarks/serving_peers/lit.py"}
