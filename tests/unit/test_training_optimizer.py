"""The learning rate's course, what is decayed, and the averaged weights."""

import pytest
import torch
from torch import nn

from model.detector import Detector
from training.config import OptimizerConfig
from training.ema import AveragedDetector
from training.optimizer import learning_rate, make_optimizer, set_learning_rate

COMMON = {"learning_rate": 0.1, "weight_decay": 0.01, "clip_norm": 1, "warmup_steps": 10, "ema_decay": 0.9}
CONFIG = OptimizerConfig.model_validate(
    COMMON | {"backbone_factor": 1.0, "schedule": "cosine", "flat": 0.5, "final": 0.02}
)
STEP = COMMON | {"backbone_factor": 1.0, "schedule": "step"}


@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.01), (4, 0.05), (9, 0.1), (10, 0.1), (100, 0.1), (150, 0.1 * (0.02 + 0.98 / 2)), (200, 0.002), (300, 0.002)],
)
def test_the_learning_rate_warms_up_stays_and_falls_as_half_a_cosine(step: int, expected: float) -> None:
    assert learning_rate(step, 200, CONFIG) == pytest.approx(expected)


def test_a_run_that_is_flat_to_the_end_never_decays() -> None:
    config = CONFIG.model_copy(update={"flat": 1.0, "warmup_steps": 0})
    assert {learning_rate(step, 50, config) for step in range(50)} == {0.1}


@pytest.mark.parametrize(("step", "expected"), [(10, 0.1), (99, 0.1), (100, 0.01), (149, 0.01), (150, 0.001)])
def test_the_learning_rate_falls_to_a_tenth_at_each_milestone(step: int, expected: float) -> None:
    config = OptimizerConfig.model_validate(STEP | {"milestones": [0.5, 0.75]})
    assert learning_rate(step, 200, config) == pytest.approx(expected)


def test_d3qs_schedule_falls_after_20_of_24_epochs() -> None:
    config = OptimizerConfig.model_validate(STEP | {"warmup_steps": 0, "milestones": [20 / 24]})
    rates = [learning_rate(epoch * 1000, 24_000, config) for epoch in range(24)]
    assert rates == pytest.approx([0.1] * 20 + [0.01] * 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "schedule 'step' needs milestones"),
        ({"milestones": []}, "needs milestones, such as"),
        ({"milestones": [0.8, 0.5]}, "must rise, between 0 and 1"),
        ({"milestones": [20]}, "must rise, between 0 and 1"),
        ({"milestones": [0.5], "flat": 0.5}, "schedule 'step' does not read flat"),
        ({"schedule": "cosine", "flat": 0.5}, "schedule 'cosine' needs final"),
        ({"schedule": "cosine", "flat": 0.5, "final": 0.1, "milestones": [0.5]}, "does not read milestones"),
    ],
)
def test_a_schedule_states_its_own_keys_and_no_others(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimizerConfig.model_validate(STEP | changes)


def test_the_backbone_learns_at_its_own_rate(tiny_detector: Detector) -> None:
    optimizer = make_optimizer(tiny_detector, CONFIG.model_copy(update={"backbone_factor": 0.1}))
    set_learning_rate(optimizer, 0.5)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in tiny_detector.named_parameters():
        assert rate[id(parameter)] == pytest.approx(0.05 if name.startswith("backbone.") else 0.5), name


def test_frozen_parameters_are_left_alone(tiny_detector: Detector) -> None:
    frozen = tiny_detector.get_parameter("backbone.stem.0.weight")
    frozen.requires_grad_(False)
    optimizer = make_optimizer(tiny_detector, CONFIG)
    assert all(frozen is not p for group in optimizer.param_groups for p in group["params"])


def test_biases_norms_and_gates_are_not_decayed(tiny_detector: Detector) -> None:
    optimizer = make_optimizer(tiny_detector, CONFIG)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    by_name = {name: decay[id(p)] for name, p in tiny_detector.named_parameters()}
    assert len(decay) == len(by_name)
    for name, value in by_name.items():
        if name.endswith((".bias", "mix", "balance")) or "gates" in name:
            assert value == 0.0, name
    norms = [n for n, m in tiny_detector.named_modules() if isinstance(m, nn.BatchNorm2d | nn.LayerNorm)]
    assert {by_name[f"{name}.weight"] for name in norms} == {0.0}
    assert by_name["backbone.stem.0.weight"] == 0.01
    assert by_name["encoder.lsconvs.0.snake_x"] == 0.01


def test_the_average_moves_by_its_decay(tiny_detector: Detector) -> None:
    average = AveragedDetector(tiny_detector, decay=0.9)
    before = {name: w.clone() for name, w in average.detector.state_dict().items()}
    with torch.no_grad():
        for tensor in [*tiny_detector.parameters(), *tiny_detector.buffers()]:
            tensor.add_(1)
    average.update(step=1000)
    for name, after in average.detector.state_dict().items():
        step = 1 if name.endswith("num_batches_tracked") else 0.1
        torch.testing.assert_close(after, before[name] + step, msg=name)


def test_the_average_includes_the_statistics_that_belong_to_its_weights(tiny_detector: Detector) -> None:
    """Regression: with the latest batch's statistics, averaged weights lost four points of AP50 in mid-run."""
    average = AveragedDetector(tiny_detector, decay=0.9)
    tiny_detector.get_buffer("backbone.stem.1.running_mean").fill_(10.0)
    average.update(step=1000)
    averaged = average.detector.get_buffer("backbone.stem.1.running_mean")
    torch.testing.assert_close(averaged, torch.full_like(averaged, 1.0))


def test_the_average_is_quick_at_first(tiny_detector: Detector) -> None:
    average, name = AveragedDetector(tiny_detector, decay=0.9999), "density_head.layers.0.weight"
    with torch.no_grad():
        tiny_detector.get_parameter(name).fill_(1.0)
        before = average.detector.get_parameter(name).clone()
        average.update(step=0)
    after = average.detector.get_parameter(name)
    torch.testing.assert_close(after, before + 0.9 * (1 - before))


def test_the_average_begins_anew_with_loaded_weights(tiny_detector: Detector) -> None:
    average = AveragedDetector(tiny_detector, decay=0.9)
    loaded = {name: w + 1 for name, w in tiny_detector.state_dict().items()}
    tiny_detector.load_state_dict(loaded)
    average.restart()
    assert all(torch.equal(w, loaded[name]) for name, w in average.detector.state_dict().items())


def test_the_average_does_not_follow_by_reference(tiny_detector: Detector) -> None:
    average = AveragedDetector(tiny_detector, decay=0.9)
    assert not average.detector.training
    assert not any(p.requires_grad for p in average.detector.parameters())
    own = {p.data_ptr() for p in tiny_detector.parameters()}
    assert own.isdisjoint(p.data_ptr() for p in average.detector.parameters())
