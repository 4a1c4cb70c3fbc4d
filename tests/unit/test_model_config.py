"""Configurations refuse what does not fit, and say why."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from model.config import DetectorConfig, QueryConfig

CLASSES = ("ship",)
PLAIN_ENCODER = {"encoder": {"kind": "hybrid", "mohfe": "off"}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widht": 64}, "DetectorConfig has no key 'widht'; the nearest valid key is 'width'"),
        ({"heat": {"tao": 0.3}}, "HeatConfig has no key 'tao'; the nearest valid key is 'tau'"),
        ({"strides": (8, 32)}, r"strides \(8, 32\) must be consecutive among the backbone's \(4, 8, 16, 32, 64\)"),
        ({"strides": (16, 8)}, "must be consecutive"),
        ({"strides": ()}, "must be consecutive"),
        ({"strides": (3, 6)}, "must be consecutive"),
        ({"backbone": {"kind": "plain", "channels": (8, 8), "blocks": (1, 1)}}, r"among the backbone's \(4, 8\)"),
        ({"backbone": {"kind": "plain", "channels": (8, 8), "blocks": (1,)}}, "need 1 to 4 entries each"),
        ({"width": 100}, "width 100 is not divisible by encoder.heads 8"),
        (
            {"encoder": {"kind": "hybrid", "heads": 5}, "decoder": {"heads": 5}, "width": 10},
            "width 10 is not divisible by 4",
        ),
        ({"encoder": {"kind": "hybrid", "lsconv": {"levels": 4}}}, "lsconv.levels 4 exceeds the 3 levels"),
        ({"encoder": {"kind": "hybrid", "lsconv": {"path": "off"}}}, "LSConvConfig has no key 'path'.* is 'paths'"),
        ({"encoder": {"kind": "hybrid", "mohfe": True}}, "'off', 'gated' or 'attention'"),
        ({"encoder": {"kind": "hybird"}}, "expected tags: 'hybrid', 'deformable'"),
        ({"encoder": {"heads": 4}}, "discriminator 'kind'"),
        ({"backbone": {"kind": "timm", "nme": "resnet50"}}, "TimmBackboneConfig has no key 'nme'.* is 'name'"),
        ({"strides": (64,)}, "stride 64 is made of stride 32 and cannot stand alone"),
        ({"encoder": {"kind": "deformable"}}, "the deformable encoder has no heat"),
        ({"heat": False}, "without heat there can be no encoder.mohfe 'gated', query.content 'memory"),
        ({"heat": None} | PLAIN_ENCODER | {"query": {"content": "heat"}}, "there can be no query.content 'heat'"),
        (
            {"heat": None} | PLAIN_ENCODER | {"query": {"content": "memory", "suppress_cold": True}},
            "there can be no query.suppress_cold",
        ),
        ({"query": {"k_min": 9, "k_max": 8}}, "k_min 9 is above k_max 8"),
        ({"classes": ("ship", "ship")}, "class names repeat"),
        ({"classes": ()}, "at least 1 item"),
        ({"heat": {"source": "magic"}}, "'probability' or 'cam'"),
    ],
)
def test_a_configuration_that_does_not_fit_says_why(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DetectorConfig.model_validate({"classes": CLASSES} | changes)


def test_a_configuration_cannot_be_changed() -> None:
    config = QueryConfig()
    with pytest.raises(ValidationError, match="frozen"):
        config.t = 2.0  # pyright: ignore[reportAttributeAccessIssue]


def test_a_configuration_survives_json() -> None:
    config = DetectorConfig(classes=CLASSES, strides=(4, 8, 16), width=64)
    assert DetectorConfig.model_validate_json(config.model_dump_json()) == config


def test_false_leaves_a_part_out_where_a_file_has_no_word_for_nothing() -> None:
    left_out = {"heat": False, "density": False} | PLAIN_ENCODER | {"query": {"content": "memory"}}
    config = DetectorConfig.model_validate({"classes": CLASSES} | left_out)
    assert (config.heat, config.density) == (None, None)
    assert DetectorConfig.model_validate_json(config.model_dump_json()) == config


def test_a_file_that_is_not_toml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("width = = 3", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.toml is not TOML"):
        DetectorConfig.from_toml(path)
