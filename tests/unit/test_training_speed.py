"""The benchmark of training, on a model that is soon done."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

import training
from benchmarks.book_result import read_rows
from benchmarks.training_speed import Stopwatch, Variant, claims, main
from model.config import HybridEncoderConfig, PlainBackboneConfig
from training.config import Recipe

NANO = Path(training.__file__).parent / "recipes" / "nano-nwpu.toml"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """The default recipe with a smaller model."""
    whole = Recipe.from_toml(NANO)
    model = whole.model.model_copy(
        update={
            "width": 16,
            "backbone": PlainBackboneConfig(stem=4, channels=(8, 8, 16, 16), blocks=(1, 1, 1, 1)),
            "encoder": HybridEncoderConfig(heads=2, feedforward=16),
        }
    )
    data = whole.data.model_copy(update={"train_size": 96})
    path = tmp_path / "recipe.toml"
    path.write_text(whole.model_copy(update={"model": model, "data": data}).to_toml(), encoding="utf-8")
    return path


def test_the_report_has_every_variant_and_shares_that_add_up(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--rounds", "1", "--batch-size", "2", "--crop", "64", "--threads", str(torch.get_num_threads())]
    main([str(recipe), *small, "--json", str(tmp_path / "rows.json")])
    rows = read_rows(tmp_path / "rows.json")
    assert [row.claim for row in rows[:2]] == [
        f"{name}, batch 2 of 64 px: crops a CPU-second" for name in ("bf16", "fp32")
    ]
    printed = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line.startswith("|")]
    table, split = rows[2:4], rows[6:]
    assert [row[0] for row in table] == ["bf16", "fp32"]
    assert table[0][4] == "1.00"
    for column in (1, 2):
        shares = [float(row[column].rstrip("%")) for row in split if row[column] != "-"]
        assert sum(shares) == pytest.approx(100, abs=1)
        assert all(share >= 0 for share in shares)
    assert "crops a CPU-second" in printed.splitlines()[-1]


def test_a_gpu_is_told_by_the_clock(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    variant = SimpleNamespace(name="fp32", wall=[0.5, 0.25, 0.5], cpu=[9.0, 9.0, 9.0])
    [speed, *_] = claims(Recipe.from_toml(recipe), [cast(Variant, variant)], loading=1, waiting=0)
    assert (speed.claim, speed.value) == ("fp32, batch 8 of 384 px: crops a second", 16)


def test_a_part_is_timed_only_while_the_watch_runs() -> None:
    watch = Stopwatch()
    double = watch.timed(lambda x: 2 * x, "average")
    assert double(2) == 4
    assert watch.seconds == {}
    watch.enabled = True
    assert double(3) == 6
    assert watch.seconds["average"] >= 0
