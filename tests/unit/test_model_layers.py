"""Building blocks: attention, positional encoding, starting values."""

import math

import pytest
import torch
from torch import nn

from model.layers import MLP, ConvNorm, SelfAttention, classifier, fill_bias, sine_encoding, tokens


def test_self_attention_is_softmax_of_positioned_products_over_plain_values() -> None:
    layer = SelfAttention(6, heads=2)
    positioned, content = torch.randn(1, 4, 6), torch.randn(1, 4, 6)
    query, key = layer.to_query_key(positioned)[0].split(6, dim=-1)
    value = layer.to_value(content)[0]
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        weights = (query[:, part] @ key[:, part].t() / math.sqrt(3)).softmax(-1)
        heads.append(weights @ value[:, part])
    torch.testing.assert_close(layer(positioned, content)[0], layer.to_output(torch.cat(heads, -1)))


def test_the_positional_encoding_is_sine_and_cosine_of_rows_then_columns() -> None:
    width, temperature = 8, 100.0
    encoding = sine_encoding(3, 5, width, like=torch.zeros(1), temperature=temperature)
    assert encoding.shape == (1, width, 3, 5)
    for half, position in ((0, 2), (width // 2, 4)):  # cell (2, 4)
        for d in range(width // 4):
            angle = position / temperature ** (d / (width // 4))
            assert encoding[0, half + d, 2, 4] == pytest.approx(math.sin(angle), abs=1e-6)
            assert encoding[0, half + width // 4 + d, 2, 4] == pytest.approx(math.cos(angle), abs=1e-6)


def test_tokens_run_row_by_row() -> None:
    level = torch.arange(6.0).view(1, 1, 2, 3)
    assert tokens(level).flatten().tolist() == [0, 1, 2, 3, 4, 5]


def test_layers_that_start_at_zero_say_nothing() -> None:
    assert MLP(4, 8, 4, starts_at_zero=True)(torch.randn(3, 4)).abs().max() == 0
    assert ConvNorm(4, 4, 3, activate=False, starts_at_zero=True)(torch.randn(2, 4, 5, 5)).abs().max() == 0


def test_a_classifier_starts_with_background() -> None:
    assert classifier(4, 3)(torch.zeros(4)).sigmoid().max() < 0.011


def test_a_layer_without_bias_cannot_be_given_one() -> None:
    with pytest.raises(ValueError, match="has no bias"):
        fill_bias(nn.Linear(2, 2, bias=False), 1.0)
