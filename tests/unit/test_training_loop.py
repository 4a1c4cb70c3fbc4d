"""Whole runs on a few synthetic pictures: exact resume, evaluation, and what happens when a loss is not finite."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

import training
from model.checkpoint import load_detector
from model.config import DetectorConfig, HybridEncoderConfig, PlainBackboneConfig, QueryConfig
from training.config import Recipe
from training.criterion import Loss, SetCriterion
from training.data.samples import Targets
from training.data.synthetic import CLASSES, synthesize
from training.loop import fit, look_at, matching_val_set
from training.parallel import Processes
from training.trainer import Trainer

NANO = Path(training.__file__).parent / "recipes" / "nano-nwpu.toml"
SIDE = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six synthetic scenes."""
    folder = tmp_path_factory.mktemp("loop") / "scenes"
    synthesize(folder, count=6, size=SIDE, seed=0, progress=False)
    return folder


def tiny_recipe(data: Path, **run: Any) -> Recipe:
    """The default recipe with a smaller model, on the scenes."""
    recipe, images, annotations = Recipe.from_toml(NANO), data / "images", data / "instances.json"
    changes: dict[str, dict[str, Any]] = {
        "model": {
            "width": 16,
            "backbone": PlainBackboneConfig(stem=4, channels=(8, 8, 16, 16), blocks=(1, 1, 1, 1)),
            "encoder": HybridEncoderConfig(heads=2, feedforward=16),
            "query": QueryConfig(k_min=5, k_max=30),
        },
        "data": {
            "train_images": images, "train_annotations": annotations, "val_images": None, "val_annotations": None,
            "classes": CLASSES, "train_size": SIDE, "val_size": SIDE,
        },
        "augment": {"crop": SIDE},
        "denoising": {"queries": 8},
        "optimizer": {"warmup_steps": 2, "ema_decay": 0.9},
        "run": {
            "steps": 6, "batch_size": 2, "threads": 1, "workers": 0, "checkpoint_every": 2, "log_every": 1,
            "precision": "fp32",
        } | run,
    }  # fmt: skip
    updated = {name: getattr(recipe, name).model_copy(update=change) for name, change in changes.items()}
    return Recipe.model_validate(recipe.model_copy(update=updated).model_dump())


def with_val(recipe: Recipe) -> Recipe:
    """The same, evaluated on the pictures it is trained on."""
    val = {"val_images": recipe.data.train_images, "val_annotations": recipe.data.train_annotations}
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=val)})


def write(recipe: Recipe, path: Path) -> Path:
    path.write_text(recipe.to_toml(), encoding="utf-8")
    return path


def journal(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def assert_same_checkpoint(one: Path, other: Path) -> None:
    assert one.name == other.name
    for name in ("model.safetensors", "training.safetensors"):
        ours, theirs = load_file(one / name), load_file(other / name)
        assert ours.keys() == theirs.keys()
        assert [key for key in ours if not torch.equal(ours[key], theirs[key])] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_resumed_run_has_the_losses_of_an_unbroken_one(data: Path, tmp_path: Path, precision: str) -> None:
    recipe = write(tiny_recipe(data, precision=precision), tmp_path / "recipe.toml")
    unbroken = fit(recipe, tmp_path / "unbroken")
    fit(recipe, tmp_path / "broken", stop_after=3)
    resumed = fit(recipe, tmp_path / "broken", resume=True)
    assert [entry["step"] for entry in journal(tmp_path / "broken")] == [1, 2, 3, 4, 5, 6]
    assert journal(tmp_path / "broken") == journal(tmp_path / "unbroken")
    assert_same_checkpoint(resumed, unbroken)


def test_a_run_killed_at_any_moment_goes_on_as_if_nothing_had_happened(data: Path, tmp_path: Path) -> None:
    recipe = write(tiny_recipe(data, steps=10_000, checkpoint_every=1), tmp_path / "recipe.toml")
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "training", "fit", str(recipe), "--out", str(out)]
    root = str(Path(training.__file__).parent.parent)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not list(out.glob("checkpoints/step-000002")):
            assert process.poll() is None, "the run ended by itself"
            time.sleep(0.01)
        process.kill()
    done = max(int(p.name.removeprefix("step-")) for p in out.glob("checkpoints/step-*") if p.suffix != ".tmp")
    resumed = fit(recipe, out, resume=True, stop_after=done + 1)
    unbroken = fit(recipe, tmp_path / "unbroken", stop_after=done + 1)
    assert journal(out) == journal(tmp_path / "unbroken")
    assert_same_checkpoint(resumed, unbroken)


def test_a_run_that_was_killed_while_writing_goes_on_from_the_checkpoint_before(data: Path, tmp_path: Path) -> None:
    recipe, out = write(tiny_recipe(data), tmp_path / "recipe.toml"), tmp_path / "run"
    whole = fit(recipe, out, stop_after=2)
    broken = whole.with_name("step-000004.tmp")
    broken.mkdir()
    (broken / "model.safetensors").write_bytes(b"half")
    fit(recipe, out, resume=True, stop_after=4)
    assert [entry["step"] for entry in journal(out)] == [1, 2, 3, 4]
    assert not broken.exists()


def test_a_folder_with_a_run_is_not_overwritten(data: Path, tmp_path: Path) -> None:
    recipe = write(tiny_recipe(data, steps=1), tmp_path / "recipe.toml")
    fit(recipe, tmp_path / "run")
    with pytest.raises(FileExistsError, match="already holds a run up to step-000001; pass --resume"):
        fit(recipe, tmp_path / "run")


def test_a_run_can_be_made_longer(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    fit(write(tiny_recipe(data, steps=1), tmp_path / "short.toml"), out)
    assert fit(write(tiny_recipe(data, steps=2), tmp_path / "long.toml"), out, resume=True).name == "step-000002"


def test_a_run_that_is_done_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    recipe = write(tiny_recipe(data, steps=1), tmp_path / "recipe.toml")
    done = fit(recipe, tmp_path / "run")
    assert fit(recipe, tmp_path / "run", resume=True) == done
    assert len(journal(tmp_path / "run")) == 1


def test_a_run_cannot_be_resumed_with_other_classes(data: Path, tmp_path: Path) -> None:
    recipe, out = tiny_recipe(data, steps=2), tmp_path / "run"
    fit(write(recipe, tmp_path / "recipe.toml"), out, stop_after=1)
    more = recipe.model_copy(update={"data": recipe.data.model_copy(update={"classes": (*CLASSES, "crane")})})
    with pytest.raises(ValueError, match=r"classes: .* in the run, .*'crane'\) in the recipe"):
        fit(write(more, tmp_path / "more.toml"), out, resume=True)


def test_the_recipe_that_a_run_keeps_can_resume_it_from_elsewhere(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "run"
    fit(write(tiny_recipe(data, steps=2), tmp_path / "recipe.toml"), out, stop_after=1)
    assert fit(out / "recipe.toml", out, resume=True).name == "step-000002"


def test_a_run_evaluates_on_val_at_intervals_and_at_the_end(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = with_val(tiny_recipe(data, steps=3, evaluate_every=2))
    checkpoint = fit(write(recipe, tmp_path / "recipe.toml"), tmp_path / "run")
    entries = [entry for entry in journal(tmp_path / "run") if "val/ap50" in entry]
    assert [entry["step"] for entry in entries] == [2, 3]
    assert {"val/ap", "val/recall", "val/count_mae", "val/mean_queries"} <= entries[0].keys()
    assert "after 3 steps" in capsys.readouterr().out
    detector = load_detector(checkpoint)
    measured = look_at(matching_val_set(detector, recipe), detector, recipe).metrics()
    assert measured.ap50 == pytest.approx(entries[1]["val/ap50"], abs=1e-6)


def test_an_evaluation_does_not_change_the_run(data: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(data, steps=3)
    plain = fit(write(recipe, tmp_path / "plain.toml"), tmp_path / "plain")
    run = recipe.run.model_copy(update={"evaluate_every": 1})
    watched = with_val(recipe.model_copy(update={"run": run}))
    assert_same_checkpoint(fit(write(watched, tmp_path / "watched.toml"), tmp_path / "watched"), plain)


def test_val_pictures_without_boxes_are_refused_before_the_first_step(data: Path, tmp_path: Path) -> None:
    document = json.loads((data / "instances.json").read_text(encoding="utf-8"))
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps(document | {"annotations": []}), encoding="utf-8")
    recipe = with_val(tiny_recipe(data))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"val_annotations": empty})})
    with pytest.raises(ValueError, match=r"empty\.json has no box"):
        fit(write(recipe, tmp_path / "recipe.toml"), tmp_path / "run")


def test_a_detector_of_other_classes_is_not_evaluated(data: Path, make_detector: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="the detector's classes are plane, ship, tank; the recipe's are vehicle"):
        matching_val_set(make_detector(), with_val(tiny_recipe(data)))


def test_a_recipe_without_val_pictures_cannot_be_evaluated_on(data: Path, make_detector: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match="names no val pictures"):
        matching_val_set(make_detector(classes=CLASSES), tiny_recipe(data))


def test_a_run_starts_from_the_weights_that_fit(data: Path, tmp_path: Path) -> None:
    pretrained = fit(write(tiny_recipe(data, steps=1), tmp_path / "first.toml"), tmp_path / "first")
    trainer = Trainer(tiny_recipe(data, seed=5), Processes())
    trainer.start_from(pretrained)
    weights = load_file(pretrained / "model.safetensors")
    assert all(torch.equal(w, weights[name]) for name, w in trainer.detector.state_dict().items())
    assert all(torch.equal(w, weights[name]) for name, w in trainer.average.detector.state_dict().items())


def test_a_run_with_more_classes_starts_with_the_rest_of_the_weights(data: Path, tmp_path: Path) -> None:
    pretrained = fit(write(tiny_recipe(data, steps=1), tmp_path / "first.toml"), tmp_path / "first")
    recipe = tiny_recipe(data)
    trainer = Trainer(
        recipe.model_copy(update={"data": recipe.data.model_copy(update={"classes": ("one",)})}), Processes()
    )
    trainer.start_from(pretrained)
    weights = load_file(pretrained / "model.safetensors")
    name = "backbone.stem.0.weight"
    assert torch.equal(trainer.detector.state_dict()[name], weights[name])
    assert trainer.detector.state_dict()["decoder.classify.0.weight"].shape[0] == 1


def a_batch() -> tuple[torch.Tensor, Targets]:
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    return images, Targets(torch.full((2, 1, 4), 0.5), torch.tensor([[0], [-1]]))


def test_a_step_whose_loss_is_not_finite_changes_nothing(data: Path) -> None:
    trainer, batch = Trainer(tiny_recipe(data), Processes()), a_batch()
    trainer.step(0, *batch)
    states = (trainer.detector.state_dict(), trainer.average.detector.state_dict())
    before = [{name: w.clone() for name, w in state.items()} for state in states]

    def overflow(_module: nn.Module, _inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        return output * torch.nan

    hook = trainer.detector.get_submodule("backbone.stem.0").register_forward_hook(overflow)
    figures = trainer.step(1, *batch)
    hook.remove()
    assert not torch.isfinite(torch.tensor(figures["loss"]))
    for state, kept in zip(states, before, strict=True):
        assert [name for name, w in state.items() if not torch.equal(w, kept[name])] == []
    assert torch.isfinite(torch.tensor(trainer.step(2, *batch)["loss"]))
    assert trainer.skipped == 0


@pytest.fixture
def bad_steps(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """The steps whose count loss will be infinite."""
    steps, made = set[int](), iter(range(1000))
    criterion = SetCriterion.__call__

    def broken(*arguments: Any) -> Loss:
        loss = criterion(*arguments)
        if next(made) not in steps:
            return loss
        return Loss(loss.total * torch.inf, loss.terms | {"count": loss.terms["count"] * torch.inf})

    monkeypatch.setattr(SetCriterion, "__call__", broken)
    return steps


def test_a_run_whose_loss_stays_infinite_gives_up_and_names_the_pictures(
    data: Path, tmp_path: Path, bad_steps: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad_steps |= {2, 3, 4}
    monkeypatch.setattr("training.loop.MOST_SKIPPED", 3)
    message = r"3 steps in a row had no finite loss \(count\), the last of them step 4; .*run/bad-batch\.json"
    with pytest.raises(FloatingPointError, match=message):
        fit(write(tiny_recipe(data), tmp_path / "recipe.toml"), tmp_path / "run")
    noted = json.loads((tmp_path / "run" / "bad-batch.json").read_text(encoding="utf-8"))
    assert [batch["step"] for batch in noted] == [2, 3, 4]
    assert noted[0]["terms"]["loss/count"] is None
    assert noted[0]["terms"]["loss/dense"] > 0
    for sample in noted[0]["samples"]:
        assert {Path(picture["path"]).name for picture in sample} == {f"{picture['id']:06d}.jpg" for picture in sample}
        assert all(Path(picture["path"]).is_file() for picture in sample)


def test_a_single_bad_step_is_skipped_and_noted(
    data: Path, tmp_path: Path, bad_steps: set[int], capsys: pytest.CaptureFixture[str]
) -> None:
    bad_steps.add(1)
    fit(write(tiny_recipe(data, steps=3), tmp_path / "recipe.toml"), tmp_path / "run")
    assert [entry["loss"] is None for entry in journal(tmp_path / "run")] == [False, True, False]
    assert len(json.loads((tmp_path / "run" / "bad-batch.json").read_text(encoding="utf-8"))) == 1
    assert "step 1: count not finite; the step is skipped" in capsys.readouterr().out


def test_a_run_says_where_it_is_and_leaves_a_picture_of_its_curves(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    fit(write(tiny_recipe(data, steps=2), tmp_path / "recipe.toml"), out)
    assert f"{out} begins" in capsys.readouterr().out
    with Image.open(out / "curves.png") as picture:
        assert picture.width > 1000


def test_a_run_of_an_older_version_can_be_resumed(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its recipe may lack keys that have come since."""
    recipe, out = write(tiny_recipe(data, steps=2), tmp_path / "recipe.toml"), tmp_path / "run"
    fit(recipe, out, stop_after=1)
    kept = out / "recipe.toml"
    kept.write_text(kept.read_text(encoding="utf-8").replace("compile = false\n", ""), encoding="utf-8")
    assert fit(recipe, out, resume=True).name == "step-000002"
    assert "resumed with a change, run.compile: nothing in the run, False in the recipe" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")  # torch's own import
def test_compiling_leaves_the_names_of_the_weights(data: Path) -> None:
    plain, compiled = (Trainer(tiny_recipe(data, compile=yes), Processes()) for yes in (False, True))
    assert compiled.detector.state_dict().keys() == plain.detector.state_dict().keys()
    assert compiled.average.detector.state_dict().keys() == plain.detector.state_dict().keys()


def test_a_model_that_computes_activations_again_learns_the_same(data: Path) -> None:
    figures = []
    for checkpointing in (False, True):
        recipe = tiny_recipe(data)
        decoder = recipe.model.decoder.model_copy(update={"checkpointing": checkpointing})
        model = recipe.model.model_copy(update={"decoder": decoder})
        trainer = Trainer(recipe.model_copy(update={"model": model}), Processes())
        torch.manual_seed(0)
        batch = a_batch()
        figures.append([trainer.step(number, *batch) for number in range(2)])
    assert figures[0] == figures[1]


def test_the_rate_of_a_step_is_the_schedules(data: Path) -> None:
    trainer = Trainer(tiny_recipe(data, steps=100), Processes())
    assert trainer.step(0, *a_batch())["learning_rate"] == pytest.approx(0.5e-3)
    assert trainer.optimizer.param_groups[1]["lr"] == pytest.approx(0.5e-3)


@pytest.mark.parametrize("steps", [0, -1])
def test_stopping_before_the_first_step_is_refused(data: Path, tmp_path: Path, steps: int) -> None:
    with pytest.raises(ValueError, match="the first place to stop is 1"):
        fit(write(tiny_recipe(data), tmp_path / "recipe.toml"), tmp_path / "run", stop_after=steps)


def test_the_detector_of_a_recipe_has_the_classes_of_its_data(data: Path) -> None:
    config = Trainer(tiny_recipe(data), Processes()).detector.config
    assert isinstance(config, DetectorConfig)
    assert config.classes == CLASSES


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nowhere.toml"], "FileNotFoundError"),
        (["evaluate", "nowhere", "nowhere.toml"], "nowhere is no checkpoint"),
    ],
)
def test_a_mistake_on_the_command_line_ends_in_one_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from training.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["training", *arguments])
    with pytest.raises(SystemExit, match=message) as caught:
        main()
    assert "\n" not in str(caught.value)


def test_the_command_line_loads_torch_only_for_commands_that_use_it() -> None:
    code = "import sys, training.__main__; training.__main__.parser(); sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("change", [{"seed": 7}, {"batch_size": 3}])
def test_a_run_is_not_resumed_with_other_batches(data: Path, tmp_path: Path, change: dict[str, int]) -> None:
    out = tmp_path / "run"
    fit(write(tiny_recipe(data), tmp_path / "recipe.toml"), out, stop_after=1)
    with pytest.raises(ValueError, match=f"run.{next(iter(change))}: .* in the run"):
        fit(write(tiny_recipe(data, **change), tmp_path / "other.toml"), out, resume=True)


def test_a_start_from_weights_that_do_not_fit_at_all_is_refused(data: Path, tmp_path: Path) -> None:
    checkpoint = fit(write(tiny_recipe(data), tmp_path / "recipe.toml"), tmp_path / "run", stop_after=1)
    save_file({"another.weight": torch.zeros(1)}, checkpoint / "model.safetensors")
    recipe = write(tiny_recipe(data, init=checkpoint), tmp_path / "other.toml")
    with pytest.raises(ValueError, match=r"no weight of .* fits this model"):
        fit(recipe, tmp_path / "other")


@pytest.mark.parametrize(
    ("capabilities", "told"), [({"avx512_bf16": False, "amx_bf16": False}, 1), ({"avx512_bf16": True}, 0), ({}, 0)]
)
def test_a_run_in_bf16_is_told_of_a_cpu_that_has_none(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    capabilities: dict[str, bool],
    told: int,
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    fit(write(tiny_recipe(data, precision="bf16", steps=1), tmp_path / "recipe.toml"), tmp_path / "run")
    assert capsys.readouterr().out.count("this CPU has no instructions for bf16") == told
