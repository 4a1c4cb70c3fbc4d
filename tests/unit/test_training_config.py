"""Recipes: complete, checked, and the same wherever they lie."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import training
from training.config import Recipe

NANO = Path(training.__file__).parent / "recipes" / "nano-nwpu.toml"


def nano() -> dict[str, Any]:
    return tomllib.loads(NANO.read_text(encoding="utf-8"))


def test_the_recipe_of_the_default_model_loads() -> None:
    recipe = Recipe.from_toml(NANO)
    config = recipe.model.detector(recipe.data.classes)
    assert config.classes[0] == "airplane"
    assert len(config.classes) == 10
    assert recipe.data.train_annotations.is_absolute()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("optimizer", "learning_rte", 1e-3, "no key 'learning_rte'; the nearest valid key is 'learning_rate'"),
        ("model", "widht", 96, "no key 'widht'; the nearest valid key is 'width'"),
        ("run", "precision", "fp8", "'bf16' or 'fp32'"),
        ("run", "steps", 0, "greater than 0"),
        ("augment", "crop", 100, "augment.crop 100 is not a multiple of the coarsest stride 32"),
        ("data", "val_size", 500, "data.val_size 500 is not a multiple of the coarsest stride 32"),
        ("augment", "scale", [1.4, 0.6], "is no range of positive numbers"),
        ("augment", "scale", [0.0, 0.6], "is no range of positive numbers"),
        ("model", "width", 97, "width 97 is not divisible by encoder.heads 8"),
        ("model", "strides", [], "must be consecutive"),
        ("data", "classes", ["ship", "ship"], "class names repeat"),
    ],
)
def test_a_recipe_that_does_not_fit_says_why(section: str, key: str, value: Any, message: str) -> None:
    data = nano()
    data[section][key] = value
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(data)


@pytest.mark.parametrize("section", ["model", "data", "augment", "loss", "denoising", "optimizer", "run"])
def test_a_recipe_without_a_section_names_it(section: str) -> None:
    data = nano()
    del data[section]
    with pytest.raises(ValidationError, match=rf"{section}\n +Field required"):
        Recipe.model_validate(data)


def test_an_unknown_section_names_the_nearest() -> None:
    with pytest.raises(ValidationError, match="no key 'optimiser'; the nearest valid key is 'optimizer'"):
        Recipe.model_validate(nano() | {"optimiser": {}})


def test_val_pictures_and_annotations_come_together_or_not_at_all() -> None:
    data = nano()
    del data["data"]["val_images"]
    with pytest.raises(ValidationError, match="one of them is missing"):
        Recipe.model_validate(data)
    del data["data"]["val_annotations"]
    assert Recipe.model_validate(data).data.val_images is None


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    data = nano()
    data["data"]["train_images"], data["run"]["init"] = "pictures", "other/checkpoint"
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe.model_validate(data).to_toml(), encoding="utf-8")
    recipe = Recipe.from_toml(path)
    assert recipe.data.train_images == tmp_path / "pictures"
    assert recipe.run.init == tmp_path / "other" / "checkpoint"


def test_a_written_recipe_says_the_same_from_anywhere(tmp_path: Path) -> None:
    recipe = Recipe.from_toml(NANO)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.from_toml(copy) == recipe


@pytest.mark.parametrize(("table", "key"), [("heat", "tau"), ("query", "k_min"), ("backbone", "blocks")])
def test_a_recipe_whose_model_leaves_a_key_to_a_default_is_refused(table: str, key: str) -> None:
    recipe = nano()
    del recipe["model"][table][key]
    with pytest.raises(ValidationError, match=rf"\[model.{table}\] lacks {key}"):
        Recipe.model_validate(recipe)
