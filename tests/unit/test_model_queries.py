"""How many proposals become queries, and which."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model.boxes import anchors
from model.config import QueryConfig
from model.detector import Detector
from model.queries import query_counts


def query(**changes: Any) -> dict[str, Any]:
    """The queries of the tiny detector, changed."""
    return {"k_min": 3, "k_max": 40} | changes


@pytest.mark.parametrize(
    ("count", "expected"), [(0.0, 4), (1.0, 4), (2.49, 5), (3.25, 6), (3.75, 8), (9.0, 18), (10.0, 20), (1e6, 20)]
)
def test_the_number_of_queries_is_rounded_half_to_even_and_clamped(count: float, expected: int) -> None:
    assert query_counts(torch.tensor([count]), QueryConfig(k_min=4, k_max=20, t=2.0)).tolist() == [expected]


def test_each_image_has_its_own_number_of_queries() -> None:
    assert query_counts(torch.tensor([2.0, 5.0, 0.0]), QueryConfig(k_min=3, k_max=12, t=3.0)).tolist() == [6, 12, 3]


def test_true_counts_raise_the_number_of_queries_but_not_above_the_most() -> None:
    config = QueryConfig(k_min=1, k_max=12, t=1.0)
    counts = query_counts(torch.tensor([2.0, 2.0, 6.0]), config, at_least=torch.tensor([4.5, 100.0, 1.5]))
    assert counts.tolist() == [4, 12, 6]


def test_no_gradient_flows_through_the_number_of_queries() -> None:
    assert not query_counts(torch.ones(1, requires_grad=True), QueryConfig()).requires_grad


@torch.no_grad()
def test_queries_are_the_best_proposals_sorted_by_score(
    tiny_detector: Detector, pictures: Callable[..., Tensor]
) -> None:
    encoded = tiny_detector.encode(pictures(2))
    everything = tiny_detector.propose(encoded, 10_000, torch.tensor([5, 5]))
    best = tiny_detector.propose(encoded, 7, torch.tensor([5, 7]))
    scores = everything.logits.amax(-1)
    assert everything.logits.shape[1] == sum(h * w for h, w in encoded.shapes)  # no more than there are tokens
    assert (scores.diff(dim=1) <= 0).all()
    torch.testing.assert_close(best.logits, everything.logits[:, :7])
    assert best.valid.tolist() == [[True] * 5 + [False] * 2, [True] * 7]


@torch.no_grad()
def test_what_ranks_the_cells_is_what_the_classifier_says_of_them(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor]
) -> None:
    detector = make_detector()
    selection = detector.select_queries
    for parameter in selection.parameters():  # norms that do something
        parameter.add_(0.3 * torch.randn_like(parameter))
    for level in detector.encode(pictures(2)).memory:
        expected = selection.classify(selection.normalise(level.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)
        torch.testing.assert_close(selection.dense_logits(level), expected, rtol=1e-4, atol=1e-5)


def test_ranking_leaves_no_gradient(make_detector: Callable[..., Detector], pictures: Callable[..., Tensor]) -> None:
    detector = make_detector()
    level = detector.encode(pictures(1)).memory[0]
    assert level.requires_grad
    assert not detector.select_queries.dense_logits(level).requires_grad


def test_reference_boxes_start_as_anchors(pictures: Callable[..., Tensor], tiny_detector: Detector) -> None:
    fresh = Detector(tiny_detector.config).eval()
    with torch.no_grad():
        encoded = fresh.encode(pictures(1))
        boxes = fresh.propose(encoded, 5, torch.tensor([5])).reference_boxes[0]
    known = anchors(encoded.shapes, tiny_detector.config.anchor_cells, like=boxes)[0]
    assert (torch.cdist(boxes, known).amin(1) < 1e-6).all()


@torch.no_grad()
def test_queries_beyond_the_count_are_masked(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    encoded = tiny_detector.encode(pictures(2))
    queries = tiny_detector.propose(encoded, 12, torch.tensor([4, 12]))
    features, boxes = queries.features.clone(), queries.reference_boxes.clone()
    features[0, 4:], boxes[0, 4:] = torch.randn(8, features.shape[2]) * 100, torch.rand(8, 4)
    changed = replace(queries, features=features, reference_boxes=boxes)
    for before, after in zip(
        tiny_detector.decode(encoded.memory, queries), tiny_detector.decode(encoded.memory, changed), strict=True
    ):
        assert not torch.equal(before.boxes[0, 4:], after.boxes[0, 4:])
        assert torch.equal(before.boxes[queries.valid], after.boxes[queries.valid])
        assert torch.equal(before.logits[queries.valid], after.logits[queries.valid])


@torch.no_grad()
def test_unmasked_queries_do_see_each_other(tiny_detector: Detector, pictures: Callable[..., Tensor]) -> None:
    encoded = tiny_detector.encode(pictures(1))
    alone = tiny_detector.decode(encoded.memory, tiny_detector.propose(encoded, 12, torch.tensor([4])))[-1]
    together = tiny_detector.decode(encoded.memory, tiny_detector.propose(encoded, 12, torch.tensor([12])))[-1]
    assert not torch.allclose(alone.logits[0, :4], together.logits[0, :4])


@torch.no_grad()
def test_learned_contents_are_the_first_rows_of_a_table(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor]
) -> None:
    detector = make_detector(query=query(content="learned"))
    queries = detector.propose(detector.encode(pictures(2)), 7, torch.tensor([5, 7]))
    table = detector.get_parameter("select_queries.table.weight")
    assert table.shape == (40, 16)
    assert all(torch.equal(contents, table[:7]) for contents in queries.features)


@pytest.mark.parametrize("content", ["heat", "memory+heat"])
@torch.no_grad()
def test_contents_of_heat_are_the_projected_mixed_heat_of_their_cells(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor], content: str
) -> None:
    detector = make_detector(query=query(content=content))
    selection = detector.select_queries
    assert selection.from_heat is not None
    torch.nn.init.normal_(selection.from_heat.weight)  # beside the memory it begins at zero
    encoded = detector.encode(pictures(1))
    queries = detector.propose(encoded, 7, torch.tensor([7]))
    cells = torch.cat([level.flatten(2) for level in encoded.memory], 2)[0].T  # (N, D)
    best = selection.classify(selection.normalise(cells)).amax(1).argsort(descending=True)[:7]
    e_mixed = [embedding * heat.mixed for embedding, heat in zip(encoded.heat_embedding, encoded.heat, strict=True)]
    mixed_heat = torch.cat([level.flatten(2) for level in e_mixed], 2)[0].T
    expected = mixed_heat[best] @ selection.from_heat.weight.T
    if selection.to_content is not None and selection.content_norm is not None:
        own = selection.to_content(selection.normalise(cells[best]))
        expected = selection.content_norm(own + expected + selection.from_heat.bias)
    torch.testing.assert_close(queries.features[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suppress_cold", [True, False])
@torch.no_grad()
def test_cold_cells_are_suppressed_only_where_asked_for(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor], suppress_cold: bool
) -> None:
    detector = make_detector(query=query(suppress_cold=suppress_cold))
    encoded = detector.encode(pictures(1))
    hot_level = replace(encoded.heat[1], mask=torch.ones_like(encoded.heat[1].mask))
    cold_levels = [replace(heat, mask=torch.zeros_like(heat.mask)) for heat in encoded.heat]
    encoded = replace(encoded, heat=[cold_levels[0], hot_level, cold_levels[2]])
    h, w = encoded.shapes[1]
    chosen = detector.propose(encoded, h * w, torch.tensor([h * w]))
    level = replace(encoded, memory=encoded.memory[1:2], heat=[hot_level], heat_embedding=encoded.heat_embedding[1:2])
    of_the_level = detector.propose(level, h * w, torch.tensor([h * w]))
    assert torch.equal(chosen.logits, of_the_level.logits) == suppress_cold


def test_an_image_with_fewer_tokens_than_k_min_uses_all_of_them(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor]
) -> None:
    detector = make_detector(query=query(k_min=30))
    assert detector(pictures(2, 32, 32)).queries.valid.sum(1).tolist() == [16 + 4 + 1] * 2


@torch.no_grad()
def test_without_density_every_image_gets_the_most_queries(
    make_detector: Callable[..., Detector], pictures: Callable[..., Tensor]
) -> None:
    output = make_detector(density=None)(pictures(2), true_counts=torch.tensor([0, 3]))
    assert output.count is None
    assert output.encoded.density is None
    assert output.queries.valid.sum(1).tolist() == [40, 40]
