"""Several processes train as one would."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import training
from model.config import DeformableEncoderConfig, TimmBackboneConfig
from model.detector import Detector
from training.config import Recipe
from training.data.synthetic import CLASSES, synthesize
from training.loop import fit
from training.parallel import Processes, synchronise_norms
from training.tracking import STATE

NANO = Path(training.__file__).parent / "recipes" / "nano-nwpu.toml"
SIDE = 64
HOST = {
    "width": 32, "heat": None, "backbone": TimmBackboneConfig(name="test_resnet", freeze_norm=True),
    "encoder": DeformableEncoderConfig(layers=1, heads=2, points=2, feedforward=16),
}  # fmt: skip


def recipe_of_a_host(data: Path) -> Recipe:
    """A small host of D3Q on the scenes; its norms are frozen, as on CPUs PyTorch has none over processes."""
    recipe, images, annotations = Recipe.from_toml(NANO), data / "images", data / "instances.json"
    query = recipe.model.query.model_copy(update={"k_min": 5, "k_max": 30, "content": "memory"})
    decoder = recipe.model.decoder.model_copy(update={"layers": 2, "heads": 2, "feedforward": 16})
    changes: dict[str, dict[str, Any]] = {
        "model": HOST | {"query": query, "decoder": decoder},
        "data": {
            "train_images": images, "train_annotations": annotations, "val_images": None, "val_annotations": None,
            "classes": CLASSES, "train_size": SIDE, "val_size": SIDE,
        },
        "augment": {"crop": SIDE},
        "loss": {"dense": 0.0},
        "denoising": {"queries": 8},
        "optimizer": {"warmup_steps": 2, "ema_decay": 0.9},
        "run": {
            "steps": 4, "batch_size": 4, "threads": 1, "workers": 0, "checkpoint_every": 1, "log_every": 1,
            "precision": "fp32",
        },
    }  # fmt: skip
    updated = {name: getattr(recipe, name).model_copy(update=change) for name, change in changes.items()}
    return Recipe.model_validate(recipe.model_copy(update=updated).model_dump())


def journal(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_two_processes_have_the_losses_of_one_which_can_go_on_with_their_run(tmp_path: Path) -> None:
    synthesize(tmp_path / "scenes", count=5, size=SIDE, seed=0, progress=False)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(recipe_of_a_host(tmp_path / "scenes").to_toml(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training"]
    command += ["fit", str(recipe), "--out", str(tmp_path / "two"), "--stop-after", "3"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(training.__file__).parent.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    continued = fit(recipe, tmp_path / "two", resume=True)
    alone = fit(recipe, tmp_path / "one")
    ours, theirs = journal(tmp_path / "two"), journal(tmp_path / "one")
    assert [entry["step"] for entry in ours] == [1, 2, 3, 4]
    for one, other in zip(ours, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-5)
    assert distance_of_mean_gradients(alone, continued) < 1e-4


def distance_of_mean_gradients(one: Path, other: Path) -> float:
    """Relative; Adam's first moments tell more than weights, which move by the sign of a gradient that is all but 0."""
    states = load_file(one / STATE), load_file(other / STATE)
    names = [name for name in states[0] if name.endswith(".exp_avg")]
    mine, yours = (torch.cat([state[name].flatten() for name in names]) for state in states)
    return float((mine - yours).norm() / mine.norm())


def test_the_parts_of_the_processes_are_the_batch() -> None:
    processes, rows = Processes(), []
    processes.count = 3
    for processes.rank in range(3):
        rows += processes.part(6)
    assert rows == list(range(6))


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    processes = Processes()
    processes.count = 3
    with pytest.raises(ValueError, match=r"run.batch_size 8 cannot be shared by 3 processes; take a multiple of 3"):
        processes.part(8)


def test_one_process_is_its_own_mean() -> None:
    processes = Processes()
    assert processes.is_main
    assert processes.mean(torch.tensor([1.0, 2.0])).tolist() == [1, 2]
    assert processes.mean_figures({"loss": 3.0}) == {"loss": 3.0}


def test_norms_that_learn_are_synchronised_and_keep_their_tensors(tiny_detector: Detector) -> None:
    norms = [m for m in tiny_detector.modules() if isinstance(m, nn.BatchNorm2d)]
    tiny_detector.train()
    norms[0].eval()  # frozen
    before = {name: tensor.data_ptr() for name, tensor in tiny_detector.state_dict().items()}
    synchronise_norms(tiny_detector)
    assert {name: tensor.data_ptr() for name, tensor in tiny_detector.state_dict().items()} == before
    assert [m for m in tiny_detector.modules() if isinstance(m, nn.BatchNorm2d)] == norms[:1]
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in tiny_detector.modules()) == len(norms) - 1
