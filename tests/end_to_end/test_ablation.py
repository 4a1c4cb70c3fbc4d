"""A whole ablation: synthetic scenes, two variants at the same time, two steps each."""

import json
from pathlib import Path
from typing import Any

import training
from training.ablation.command import ablate
from training.config import Recipe
from training.data.synthetic import CLASSES, synthesize

TRAINING = Path(training.__file__).parent
SIDE = 64

VARIANTS = """
seeds = [0]
[variants.three-layers]
[variants.one-layer]
model.decoder.layers = 1
"""


def tiny_recipe(data: Path) -> dict[str, dict[str, Any]]:
    """The default recipe with a smaller model, on synthetic scenes, for two steps."""
    recipe = Recipe.from_toml(TRAINING / "recipes" / "nano-nwpu.toml").model_dump()
    images, annotations = data / "images", data / "instances.json"
    recipe["model"] |= {"width": 16}
    recipe["model"]["backbone"] |= {"stem": 4, "channels": (8, 8, 16, 16), "blocks": (1, 1, 1, 1)}
    recipe["model"]["encoder"] |= {"heads": 2, "feedforward": 16}
    recipe["model"]["query"] |= {"k_min": 5, "k_max": 30}
    recipe["data"] |= {"train_images": images, "train_annotations": annotations}
    recipe["data"] |= {"val_images": images, "val_annotations": annotations}
    recipe["data"] |= {"classes": CLASSES, "train_size": SIDE, "val_size": SIDE}
    recipe["augment"] |= {"crop": SIDE}
    recipe["denoising"] |= {"queries": 8}
    recipe["run"] |= {"steps": 2, "batch_size": 2, "threads": 1, "workers": 0, "checkpoint_every": 1, "log_every": 1}
    recipe["run"] |= {"precision": "fp32"}
    return recipe


def test_an_ablation_trains_measures_and_compares(tmp_path: Path) -> None:
    synthesize(tmp_path / "scenes", count=3, size=SIDE, seed=0, progress=False)
    (tmp_path / "base.toml").write_text(Recipe.model_validate(tiny_recipe(tmp_path / "scenes")).to_toml())
    (tmp_path / "grid.toml").write_text(f'base = "base.toml"\n{VARIANTS}')
    out = tmp_path / "out"
    ablate(tmp_path / "grid.toml", out, jobs=2)
    found = [json.loads(path.read_text(encoding="utf-8")) for path in (out / "results").iterdir()]
    assert {each["variant"]: len(each["figures"]["layers"]) for each in found} == {"three-layers": 4, "one-layer": 2}
    assert all(each["steps"] == 2 and each["figures"]["cpu_seconds"] > 0 for each in found)
    assert all(each["figures"]["ap_curve"] and each["figures"]["loss_curve"] for each in found)
    assert "| three-layers | 1 |" in (out / "table.md").read_text(encoding="utf-8")
    assert {path.name for path in (out / "plots").iterdir()} == {"ap.svg", "curves.svg"}
    assert not list((out / "runs").glob("*/checkpoints"))
