"""Presets: what they are made of, how large they are, and what the table in the documentation says of them."""

import dataclasses
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from torch import Tensor

from benchmarks.complexity import BEGIN, CLASSES, END, PAGE, PARTS, Case, cases, measure, replaced, table
from model.config import DetectorConfig, TimmBackboneConfig
from model.detector import Detector
from model.presets import IMAGENET_MEAN, PRESETS, preset, without_density

NANO_RECIPE = Path(__file__).resolve().parents[2] / "training" / "recipes" / "nano-nwpu.toml"
HOSTS = ("dino_d3q_r50", "deformable_detr_d3q_r50")


def parameters(config: DetectorConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Detector(config).parameters())


def test_nano_is_the_model_of_the_default_recipe() -> None:
    recipe = tomllib.loads(NANO_RECIPE.read_text(encoding="utf-8"))
    classes = tuple(recipe["data"]["classes"])
    assert preset("nano", classes) == DetectorConfig.model_validate(recipe["model"] | {"classes": classes})


@pytest.mark.parametrize("name", ["nanoo", "", 3, ["nano"]])
def test_a_name_that_is_no_preset_is_answered_with_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"no preset {re.escape(repr(name))}; there are nano, nano_tiny, small, base"):
        preset(name, CLASSES)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json_with_its_classes(name: str) -> None:
    config = preset(name, CLASSES)
    assert config.classes == CLASSES
    assert DetectorConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("nano", 1.0, 2.2),
        ("nano_tiny", 1.0, 2.0),
        ("small", 5.0, 8.0),
        ("base", 18.5, 20.5),
        ("dino_d3q_r50", 40, 50),
        ("deformable_detr_d3q_r50", 40, 50),
    ],
)
def test_a_preset_has_as_many_million_parameters_as_its_size_promises(name: str, least: float, most: float) -> None:
    assert least <= parameters(preset(name, CLASSES)) / 1e6 <= most


def test_base_costs_what_the_paper_states() -> None:
    found = measure(preset("base", CLASSES), 640, 300)
    assert found.total_gflops == pytest.approx(57, rel=0.1)
    assert found.parameters * 4 / 1e6 == pytest.approx(77.3, rel=0.1)


@pytest.mark.parametrize("name", HOSTS)
def test_the_hosts_are_those_of_the_d3q_paper(name: str) -> None:
    config = preset(name, CLASSES)
    assert config.strides == (4, 8, 16, 32, 64)
    assert (config.width, config.heat, config.decoder.layers, config.decoder.feedforward) == (256, None, 6, 2048)
    assert (config.query.content, config.query.k_min, config.query.k_max, config.query.t) == ("learned", 300, 2000, 3)
    assert (config.decoder.classification == "softmax") == (name == "dino_d3q_r50")
    assert config.decoder.look_forward_twice == (name == "dino_d3q_r50")


@pytest.mark.parametrize("name", PRESETS)
def test_without_density_every_picture_gets_the_same_number_of_queries(name: str) -> None:
    config = without_density(preset(name, CLASSES), 900)
    assert (config.density, config.query.k_min, config.query.k_max) == (None, 900, 900)
    assert DetectorConfig.model_validate(config.model_dump()) == config


@pytest.mark.parametrize("name", PRESETS)
def test_pictures_are_normalised_as_those_that_the_weights_have_seen(name: str) -> None:
    config = preset(name, CLASSES)
    if not isinstance(config.backbone, TimmBackboneConfig):
        assert config.pixel_mean != IMAGENET_MEAN
        return
    trained_on = timm.get_pretrained_cfg(config.backbone.name)
    assert trained_on is not None
    assert [x / 255 for x in config.pixel_mean] == pytest.approx(trained_on.mean)
    assert [x / 255 for x in config.pixel_std] == pytest.approx(trained_on.std)


@torch.no_grad()
def test_the_smallest_preset_runs(pictures: Callable[..., Tensor]) -> None:
    output = Detector(preset("nano_tiny", CLASSES)).eval()(pictures(1, 32, 64))
    assert output.encoded.shapes == [(8, 16), (4, 8), (2, 4)]
    assert output.layers[-1].logits.shape == (1, 100, len(CLASSES))


def test_gflops_are_two_per_multiply_accumulate() -> None:
    config = preset("nano", CLASSES)
    few, many = (measure(config, 64, queries) for queries in (20, 40))
    classify = 2 * config.width * len(CLASSES) * 20 * config.decoder.layers  # of twenty more queries
    assert many.gflops["decoder"] - few.gflops["decoder"] > classify / 1e9
    assert many.gflops["backbone"] == few.gflops["backbone"] > 0
    stem = 2 * 3 * 16 * 9 * 32 * 32
    wider = config.model_copy(update={"backbone": config.backbone.model_copy(update={"stem": 32})})
    second = 2 * 16 * 24 * 9 * 16 * 16  # what twice as many channels add to the first stage
    added = measure(wider, 64, 20).gflops["backbone"] - few.gflops["backbone"]
    assert added == pytest.approx((stem + second) / 1e9)


def test_the_table_in_the_documentation_is_of_these_presets() -> None:
    shown = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip().splitlines()[2:]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown]
    expected = list(cases())
    assert [row[:3] for row in rows] == [[case.name, str(case.side), str(case.queries)] for case in expected]
    millions = {case.name: f"{parameters(case.config) / 1e6:.2f}" for case in expected}
    assert {row[0]: row[3] for row in rows} == millions


def test_a_table_has_one_line_per_case_with_parts_that_add_up() -> None:
    found = measure(preset("nano", CLASSES), 64, 20)
    lines = table([(Case("nano", preset("nano", CLASSES), 64, 20), found)])
    assert len(lines) == 3
    assert [line.count("|") for line in lines] == [7 + len(PARTS)] * 3
    assert found.total_gflops == sum(found.gflops.values())
    assert dataclasses.asdict(found)["parameters"] == parameters(preset("nano", CLASSES))


def test_a_table_replaces_what_stands_between_its_markers() -> None:
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replaced(page, ["new", "lines"]) == f"before\n{BEGIN}\nnew\nlines\n{END}\nafter\n"


@pytest.mark.parametrize("page", ["nothing", BEGIN, f"{END}{BEGIN}"])
def test_a_page_without_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="the page needs the lines"):
        replaced(page, [])
