"""The objective as a whole."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from model.detector import Detector
from model.structures import DetectorOutput, LayerPrediction, Queries
from training.config import DenoisingConfig, LossConfig, MatcherConfig
from training.criterion import Loss, SetCriterion
from training.data.samples import Targets
from training.denoising import DenoisingTask, make_denoising
from training.losses import (
    ClassificationKind,
    classification_loss,
    count_loss,
    density_focal_loss,
    iou_and_giou_loss,
    l1,
    tiny_l1,
)
from training.targets import density_targets

WEIGHTS = LossConfig(
    classification_kind="mal", classification=1.5, proposal_classification=2.5, tiny_l1=0.5, l1=0.7, giou=2,
    dense=1, density=3, count=4, denoising=0.5, density_target="box", density_overlap="sum",
)  # fmt: skip
MATCHER = MatcherConfig(classification=2, tiny_l1=0.5, l1=0, giou=2)
NOISE = DenoisingConfig(queries=4, max_groups=5, label_noise=0.2, box_noise=0.4, box_noise_on="centre")
KINDS: list[ClassificationKind] = ["mal", "vfl", "focal", "cross_entropy"]
PLANE, SHIP = (0, 0.3, 0.3, 0.2, 0.1), (1, 0.6, 0.6, 0.1, 0.2)


def forward(detector: Detector, images: Tensor, targets: Targets) -> tuple[SetCriterion, DetectorOutput, Loss]:
    """One pass in training mode, with denoising."""
    torch.manual_seed(0)
    criterion, task = SetCriterion(WEIGHTS, MATCHER, detector.config), make_denoising(targets, 3, NOISE)
    output = detector.train()(images, task and task.queries, targets.counts)
    return criterion, output, criterion(output, targets, task)


def density_of(output: DetectorOutput) -> Tensor:
    """(B, h, w)."""
    assert output.encoded.density is not None
    return output.encoded.density[:, 0]


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
    assert all(loss.terms[f"denoising_{i}"] == 0 for i in range(len(output.denoising_layers)))
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


def with_background(layers: list[LayerPrediction]) -> list[LayerPrediction]:
    """The same layers with one logit more, as a decoder that classifies by softmax gives them."""
    return [LayerPrediction(torch.cat([x.logits, 0.5 - x.logits[..., :1]], -1), x.boxes) for x in layers]


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_costs_its_matched_boxes_and_all_its_scores_per_object(
    tiny_detector: Detector,
    make_targets: Callable[..., Targets],
    pictures: Callable[..., Tensor],
    kind: ClassificationKind,
) -> None:
    targets = make_targets([PLANE], [SHIP])
    _, output, _ = forward(tiny_detector, pictures(2), targets)
    criterion = SetCriterion(WEIGHTS.model_copy(update={"classification_kind": kind}), MATCHER, tiny_detector.config)
    far, near_plane, near_ship = [0.8, 0.1, 0.1, 0.1], [0.31, 0.3, 0.2, 0.12], [0.6, 0.58, 0.1, 0.2]
    boxes = torch.tensor([[far, near_plane], [near_ship, far]])
    logits = torch.tensor([[[-3.0, 0.1, -2.0], [1.0, -1.0, 0.0]], [[-2.0, 2.0, 0.0], [0.0, -1.0, -3.0]]])
    layer, valid = LayerPrediction(logits, boxes), torch.ones(2, 2, dtype=torch.bool)
    queries = replace(output.queries, logits=logits, reference_boxes=boxes, valid=valid)
    (last,) = with_background([layer]) if kind == "cross_entropy" else [layer]
    loss = criterion(replace(output, layers=[last], queries=queries), targets, None)

    def in_order(x: Tensor) -> Tensor:
        return torch.cat([x[0, 1:], x[1, :1], x[0, :1], x[1, 1:]])

    matched, truth = torch.stack([boxes[0, 1], boxes[1, 0]]), torch.stack([targets.boxes[0, 0], targets.boxes[1, 0]])
    iou, giou_loss = iou_and_giou_loss(matched, truth)
    box_loss = (0.5 * tiny_l1(matched, truth) + 0.7 * l1(matched, truth) + 2 * giou_loss).sum() / 2
    answers, quality = torch.tensor([0, 1, -1, -1]), torch.tensor([*iou.tolist(), 0, 0])

    def scores(kind: ClassificationKind, logits: Tensor) -> Tensor:
        return classification_loss(kind, in_order(logits), answers, quality, torch.ones(4))

    rows = 1 + 1 + 0.1 + 0.1 if kind == "cross_entropy" else 2
    torch.testing.assert_close(loss.terms["layer_0"], 1.5 * scores(kind, last.logits) / rows + box_loss)
    of_proposals = scores("focal" if kind == "cross_entropy" else kind, logits)
    torch.testing.assert_close(loss.terms["proposals"], 2.5 * of_proposals / 2 + box_loss)


def test_the_dense_head_learns_boxes_in_proportion_to_their_quality(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP])
    _, output, _ = forward(tiny_detector, pictures(2), targets)
    terms = {}
    for giou in (0.0, 1.0, 3.0):
        weights = WEIGHTS.model_copy(update={"giou": giou, "dense": 0.5})
        loss = SetCriterion(weights, MATCHER, tiny_detector.config)(output, targets, None)
        terms[giou] = loss.terms["dense"]
    torch.testing.assert_close(terms[3.0] - terms[0.0], 3 * (terms[1.0] - terms[0.0]))
    assert terms[1.0] > terms[0.0]


def test_a_batch_with_fewer_objects_than_pictures_is_divided_by_its_pictures(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    _, output, one = forward(tiny_detector, pictures(4), make_targets([PLANE], [], [], []))
    density = density_of(output)
    truth = torch.stack([density_targets(torch.tensor([PLANE[1:]])[:n], (8, 12)) for n in (1, 0, 0, 0)])
    torch.testing.assert_close(one.terms["density"], 3 * density_focal_loss(density, truth) / 4)


def test_the_density_is_compared_with_the_target_asked_for(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, (1, 0.32, 0.3, 0.1, 0.4)])
    _, output, _ = forward(tiny_detector, pictures(1), targets)
    weights = WEIGHTS.model_copy(update={"density_target": "paper", "density_overlap": "max"})
    loss = SetCriterion(weights, MATCHER, tiny_detector.config)(output, targets, None)
    truth = density_targets(targets.boxes[0], (8, 12), "paper", "max")
    torch.testing.assert_close(loss.terms["density"], 3 * density_focal_loss(density_of(output)[0], truth) / 2)


def test_density_is_weighed_per_object_and_the_count_per_picture(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP], [])
    _, output, loss = forward(tiny_detector, pictures(3), targets)
    density = density_of(output)
    truth = torch.stack([density_targets(targets.boxes[i, :n], (8, 12)) for i, n in enumerate([2, 1, 0])])
    torch.testing.assert_close(loss.terms["density"], 3 * density_focal_loss(density, truth) / 3)
    torch.testing.assert_close(loss.terms["count"], 4 * count_loss(density.sum((1, 2)), torch.tensor([2.0, 1, 0])) / 3)


def test_a_denoising_query_that_is_restored_costs_less(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE, SHIP], [SHIP])
    task = make_denoising(targets, 3, NOISE)
    assert task is not None
    criterion = SetCriterion(WEIGHTS, MATCHER, tiny_detector.config)
    output = tiny_detector.train()(pictures(2), task.queries, targets.counts)
    perfect = 20 * torch.nn.functional.one_hot(task.labels + 1, 4)[..., 1:].float() - 10  # negatives are background
    restored = LayerPrediction(perfect, task.boxes)
    ideal = criterion(replace(output, denoising_layers=[restored]), targets, task)
    assert float(ideal.terms["denoising_0"]) == pytest.approx(0, abs=1e-2)
    hopeful = LayerPrediction(perfect.abs(), task.boxes)  # sure of every class, for negatives as well
    assert criterion(replace(output, denoising_layers=[hopeful]), targets, task).terms["denoising_0"] > 10


def test_a_detector_without_heat_has_no_dense_term_and_one_without_density_no_count(
    tiny_detector: Detector, pictures: Callable[..., Tensor], make_targets: Callable[..., Targets]
) -> None:
    targets = make_targets([PLANE], [SHIP])
    criterion, output, _ = forward(tiny_detector, pictures(2), targets)
    bare = replace(output.encoded, heat=[], heat_embedding=[], density=None)
    loss = criterion(replace(output, encoded=bare), targets, None)
    assert set(loss.terms) == {"proposals", "layer_0", "layer_1", "layer_2"}


def in_half_precision(output: DetectorOutput) -> DetectorOutput:
    encoded, queries = output.encoded, output.queries
    return replace(
        output,
        layers=[LayerPrediction(x.logits.half(), x.boxes.half()) for x in output.layers],
        denoising_layers=[LayerPrediction(x.logits.half(), x.boxes.half()) for x in output.denoising_layers],
        encoded=replace(
            encoded,
            heat=[replace(x, logits=x.logits.half(), deltas=x.deltas.half()) for x in encoded.heat],
            density=density_of(output)[:, None].half(),
        ),
        queries=replace(queries, logits=queries.logits.half(), reference_boxes=queries.reference_boxes.half()),
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [(0, 0), (2, 0), (60, 1)])  # at most 40 queries
def test_gradients_of_half_precision_outputs_are_finite(
    tiny_detector: Detector,
    pictures: Callable[..., Tensor],
    make_targets: Callable[..., Targets],
    kind: ClassificationKind,
    counts: tuple[int, int],
) -> None:
    targets = make_targets(*([(i % 3, 0.3, 0.3, 0.002, 0.004) for i in range(n)] for n in counts))
    task = make_denoising(targets, 3, NOISE)
    assert task is not None
    output = in_half_precision(tiny_detector.train()(pictures(2), task.queries, targets.counts))
    if kind == "cross_entropy":
        layers, denoising_layers = with_background(output.layers), with_background(output.denoising_layers)
        output = replace(output, layers=layers, denoising_layers=denoising_layers)
    weights = WEIGHTS.model_copy(update={"classification_kind": kind})
    loss = SetCriterion(weights, MATCHER, tiny_detector.config)(output, targets, task)
    loss.total.backward()
    assert loss.total.dtype == torch.float32
    assert [name for name, term in loss.terms.items() if not torch.isfinite(term)] == []
    gradients = {name: p.grad for name, p in tiny_detector.named_parameters() if p.grad is not None}
    assert gradients
    assert [name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()] == []


def of_pictures(task: DenoisingTask, part: slice) -> DenoisingTask:
    queries = task.queries
    return DenoisingTask(
        replace(queries, labels=queries.labels[part], boxes=queries.boxes[part], groups=queries.groups[part]),
        task.labels[part],
        task.boxes[part],
        task.weight[part],
    )


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_with_half_the_pictures_train_as_one_with_all(
    tiny_detector: Detector,
    pictures: Callable[..., Tensor],
    make_targets: Callable[..., Targets],
    kind: ClassificationKind,
) -> None:
    images = pictures(4)
    targets = make_targets([PLANE, SHIP, SHIP], [SHIP], [], [PLANE, PLANE, (2, 0.5, 0.5, 0.3, 0.3), SHIP, SHIP])
    whole = make_denoising(targets, 3, NOISE)
    assert whole is not None
    weights = WEIGHTS.model_copy(update={"classification_kind": kind})
    counts = torch.full((4,), 20)  # the same number of queries everywhere, so that sums run in the same order

    def gradients(part: slice, mean: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        tiny_detector.zero_grad()
        task, here = of_pictures(whole, part), Targets(targets.boxes[part], targets.labels[part])
        output = tiny_detector(images[part], task.queries, counts[part])
        if kind == "cross_entropy":
            layers, denoising_layers = with_background(output.layers), with_background(output.denoising_layers)
            output = replace(output, layers=layers, denoising_layers=denoising_layers)
        SetCriterion(weights, MATCHER, tiny_detector.config, mean)(output, here, task).total.backward()
        return {name: p.grad.clone() for name, p in tiny_detector.named_parameters() if p.grad is not None}

    messages: list[list[Tensor]] = [[], []]
    halves = [slice(0, 2), slice(2, 4)]
    for sent, half in zip(messages, halves, strict=True):
        gradients(half, lambda value, sent=sent: sent.append(value.detach()) or value)
    means = [torch.stack(pair).mean(0) for pair in zip(*messages, strict=True)]
    apart = []
    for half in halves:
        answers = iter(means)
        apart.append(gradients(half, lambda _value, answers=answers: next(answers)))
    together = gradients(slice(0, 4), lambda value: value)
    for name, gradient in together.items():
        mean = (apart[0][name] + apart[1][name]) / 2
        torch.testing.assert_close(mean, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().max()) + 1e-7)
