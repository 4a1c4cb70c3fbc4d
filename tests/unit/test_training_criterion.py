"""The objective as a whole."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.detector import Detector
from model.structures import DetectorOutput, LayerPrediction, Queries
from training.config import DenoisingConfig, LossConfig
from training.criterion import Loss, SetCriterion
from training.data.samples import Targets
from training.denoising import make_denoising
from training.losses import count_loss, density_focal_loss, iou_and_giou_loss, matchability_aware_loss, tiny_l1
from training.targets import density_targets

WEIGHTS = LossConfig(
    classification=1.5, tiny_l1=0.5, giou=2, dense=1, density=3, count=4, denoising=0.5, density_overlap="sum"
)
NOISE = DenoisingConfig(queries=4, label_noise=0.2, box_noise=0.4)
PLANE, SHIP = (0, 0.3, 0.3, 0.2, 0.1), (1, 0.6, 0.6, 0.1, 0.2)


def forward(detector: Detector, images: Tensor, targets: Targets) -> tuple[SetCriterion, DetectorOutput, Loss]:
    """One pass in training mode, with denoising."""
    torch.manual_seed(0)
    criterion, task = SetCriterion(WEIGHTS, detector.config), make_denoising(targets, 3, NOISE)
    output = detector.train()(images, task and task.queries, targets.counts)
    return criterion, output, criterion(output, targets, task)


def test_the_total_is_the_sum_of_its_terms(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    _, _, loss = forward(tiny_detector, pictures(2), make_targets([PLANE, SHIP], [SHIP]))
    layers = [f"{kind}_{i}" for kind in ("layer", "denoising") for i in range(3)]
    assert set(loss.terms) == {"proposals", *layers, "dense", "density", "count"}
    torch.testing.assert_close(loss.total, torch.stack(list(loss.terms.values())).sum())


def test_empty_pictures_train(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    _, output, loss = forward(tiny_detector, pictures(2), make_targets([], []))
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert loss.total > 0
    assert output.denoising_layers == []
    gradients = [p.grad for p in tiny_detector.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_an_empty_picture_beside_a_full_one_trains(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    _, _, loss = forward(tiny_detector, pictures(2), make_targets([], [PLANE] * 30))
    loss.total.backward()
    assert torch.isfinite(loss.total)


def test_gradient_steps_lower_the_loss(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP])
    optimizer = torch.optim.Adam(tiny_detector.parameters(), lr=1e-3)
    _, _, first = forward(tiny_detector, pictures(2), targets)
    for _ in range(60):
        _, _, loss = forward(tiny_detector, pictures(2), targets)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    _, _, last = forward(tiny_detector, pictures(2), targets)
    learned = [name for name in first.terms if name.startswith(("layer", "dense", "density", "count"))]
    assert [name for name in learned if last.terms[name] >= first.terms[name]] == []
    assert last.total < 0.9 * first.total


def test_queries_beyond_the_count_weigh_nothing(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP] * 10)
    criterion, output, _ = forward(tiny_detector, pictures(2), targets)
    invalid = ~output.queries.valid
    assert invalid.any()
    loss = criterion(output, targets, None)
    layers = [
        LayerPrediction(layer.logits + 50 * invalid[..., None], layer.boxes + invalid[..., None])
        for layer in output.layers
    ]
    queries: Queries = replace(output.queries, logits=output.queries.logits + 50 * invalid[..., None])
    changed = criterion(replace(output, layers=layers, queries=queries), targets, None)
    assert all(torch.equal(loss.terms[name], changed.terms[name]) for name in loss.terms)


def test_a_layer_costs_its_matched_boxes_and_all_its_scores_per_object(
    tiny_detector: Detector, make_targets: Callable[..., Targets], pictures: Callable[..., Tensor]
) -> None:
    targets = make_targets([PLANE], [SHIP])
    criterion, output, _ = forward(tiny_detector, pictures(2), targets)
    far, near_plane, near_ship = [0.8, 0.1, 0.1, 0.1], [0.31, 0.3, 0.2, 0.12], [0.6, 0.58, 0.1, 0.2]
    boxes = torch.tensor([[far, near_plane], [near_ship, far]])
    logits = torch.tensor([[[-3.0, 0.1, -2.0], [1.0, -1.0, 0.0]], [[-2.0, 2.0, 0.0], [0.0, -1.0, -3.0]]])
    layer, valid = LayerPrediction(logits, boxes), torch.ones(2, 2, dtype=torch.bool)
    queries = replace(output.queries, logits=logits, reference_boxes=boxes, valid=valid)
    loss = criterion(replace(output, layers=[layer], queries=queries), targets, None)

    matched, truth = torch.stack([boxes[0, 1], boxes[1, 0]]), torch.stack([targets.boxes[0, 0], targets.boxes[1, 0]])
    iou, giou_loss = iou_and_giou_loss(matched, truth)
    scores = matchability_aware_loss(
        torch.cat([logits[0, 1:], logits[1, :1], logits[0, :1], logits[1, 1:]]),
        torch.tensor([0, 1, -1, -1]), torch.tensor([*iou.tolist(), 0, 0]), torch.ones(4),
    )  # fmt: skip
    expected = (1.5 * scores + 0.5 * tiny_l1(matched, truth).sum() + 2 * giou_loss.sum()) / 2
    torch.testing.assert_close(loss.terms["layer_0"], expected)
    torch.testing.assert_close(loss.terms["proposals"], expected)


def test_density_is_weighed_per_object_and_the_count_per_picture(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP], [])
    _, output, loss = forward(tiny_detector, pictures(3), targets)
    density = output.encoded.density[:, 0]
    truth = torch.stack([density_targets(targets.boxes[i, :n], (8, 12)) for i, n in enumerate([2, 1, 0])])
    torch.testing.assert_close(loss.terms["density"], 3 * density_focal_loss(density, truth) / 3)
    torch.testing.assert_close(loss.terms["count"], 4 * count_loss(output.count, torch.tensor([2.0, 1.0, 0.0])) / 3)


def test_a_denoising_query_that_is_restored_costs_less(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP])
    task = make_denoising(targets, 3, NOISE)
    assert task is not None
    criterion = SetCriterion(WEIGHTS, tiny_detector.config)
    output = tiny_detector.train()(pictures(2), task.queries, targets.counts)
    perfect = 20 * torch.nn.functional.one_hot(task.labels + 1, 4)[..., 1:].float() - 10  # negatives are background
    restored = LayerPrediction(perfect, task.boxes)
    ideal = criterion(replace(output, denoising_layers=[restored]), targets, task)
    assert float(ideal.terms["denoising_0"]) == pytest.approx(0, abs=1e-2)
    hopeful = LayerPrediction(perfect.abs(), task.boxes)  # sure of every class, for negatives as well
    assert criterion(replace(output, denoising_layers=[hopeful]), targets, task).terms["denoising_0"] > 10
