"""Recipes: complete, checked, and the same wherever they lie."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

import training
from model.config import DetectorConfig
from model.presets import preset
from training.config import Recipe
from training.model_config import ModelConfig

RECIPES = Path(training.__file__).parent / "recipes"
NANO = RECIPES / "nano-nwpu.toml"


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
        ("augment", "crop_aspect", 0.5, "greater than or equal to 1"),
        ("data", "val_size", 500, "data.val_size 500 is not a multiple of the coarsest stride 32"),
        ("augment", "scale", [1.4, 0.6], "is no range of positive numbers"),
        ("augment", "scale", [0.0, 0.6], "is no range of positive numbers"),
        ("model", "width", 97, "width 97 is not divisible by encoder.heads 8"),
        ("model", "strides", [], "must be consecutive"),
        ("data", "classes", ["ship", "ship"], "class names repeat"),
        (
            "loss",
            "classification_kind",
            "cross_entropy",
            "'cross_entropy' needs model.decoder.classification 'softmax'",
        ),
        ("loss", "classification_kind", "hinge", "'mal', 'vfl', 'focal' or 'cross_entropy'"),
        ("loss", "density_target", "square", "'box' or 'paper'"),
        ("matcher", "giou", -1, "greater than or equal to 0"),
        ("denoising", "max_groups", 0, "greater than or equal to 1"),
        ("denoising", "box_noise_on", "sides", "'centre' or 'corners'"),
        ("model", "density", False, "loss.density is above 0, but there is no model.density: set it to 0"),
    ],
)
def test_a_recipe_that_does_not_fit_says_why(section: str, key: str, value: Any, message: str) -> None:
    data = nano()
    data[section][key] = value
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(data)


@pytest.mark.parametrize(("name", "crop"), [("nano_tiny", 48), ("small", 64)])
def test_oblong_crops_need_sides_and_strides_that_fit_their_steps(name: str, crop: int) -> None:
    data = nano()
    data["model"] = preset(name, ("any",)).model_dump(exclude={"classes"})
    data["model"]["strides"] = {"nano_tiny": (4, 8, 16), "small": (8, 16, 32, 64)}[name]
    data["data"]["val_size"] = 576
    data["augment"]["crop"] = crop
    assert Recipe.model_validate(data).augment.crop_told == f"{crop} px"
    data["augment"]["crop_aspect"] = 1.5
    with pytest.raises(ValidationError, match=f"augment.crop is {crop} and the coarsest stride"):
        Recipe.model_validate(data)


@pytest.mark.parametrize("section", ["model", "data", "augment", "loss", "matcher", "denoising", "optimizer", "run"])
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


def test_a_softmax_decoder_needs_the_cross_entropy() -> None:
    data = nano()
    data["model"]["decoder"]["classification"] = "softmax"
    with pytest.raises(ValidationError, match=r"'mal' needs model\.decoder\.classification 'sigmoid'"):
        Recipe.model_validate(data)
    data["loss"]["classification_kind"] = "cross_entropy"
    assert Recipe.model_validate(data).model.decoder.classification == "softmax"


def without_heat(dense: float) -> dict[str, Any]:
    data = nano()
    data["model"]["heat"] = False
    data["model"]["encoder"]["mohfe"], data["model"]["query"]["content"] = "off", "memory"
    data["loss"]["dense"] = dense
    return data


def test_a_model_without_heat_has_no_dense_head_to_teach() -> None:
    with pytest.raises(ValidationError, match=r"loss\.dense is above 0, but there is no model\.heat: set it to 0"):
        Recipe.model_validate(without_heat(dense=0.5))
    assert Recipe.model_validate(without_heat(dense=0)).model.heat is None


@pytest.mark.parametrize("count", [0.0, 0.5])
def test_a_model_without_density_has_nothing_to_count_with(count: float) -> None:
    data = nano()
    data["model"]["density"], data["loss"]["density"], data["loss"]["count"] = False, 0, count
    if count:
        with pytest.raises(ValidationError, match=r"loss\.count is above 0, but there is no model\.density"):
            Recipe.model_validate(data)
    else:
        assert Recipe.model_validate(data).model.density is None


def test_the_model_of_a_recipe_is_the_detector_without_its_classes() -> None:
    assert set(ModelConfig.model_fields) == set(DetectorConfig.model_fields) - {"classes"}


def test_a_preset_stands_for_all_tables_of_the_model(tmp_path: Path) -> None:
    recipe = Recipe.model_validate(nano() | {"model": {"preset": "nano"}})
    assert recipe.model.detector(recipe.data.classes) == preset("nano", recipe.data.classes)
    copy = tmp_path / "copy.toml"
    copy.write_text(recipe.to_toml(), encoding="utf-8")
    assert "preset" not in copy.read_text(encoding="utf-8")
    assert Recipe.from_toml(copy).model == recipe.model


def test_a_preset_beside_other_keys_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"a preset stands alone in .*leave out either preset or width, strides"):
        Recipe.model_validate(nano() | {"model": {"preset": "nano", "width": 96, "strides": [8, 16, 32]}})


@pytest.mark.parametrize("name", ["nanoo", 3])
def test_an_unknown_preset_is_refused(name: object) -> None:
    with pytest.raises(ValidationError, match="nano"):
        Recipe.model_validate(nano() | {"model": {"preset": name}})


def test_backbone_weights_are_found_beside_the_recipe(tmp_path: Path) -> None:
    data = nano()
    data["model"]["backbone"] = {
        "kind": "timm",
        "name": "resnet50",
        "pretrained": "r50.safetensors",
        "freeze_norm": True,
    }
    path = tmp_path / "recipe.toml"
    path.write_text(Recipe.model_validate(data).to_toml(), encoding="utf-8")
    backbone = Recipe.from_toml(path).model.backbone
    assert backbone.kind == "timm"
    assert backbone.pretrained == tmp_path / "r50.safetensors"


def recipes() -> list[Path]:
    return [path for path in sorted(RECIPES.glob("*.toml")) if not path.name.endswith(".card.toml")]


@pytest.mark.parametrize("path", recipes(), ids=lambda path: path.name)
def test_every_recipe_that_comes_with_the_project_loads(path: Path) -> None:
    recipe = Recipe.from_toml(path)
    assert Recipe.model_validate(recipe.model_dump()) == recipe
