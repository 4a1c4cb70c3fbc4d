"""The benchmark book: what result files may hold, what is made of them, and that other documents refer to it."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from benchmarks import book, book_rows, merging
from benchmarks.book import PAGE, main, run, write_book
from benchmarks.book_entries import ENTRIES, NEEDS, Entry
from benchmarks.book_page import TABLES, render
from benchmarks.book_plot import FEWEST
from benchmarks.book_result import Result, Row, Rows, read_result, read_results, read_rows, told, write_model
from benchmarks.complexity import CLASSES, Case, Complexity, claims
from export.accuracy import Accuracy
from export.depth import DepthFigures
from model.presets import preset

ROOT = Path(__file__).resolve().parents[2]
MEASURED = re.compile(r"\|\s*[*+~-]*\d[\d,]*\.\d+(?=[\s*%|])")
"""A cell that begins with a decimal number; a version that ends a sentence is none."""
PROTOTYPE = "Measured on a prototype before this repository"
"""Which no command of ours can measure again; a section that says so claims nothing of this code."""
WRITES_ROWS = """\
import sys
from benchmarks.book_result import Row, write_rows
from pathlib import Path
write_rows(Path(sys.argv[1]), [Row(claim="answers", value=42, at_least=40)])
"""


def result(*rows: Row, **changes: Any) -> Result:
    """A result as a file holds it."""
    where = {"hardware": "a machine", "date": "2026-11-26", "commit": "0123456789ab", "command": "python a.py"}
    return Result.model_validate({"table": "parts", **where, "rows": rows or (Row(claim="a", value=1),), **changes})


def sections(text: str) -> Iterator[str]:
    """Every section of the second level, behind what stands before the first of them."""
    introduction, *rest = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    yield from (introduction + section for section in ["", *rest])


def programs() -> set[str]:
    """What the commands of the book run, by the words that a document would use."""
    return {
        re.findall(r"(?:benchmarks|tests/container)/\w+\.py|-m \w+ \w+", entry.command)[0] for entry in ENTRIES.values()
    }


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1.19, "1.19"),
        (0.6, "0.6"),
        (1.0263, "1.03"),
        (0.09561, "0.0956"),
        (7e-05, "0.00007"),
        (40, "40"),
        (0, "0"),
        (12_639.4, "12,639"),
        (197.3, "197"),
        (-6.389, "-6.39"),
    ],
)
def test_a_figure_has_three_digits_that_count_or_as_many_as_are_known(number: float, text: str) -> None:
    assert told(number) == text


def test_a_spread_is_told_as_exactly_as_its_most_exact_number() -> None:
    row = Row(claim="time", value=0.6, low=0.594, high=0.613, unit="x", at_most=0.45)
    assert (row.measured, row.aim, row.verdict) == ("0.600 (0.594 - 0.613) x", "at most 0.45 x", "**missed**")


@pytest.mark.parametrize(
    ("aim", "reached"),
    [({"at_most": 1}, True), ({"at_most": 0.9}, False), ({"at_least": 1}, True), ({"at_least": 2}, False), ({}, None)],
)
def test_a_figure_is_judged_by_its_aim(aim: dict[str, Any], reached: bool | None) -> None:
    assert Row(claim="a", value=1, **aim).reached is reached


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 1}, "a spread has both ends"),
        ({"low": 2, "high": 3}, "1 is not between 2 and 3"),
        ({"at_most": 1, "at_least": 1}, "two aims"),
        ({"claim": "a | b"}, "pattern"),
        ({"better": True}, "better"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Row.model_validate({"claim": "a", "value": 1, **changes})


def test_a_bad_result_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"table": "speed"}')
    with pytest.raises(ValueError, match=r"bad\.json"):
        read_results(tmp_path)


def test_a_result_survives_its_file(tmp_path: Path) -> None:
    kept = result(Row(claim="a", value=40, low=39, high=41, unit="ms"), note="busy")
    write_model(tmp_path / "a.json", kept)
    assert read_result(tmp_path / "a.json") == kept


def test_no_claim_stands_twice_in_a_result() -> None:
    with pytest.raises(ValueError, match="two rows say 'a'"):
        result(Row(claim="a", value=1), Row(claim="a", value=2))


def test_a_row_of_the_page_has_all_that_a_stranger_needs() -> None:
    page = render({"merging": result(Row(claim="time", value=2, unit="ms", at_most=1), note="Busy.")})
    where = "`make bench ONLY=merging` | a machine | 2026-11-26 | `0123456789ab` |"
    assert f"| time | 2 ms | at most 1 ms | **missed** | {where}" in page.splitlines()
    assert "- **merging**: `python a.py`. Busy." in page
    assert "0 of 1 aims are reached" in page


def test_a_result_of_a_labelled_machine_names_the_entry_that_measures_it() -> None:
    page = render({"merging": result(), "merging.gpu": result(hardware="another")})
    assert page.count("`make bench ONLY=merging` | ") == 2


def test_the_same_results_make_the_same_bytes(tmp_path: Path) -> None:
    rows = [Row(claim=str(number), value=number, at_most=1) for number in range(FEWEST)]
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_book({"merging": result(*rows)}, folder / "README.md")
    first, second = ((folder / "plots" / "parts.svg").read_bytes() for folder in folders)
    assert first == second


def test_the_book_is_what_its_results_say(tmp_path: Path) -> None:
    """Nobody has typed a figure; `python benchmarks/book.py` mends what fails here."""
    write_book(read_results(), tmp_path / "README.md")
    assert PAGE.read_text(encoding="utf-8") == (tmp_path / "README.md").read_text(encoding="utf-8")
    plots = {path.name: path.read_bytes() for path in (PAGE.parent / "plots").iterdir()}
    assert plots == {path.name: path.read_bytes() for path in (tmp_path / "plots").iterdir()}


def test_every_result_is_of_an_entry_and_in_its_table() -> None:
    for name, found in read_results().items():
        assert ENTRIES[name.partition(".")[0]].table == found.table, name


def test_every_entry_has_a_table_and_writes_somewhere() -> None:
    assert {entry.table for entry in ENTRIES.values()} == set(TABLES)
    for name, entry in ENTRIES.items():
        assert entry.figures != "{FILE}" or "{FILE}" in entry.command, name


def toy_entries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One that fails, one that leaves no figures, one that works, one that needs something."""
    program = tmp_path / "toy.py"
    program.write_text(WRITES_ROWS)
    commands = {
        "failing": "false {FILE}",
        "silent": "true {FILE}",
        "working": f"python {program} {{FILE}}",
        "needing": "false {REDIS}",
    }
    for name in NEEDS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(book, "ENTRIES", {name: Entry("parts", command, 1) for name, command in commands.items()})
    monkeypatch.setattr(book, "WORK", tmp_path / "work")


def test_what_fails_does_not_stop_what_comes_after(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy_entries(monkeypatch, tmp_path)
    failed = run(["failing", "silent", "working"], tmp_path)
    assert list(failed) == ["failing", "silent"]
    assert "exit status 1" in failed["failing"]
    assert read_result(tmp_path / "working.json").rows == (Row(claim="answers", value=42, at_least=40),)


def test_all_that_can_run_is_run_and_what_cannot_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toy_entries(monkeypatch, tmp_path)
    page = tmp_path / "README.md"
    with pytest.raises(SystemExit, match="failing failed: CalledProcessError"):
        main(["--run", "--label", "gpu", "--results", str(tmp_path), "--page", str(page)])
    assert "left out: needing needs REDIS" in capsys.readouterr().out
    assert "| answers | 42 | at least 40 | reached |" in page.read_text(encoding="utf-8")
    assert (tmp_path / "working.gpu.json").is_file()


@pytest.mark.parametrize(("name", "message"), [("needing", "needing needs REDIS: address"), ("lost", "has no 'lost'")])
def test_an_entry_that_cannot_run_is_refused_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, message: str
) -> None:
    toy_entries(monkeypatch, tmp_path)
    with pytest.raises(SystemExit, match=message):
        main(["--run", name])


def test_the_list_has_every_entry_with_its_needs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--list"])
    printed = capsys.readouterr().out
    assert "| peers | 3 | NWPU, PEER_GRAPHS |" in printed
    assert all(f"| {name} | " in printed for name in ENTRIES)


def documents() -> Sequence[Path]:
    """Pages that tell figures; a decision tells those that it was made by, with where and when."""
    return [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name not in ("decisions", "nwpu")]


@pytest.mark.parametrize("page", documents(), ids=lambda page: page.name)
def test_tables_with_measured_figures_name_a_command_of_the_book(page: Path) -> None:
    for section in sections(page.read_text(encoding="utf-8")):
        told = re.sub(r"^```.*?^```", "", section, flags=re.DOTALL | re.MULTILINE)  # without what programs printed
        lines = [line for line in told.splitlines() if line.startswith("|") and "https://" not in line]
        if any(MEASURED.search(line) for line in lines):
            named = [name for name in (*programs(), "benchmarks/README.md", PROTOTYPE) if name in section]
            title = (re.findall(r"^## (.+)$", section, re.MULTILINE) or ["its beginning"])[-1]
            assert named, f"{page.name}, {title}: nothing tells how these figures were measured"


def test_figures_of_the_readme_stand_in_the_book() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    not_ours = r"```.*?```|`[^`\n]*`|\]\([^)]*\)|Python \d\.\d+|as published[^|\n]*"
    prose = re.sub(not_ours, "", text, flags=re.DOTALL)
    rows = [row for found in read_results().values() for row in found.rows]
    known = [n for row in rows for n in (row.value, row.low, row.high, row.at_most, row.at_least) if n is not None]
    for figure in re.findall(r"(?<![\w.,-])\d[\d,]*\.\d+(?![\w.])", prose):
        places, value = len(figure.partition(".")[2]), float(figure.replace(",", ""))
        assert any(round(number, places) == value for number in known), f"{figure} is in no file of benchmarks/results"


def test_merging_tells_the_book_time_and_memory(tmp_path: Path) -> None:
    merging.main(["--objects", "300", "--rounds", "1", "--json", str(tmp_path / "rows.json")])
    time, memory = read_rows(tmp_path / "rows.json")
    assert (time.unit, memory.unit) == ("ms", "bytes a box")


def test_presets_are_told_at_the_size_that_all_share() -> None:
    found = Complexity(2_000_000, {"encoder": 1.5})
    config = preset("nano", CLASSES)
    assert [row.value for row in claims(Case("nano", config, 640, 300), found)] == [2, 1.5]
    assert claims(Case("nano", config, 800, 300), found) == []


def test_depth_is_told_layer_by_layer(tmp_path: Path) -> None:
    found = asdict(DepthFigures(1, Accuracy(0.5, 0.8, 0.6), 2.0, 30.0))
    (tmp_path / "depth.json").write_text(json.dumps([found]), encoding="utf-8")
    rows = {row.claim: row.value for row in book_rows.depth("toy")(tmp_path / "depth.json")}
    assert rows["toy, 1 decoder layer: AP50"] == 0.8
    assert rows["toy, 1 decoder layer: encoder and decoder"] == 30


def test_hosts_are_told_by_their_last_step(tmp_path: Path) -> None:
    steps = [{"forward_s": 9, "backward_s": 9}, {"forward_s": 1, "backward_s": 2}]
    found = {"preset": "dino", "batch": 2, "size": 800, "peak_gib": 11, "steps": steps}
    (tmp_path / "host.json").write_text(json.dumps(found), encoding="utf-8")
    assert [row.value for row in book_rows.hosts(tmp_path / "host.json")] == [11, 1, 2]


def test_an_ablation_is_told_by_variant_over_its_seeds(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    for name, seed, ap in (("full", 0, 0.1), ("full", 1, 0.4), ("full", 2, 0.2), ("l1", 2, 0.3)):
        run = {"variant": name, "seed": seed, "steps": 8, "figures": {"metrics": {"ap": ap}}}
        (tmp_path / "results" / f"{name}-{seed}.json").write_text(json.dumps(run), encoding="utf-8")
    full, single = book_rows.ablation("nwpu")(tmp_path)
    assert (full.claim, full.value, single.low) == ("nwpu, full, 8 steps, 3 seeds: AP", 0.2, None)
    assert (single.claim, single.value) == ("nwpu, l1, 8 steps, one seed: AP", 0.3)


def test_engines_are_told_from_the_record_beside_each(tmp_path: Path) -> None:
    key = {"graph": "decoder.onnx", "library": "tensorrt-rtx", "version": "1.7"}
    record = {"key": key, "build_seconds": 3.5, "engine_bytes": 2**21}
    (tmp_path / "decoder.json").write_text(json.dumps(record), encoding="utf-8")
    assert [row.value for row in book_rows.engines(tmp_path)] == [3.5, 2]


def test_what_the_repository_holds_is_what_the_book_tells() -> None:
    for name in ("parity", "ablation", "ablation-tiny"):
        entry = ENTRIES[name]
        assert tuple(entry.rows(ROOT / entry.figures)) == read_results()[name].rows, name


def test_rows_that_a_benchmark_writes_are_strict() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Rows.model_validate(json.loads('{"rows": [], "date": "today"}'))
