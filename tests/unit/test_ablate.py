"""Ablations: what a grid may say, the order of its runs, what is done again, and the numbers of the table."""

import shutil
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import training
from training.__main__ import parser
from training.ablation.command import ablate, rewrite_table, run_ablate
from training.ablation.grid import Grid, Variant, flat_recipe
from training.ablation.results import Figures, Result, check_same, result_path
from training.ablation.run import read_cost, thinned
from training.ablation.session import Run, claimed
from training.ablation.table import by_seed, comparable, markdown, mean_and_deviation, metric, paired_difference
from training.config import Recipe

TRAINING = Path(training.__file__).parent
NANO = TRAINING / "recipes" / "nano-nwpu.toml"

TWO = """
    [variants.plain]

    [variants.deep]
    model.decoder.layers = 6
"""

STUB = """
import json, sys, pathlib
folder = pathlib.Path(sys.argv[1])
with (folder.parent.parent / "order.txt").open("a") as order:
    order.write(folder.name + "\\n")
(folder / "checkpoints" / "step-000004").mkdir(parents=True, exist_ok=True)
if folder.name in sys.argv[3:]:
    sys.exit("out of luck")
(folder / "figures.json").write_text(sys.argv[2])
"""
"""Stands in for training: notes its name, leaves a checkpoint and figures, or fails if its name is among the last."""


def figures(ap: float = 0.5, **changes: Any) -> Figures:
    values: dict[str, Any] = {
        "metrics": {"ap": ap, "ap50": 2 * ap, "ap_tiny": None, "mean_queries": 100.0, "count_relative_mae": 0.1},
        "layers": [ap - 0.2, ap - 0.1, ap],
        "seconds": 100.0,
        "cpu_seconds": 150.0,
        "parameters": 1_500_000,
        "device": "abacus",
        "loss_curve": [(2, 9.0), (4, 8.0)],
        "ap_curve": [(4, ap)],
    }
    return Figures.model_validate(values | changes)


def stub(*failing: str) -> Callable[[Run], list[str]]:
    return lambda run: [sys.executable, "-c", STUB, str(run.folder), figures().model_dump_json(), *failing]


def write_grid(folder: Path, variants: str = TWO, seeds: Sequence[int] = (0, 1), base: Path = NANO) -> Path:
    path = folder / "grid.toml"
    path.write_text(f'base = "{base}"\nseeds = {list(seeds)}\n{variants}', encoding="utf-8")
    return path


def variants_of(folder: Path, variants: str = TWO) -> list[Variant]:
    return Grid.from_toml(write_grid(folder, variants)).resolve()


def result(variant: Variant, seed: int, values: Figures) -> Result:
    recipe = flat_recipe(variant.recipe) | {"run.seed": seed}
    return Result(
        variant=variant.name, seed=seed, steps=4, changes=variant.changes, recipe=recipe, figures=values
    )  # fmt: skip


def order(out: Path) -> list[str]:
    return (out / "order.txt").read_text(encoding="utf-8").split()


def test_a_variant_is_the_base_with_its_changes(tmp_path: Path) -> None:
    plain, deep = variants_of(tmp_path)
    assert plain.recipe == Recipe.from_toml(NANO)
    assert deep.recipe.model.decoder.layers == 6
    assert deep.changes == {"model.decoder.layers": 6}


def test_a_variant_takes_over_the_changes_of_the_one_it_is_on(tmp_path: Path) -> None:
    text = TWO + '[variants.deeper]\non = "deep"\nmodel.query.k_min = 7\n'
    deeper = variants_of(tmp_path, text)[-1]
    assert deeper.on == "deep"
    assert deeper.changes == {"model.decoder.layers": 6, "model.query.k_min": 7}
    assert deeper.own == {"model.query.k_min": 7}


def test_a_part_can_be_left_out(tmp_path: Path) -> None:
    text = "[variants.plain]\n[variants.fixed]\nmodel.density = false\nloss.density = 0\nloss.count = 0\n"
    fixed = variants_of(tmp_path, text)[-1]
    assert fixed.recipe.model.density is None
    assert fixed.changes == {"model.density": None, "loss.density": 0, "loss.count": 0}


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("[variants.a]\nmodel.decoder.layres = 2", "variant 'a': .*no key 'layres'; the nearest valid key is 'layers'"),
        ("[variants.a]\nmodle.decoder.layers = 2", "variant 'a': .*no key 'modle'; the nearest valid key is 'model'"),
        ("[variants.a]\nmodel.decoder.layers = 99", "variant 'a': model.decoder.layers: Input should be less than"),
        ('[variants.a]\non = "b"\n[variants.b]\nmodel.decoder.layers = 2', "'a' is on 'b', which is no variant before"),
        ("[variants.a]\n[variants.b]\n", "variants 'a' and 'b' are the same recipe"),
        ("[variants.a]\nrun.steps = 5", r"variant 'a' changes \[run\], but all runs share"),
        ("[variants.a]\ndata.train_size = 64", r"variant 'a' changes \[data\], but all runs share"),
        ('[variants."../a"]', "variant '../a' names files"),
        ("[variants]", "variants: Dictionary should have at least 1 item"),
        ("[varians.a]", "no key 'varians'; the nearest valid key is 'variants'"),
        ("[variants.a", "is not TOML"),
    ],
)
def test_a_bad_grid_says_why_in_one_line(tmp_path: Path, variants: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        variants_of(tmp_path, variants)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("grid", sorted((TRAINING / "ablation" / "grids").glob("*.toml")), ids=lambda path: path.stem)
def test_the_grids_of_the_repository_can_be_built(grid: Path) -> None:
    variants = Grid.from_toml(grid).resolve()
    assert variants[0].changes == {}
    for variant in variants:
        variant.recipe.model.detector(variant.recipe.data.classes)
        assert tomllib.loads(variant.recipe.to_toml())


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ablation that is done; its grid lies beside it."""
    folder = tmp_path_factory.mktemp("ablation")
    ablate(write_grid(folder), folder / "out", command=stub())
    return folder / "out"


@pytest.fixture
def done(two_seeds: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(two_seeds, tmp_path / "out")


def test_all_variants_run_with_the_first_seed_before_any_with_the_second(two_seeds: Path) -> None:
    assert order(two_seeds) == ["plain-0", "deep-0", "plain-1", "deep-1"]


def test_only_the_chosen_variants_and_seeds_run(tmp_path: Path) -> None:
    ablate(write_grid(tmp_path), tmp_path / "out", only=["deep"], seeds=[5], command=stub())
    assert order(tmp_path / "out") == ["deep-5"]
    assert result_path(tmp_path / "out", "deep", 5).is_file()


def test_a_variant_that_the_grid_does_not_have_cannot_be_chosen(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no variant 'depe'; it has plain, deep"):
        ablate(write_grid(tmp_path), tmp_path / "out", only=["depe"], command=stub())


def test_a_finished_run_is_not_run_again(done: Path, tmp_path: Path) -> None:
    result_path(done, "deep", 0).unlink()
    ablate(write_grid(tmp_path), done, command=stub())
    assert order(done) == ["plain-0", "deep-0", "plain-1", "deep-1", "deep-0"]


def test_a_run_that_fails_does_not_stop_the_others_and_is_tried_again(tmp_path: Path) -> None:
    grid, out = write_grid(tmp_path, seeds=[0]), tmp_path / "out"
    with pytest.raises(ChildProcessError, match=r"1 of 2 runs failed: plain-0 \(out of luck; see .*log.txt\)"):
        ablate(grid, out, command=stub("plain-0"))
    ablate(grid, out, command=stub())
    assert order(out) == ["plain-0", "deep-0", "plain-0"]


def test_a_run_is_given_its_seed_and_its_share_of_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)))
    ablate(write_grid(tmp_path), tmp_path / "out", jobs=3, seeds=[4], command=stub())
    recipe = Recipe.from_toml(tmp_path / "out" / "runs" / "deep-4" / "recipe.toml")
    assert (recipe.run.seed, recipe.run.threads, recipe.model.decoder.layers) == (4, 2, 6)


@pytest.mark.parametrize("keep", [False, True])
def test_checkpoints_of_finished_runs_go_unless_they_are_to_stay(tmp_path: Path, keep: bool) -> None:
    ablate(write_grid(tmp_path), tmp_path / "out", only=["plain"], seeds=[0], keep=keep, command=stub())
    assert (tmp_path / "out" / "runs" / "plain-0" / "checkpoints").exists() == keep


def test_no_run_begins_after_the_time_limit(tmp_path: Path) -> None:
    table = ablate(write_grid(tmp_path), tmp_path / "out", minutes=0, command=stub())
    assert not (tmp_path / "out" / "order.txt").exists()
    assert "Not run yet: plain, deep." in table.read_text(encoding="utf-8")


def test_a_run_at_work_at_the_time_limit_stops_at_its_next_checkpoint(tmp_path: Path) -> None:
    endless = """
import pathlib, sys, time
for step in range(1000):
    (pathlib.Path(sys.argv[1]) / "checkpoints" / f"step-{step:06d}").mkdir(parents=True)
    time.sleep(0.3)
"""
    out = tmp_path / "out"
    command = [sys.executable, "-c", endless]
    ablate(write_grid(tmp_path), out, minutes=0.01, command=lambda run: [*command, str(run.folder)])
    assert 1 <= len(list((out / "runs" / "plain-0" / "checkpoints").iterdir())) < 20
    assert not (out / "runs" / "deep-0").exists()


def test_a_result_of_another_recipe_is_refused(done: Path, tmp_path: Path) -> None:
    other = write_grid(tmp_path, TWO.replace("layers = 6", "layers = 5"))
    with pytest.raises(ValueError, match=r"deep-0.json is of another recipe: model.decoder.layers was 6, .* says 5"):
        ablate(other, done, command=stub())


def test_an_unfinished_run_of_another_recipe_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ChildProcessError):
        ablate(write_grid(tmp_path), out, only=["deep"], seeds=[0], command=stub("deep-0"))
    with pytest.raises(ValueError, match=r"recipe.json is of another recipe: model.decoder.layers was 6, .* says 5"):
        ablate(write_grid(tmp_path, TWO.replace("layers = 6", "layers = 5")), out, command=stub())


def test_a_damaged_result_is_named(done: Path, tmp_path: Path) -> None:
    result_path(done, "deep", 0).write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"deep-0.json is no result of this program"):
        rewrite_table(write_grid(tmp_path), done)


def test_a_field_that_only_one_version_of_the_code_knows_is_no_difference() -> None:
    check_same(Path("x"), {"a": 1, "lost": 2}, {"a": 1, "learned": 3})


def test_a_part_that_was_left_out_is_a_difference() -> None:
    with pytest.raises(ValueError, match=r"model\.heat was off, the grid now says a table"):
        check_same(Path("x"), {"model.heat": None}, {"model.heat.tau": 0.1})


def test_how_a_run_is_carried_out_is_no_difference() -> None:
    check_same(Path("x"), {"run.threads": 1, "run.log_every": 5}, {"run.threads": 2, "run.log_every": 1})


def test_two_ablations_do_not_work_in_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with claimed(out), pytest.raises(ValueError, match="another ablation is at work in"):
        ablate(write_grid(tmp_path), out, command=stub())


def test_results_of_two_machines_merge_by_copying(two_seeds: Path, tmp_path: Path) -> None:
    (tmp_path / "merged" / "results").mkdir(parents=True)
    for path in (two_seeds / "results").iterdir():
        shutil.copy(path, tmp_path / "merged" / "results")
    table = rewrite_table(write_grid(tmp_path), tmp_path / "merged").read_text(encoding="utf-8")
    assert "| plain | 2 | 50.0 ± 0.0 |" in table


def test_the_command_line_compares_what_is_there(done: Path, tmp_path: Path) -> None:
    (done / "table.md").unlink()
    command = ["ablate", str(write_grid(tmp_path)), "--out", str(done), "--table-only"]
    assert run_ablate(parser().parse_args(command)) == done / "table.md"
    assert order(done) == ["plain-0", "deep-0", "plain-1", "deep-1"]


def test_mean_and_deviation_are_those_computed_by_hand() -> None:
    assert mean_and_deviation({0: 0.3, 1: 0.5, 2: 0.7}) == pytest.approx((0.5, 0.2))
    assert mean_and_deviation({0: 0.3}) == (0.3, None)


def test_a_difference_is_paired_by_seed() -> None:
    # by seed: 0.1, 0.2, 0.3; mean 0.2, deviation 0.1, standard error 0.1 / sqrt(3); seed 9 has no partner
    values, reference = {0: 0.4, 1: 0.6, 2: 0.8, 9: 9.0}, {0: 0.3, 1: 0.4, 2: 0.5}
    assert paired_difference(values, reference) == pytest.approx((0.2, 0.1 / 3**0.5))
    assert paired_difference({0: 0.4}, {0: 0.3}) == (pytest.approx(0.1), None)
    assert paired_difference({0: 0.4}, {1: 0.3}) is None


def test_a_figure_is_read_by_seed_where_it_was_measured(tmp_path: Path) -> None:
    plain = variants_of(tmp_path)[0]
    results = [result(plain, 0, figures(0.3)), result(plain, 1, figures(0.4, metrics={"ap": None}))]
    assert by_seed(results, "plain", metric("ap")) == {0: 0.3}


def test_runs_of_different_devices_are_not_compared(tmp_path: Path) -> None:
    plain, deep = variants_of(tmp_path, TWO)
    results = [result(plain, 0, figures(0.30)), result(deep, 0, figures(0.40, device="a GPU"))]
    assert comparable(results, "deep", "plain") == []
    (row,) = [line for line in markdown([plain, deep], results).splitlines() if line.startswith("| deep | 1 |")]
    assert row.split(" | ")[2:4] == ["40.0", "-"]


def test_the_table_has_means_differences_and_cost(tmp_path: Path) -> None:
    more = '[variants.deeper]\non = "deep"\nmodel.query.k_min = 7\n[variants.late]\nmodel.query.k_min = 9'
    variants = variants_of(tmp_path, TWO + more)
    plain, deep, deeper, _ = variants
    results = [
        result(plain, 0, figures(0.30)),
        result(plain, 1, figures(0.40)),
        result(deep, 0, figures(0.40, seconds=150.0, cpu_seconds=180.0)),
        result(deep, 1, figures(0.44, seconds=150.0, cpu_seconds=180.0)),
        result(deeper, 1, figures(0.50, parameters=2_000_000)),
    ]
    title, _, command, _, *lines = markdown(variants, results).splitlines()
    assert title == "# Ablation"
    assert "python -m training ablate" in command
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[:5]}
    head = [cell.strip() for cell in rows["variant"].strip("|").split("|")]
    cells = {
        name: dict(zip(head, (cell.strip() for cell in line.strip("|").split("|")), strict=True))
        for name, line in rows.items()
    }
    assert cells["plain"]["AP"] == "35.0 ± 7.1"
    assert cells["deep"]["against plain"] == "+7.0 ± 3.0"
    assert cells["deep"]["training time"] == "1.50 x"
    assert cells["deep"]["CPU time"] == "1.20 x"
    assert cells["deeper"]["against plain"] == "+10.0"
    assert cells["deeper"]["against what it builds on"] == "+6.0 (deep)"
    assert cells["deeper"]["parameters"] == "2.00 M"
    assert cells["deeper"]["APt"] == "-"
    assert "Not run yet: late." in markdown(variants, results)


def test_times_of_different_devices_are_not_compared(tmp_path: Path) -> None:
    plain, deep = variants_of(tmp_path)
    text = markdown([plain, deep], [result(plain, 0, figures()), result(deep, 0, figures(device="slide rule"))])
    assert " x |" not in text.splitlines()[3]


def test_a_run_whose_time_is_not_known_has_none_in_the_table(tmp_path: Path) -> None:
    plain = variants_of(tmp_path)[0]
    assert "nan" not in markdown([plain], [result(plain, 0, figures(seconds=None, cpu_seconds=None))])


def test_the_cost_of_a_run_that_died_before_it_was_written_is_unknown(tmp_path: Path) -> None:
    assert read_cost(tmp_path / "cost.json") == {"seconds": None, "cpu_seconds": None}


def test_the_table_shows_every_layer_and_what_a_variant_is(tmp_path: Path) -> None:
    variants = variants_of(tmp_path)
    text = markdown(variants, [result(variants[0], 0, figures(0.30))])
    assert "| AP after layer | Det0 | Det1 | Det2 |" in text
    assert "| plain | 10.0 | 20.0 | 30.0 |" in text
    assert "| deep | `model.decoder.layers = 6` |" in text


def test_a_curve_is_thinned_by_means_of_stretches() -> None:
    curve = [(step, float(step)) for step in range(1, 101)]
    assert thinned(curve)[:2] == [(2, 1.5), (4, 3.5)]
    assert len(thinned(curve)) == 50
    assert thinned(curve[:3]) == curve[:3]
    assert thinned([]) == []
