"""The multi-scale deformable encoder against a plain loop, written from Deformable DETR, section 4.1."""

import math
from typing import TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import DecoderConfig, DeformableEncoderConfig, DetectorConfig, QueryConfig
from model.deformable_encoder import DeformableEncoder, DeformableEncoderLayer, sine_of_points

WIDTH, CHANNELS = 32, [3, 5]
SHAPES = [(4, 6), (2, 3)]
Cells: TypeAlias = dict[tuple[int, int, int], Tensor]


@pytest.fixture
def encoder() -> DeformableEncoder:
    """Two layers on two levels; no parameter is zero."""
    torch.manual_seed(0)
    config = DetectorConfig(
        classes=("ship",),
        strides=(8, 16),
        width=WIDTH,
        heat=None,
        encoder=DeformableEncoderConfig(layers=2, heads=2, points=2, feedforward=16),
        query=QueryConfig(content="memory"),
        decoder=DecoderConfig(checkpointing=True),
    )
    encoder = DeformableEncoder(config, CHANNELS)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return encoder


@pytest.fixture
def pyramid() -> list[Tensor]:
    """Two pictures."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, c, h, w, generator=generator) for c, (h, w) in zip(CHANNELS, SHAPES, strict=True)]


def bilinear(values: Tensor, x: float, y: float) -> Tensor:
    """Sample (D, h, w) at a point in cells, whose centres are at 0.5, 1.5, ...; zero outside. Gives (D,)."""
    column, row = x - 0.5, y - 0.5
    left, top = math.floor(column), math.floor(row)
    result = torch.zeros(values.shape[0])
    for i, j in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= i < values.shape[1] and 0 <= j < values.shape[2]:
            result += (1 - abs(row - i)) * (1 - abs(column - j)) * values[:, i, j]
    return result


def slow_position(encoder: DeformableEncoder, level: int, row: int, column: int) -> Tensor:
    """Sines and cosines of y, then of x, at 20^(-i / (D / 4)) turns across the image, plus the level's embedding."""
    h, w = SHAPES[level]
    angles = [
        [2 * math.pi * place * 20 ** (-i / (WIDTH // 4)) for i in range(WIDTH // 4)]
        for place in ((row + 0.5) / h, (column + 0.5) / w)
    ]
    values = [function(angle) for group in angles for function in (math.sin, math.cos) for angle in group]
    return torch.tensor(values) + encoder.level_embedding[level]


def slow_attention(
    layer: DeformableEncoderLayer, query: Tensor, place: tuple[float, float], maps: list[Tensor]
) -> Tensor:
    """One query (D,) at a place (x, y) in fractions of the image, on projected maps (D, h, w); offsets are in cells."""
    attention = layer.attention
    heads, points, share = attention.heads, attention.points, WIDTH // attention.heads
    offsets = attention.to_offsets(query).view(heads, len(maps), points, 2)
    weights = attention.to_weights(query).view(heads, -1).softmax(-1).view(heads, len(maps), points)
    mixed = torch.zeros(WIDTH)
    for head in range(heads):
        part = slice(head * share, (head + 1) * share)
        for level, values in enumerate(maps):
            h, w = values.shape[1:]
            for point in range(points):
                dx, dy = offsets[head, level, point].tolist()
                sample = bilinear(values[part], place[0] * w + dx, place[1] * h + dy)
                mixed[part] += weights[head, level, point] * sample
    return attention.to_output(mixed)


def slow_layer(
    encoder: DeformableEncoder, layer: DeformableEncoderLayer, x: dict[tuple[int, int, int], Tensor]
) -> dict:
    """One layer, cell by cell; x has a vector for each (level, row, column)."""
    assert isinstance(layer.attention.to_values, torch.nn.Conv2d)
    kernel, bias = layer.attention.to_values.weight[:, :, 0, 0], layer.attention.to_values.bias
    assert bias is not None
    maps = [
        torch.stack([torch.stack([kernel @ x[level, i, j] + bias for j in range(w)], 1) for i in range(h)], 1)
        for level, (h, w) in enumerate(SHAPES)
    ]
    result = {}
    for (level, row, column), value in x.items():
        h, w = SHAPES[level]
        query = value + slow_position(encoder, level, row, column)
        seen = slow_attention(layer, query, ((column + 0.5) / w, (row + 0.5) / h), maps)
        value = layer.norm(value + seen)
        result[level, row, column] = layer.last_norm(value + layer.feedforward(value))
    return result


@torch.no_grad()
def test_the_deformable_encoder_is_what_a_plain_loop_gives(encoder: DeformableEncoder, pyramid: list[Tensor]) -> None:
    memory, heat, heat_embedding = encoder(pyramid)
    assert (heat, heat_embedding) == ([], [])
    for image in range(2):
        x = {}
        for level, (h, w) in enumerate(SHAPES):
            projected = encoder.inputs[level](pyramid[level])[image]
            x |= {(level, i, j): projected[:, i, j] for i in range(h) for j in range(w)}
        for layer in encoder.layers:
            assert isinstance(layer, DeformableEncoderLayer)
            x = slow_layer(encoder, layer, x)
        for (level, row, column), expected in x.items():
            torch.testing.assert_close(memory[level][image, :, row, column], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_new_encoder_looks_at_its_own_neighbours(encoder: DeformableEncoder) -> None:
    fresh = DeformableEncoderLayer(DeformableEncoderConfig(heads=8, points=2), WIDTH, 1).attention
    values = torch.zeros(1, WIDTH, 9, 9)
    values[..., 4, 6] = 1  # two cells to the right of the middle
    middle = torch.tensor([[[0.5, 0.5, 0, 0]]])
    fresh.to_output = torch.nn.Linear(WIDTH, WIDTH, bias=False)
    with_neighbour = fresh(torch.zeros(1, 1, WIDTH), middle, [values])
    values = values.roll(2, dims=-1)  # four cells to the right, out of reach of two points
    without = fresh(torch.zeros(1, 1, WIDTH), middle, [values])
    assert not torch.allclose(with_neighbour, without)
    torch.testing.assert_close(without, fresh(torch.zeros(1, 1, WIDTH), middle, [torch.zeros_like(values)]))


def gradients(encoder: DeformableEncoder, pyramid: list[Tensor], checkpointing: bool) -> list[Tensor]:
    encoder.checkpointing = checkpointing
    encoder.zero_grad()
    memory, _, _ = encoder.train()(pyramid)
    torch.stack([level.square().mean() for level in memory]).sum().backward()
    found = [p.grad for p in encoder.parameters() if p.grad is not None]
    assert len(found) == len(list(encoder.parameters()))
    return found


def test_activation_checkpointing_changes_no_gradient(encoder: DeformableEncoder, pyramid: list[Tensor]) -> None:
    plain, saved = (gradients(encoder, pyramid, checkpointing) for checkpointing in (False, True))
    for one, other in zip(plain, saved, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_activation_checkpointing_runs_layers_again_in_training_only(
    encoder: DeformableEncoder, pyramid: list[Tensor]
) -> None:
    runs = []
    encoder.layers[0].register_forward_pre_hook(lambda *_: runs.append(1))
    for training, expected in ((True, 2), (False, 1)):
        runs.clear()
        memory, _, _ = encoder.train(training)(pyramid)
        memory[0].sum().backward()
        assert len(runs) == expected


def test_half_precision_keeps_the_memory_in_full(encoder: DeformableEncoder, pyramid: list[Tensor]) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half, _, _ = encoder(pyramid)
    full, _, _ = encoder(pyramid)
    assert all(level.dtype == torch.float32 for level in half)
    for one, other in zip(full, half, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0.2)


def test_a_width_that_does_not_fall_into_groups_is_refused() -> None:
    with pytest.raises(ValueError, match="width 48 is not divisible by 32"):
        DetectorConfig(
            classes=("ship",),
            width=48,
            heat=None,
            encoder=DeformableEncoderConfig(),
            query=QueryConfig(content="learned"),
        )


def test_places_near_each_other_are_encoded_alike() -> None:
    points = torch.tensor([[0.2, 0.7], [0.21, 0.7], [0.2, 0.2]])
    here, beside, away = sine_of_points(points, 64, 20.0)
    near, far = F.cosine_similarity(here, beside, dim=0), F.cosine_similarity(here, away, dim=0)
    assert near > 0.99 > 0.9 > far
