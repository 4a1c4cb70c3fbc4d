"""The hybrid encoder: what its attention is made of, where cold cells lose their position, and where heat enters."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from model.config import DetectorConfig
from model.encoder import AttentionBlock, Fusion, HybridEncoder
from model.heat import HeatEmbedding
from model.layers import sine_encoding

CHANNELS = [6, 8, 10]
ENCODER = {"kind": "hybrid", "heads": 2, "feedforward": 16, "lsconv": {"bottleneck": 4}}
NO_HEAT = {"heat": None, "encoder": ENCODER | {"mohfe": "off"}, "query": {"content": "memory"}}
READINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "no MOHFE": {"encoder": ENCODER | {"mohfe": "off"}},
    "attention made of heat": {"encoder": ENCODER | {"mohfe": "attention"}},
    "attention made of heat, queries of memory": {
        "encoder": ENCODER | {"mohfe": "attention"},
        "query": {"content": "memory"},
    },
    "heat only shown": {
        "heat": {"masked_position": "off"},
        "encoder": ENCODER | {"mohfe": "off"},
        "query": {"content": "memory"},
    },
    "plain position": {"heat": {"masked_position": "off"}},
    "masked position on every level": {"heat": {"masked_position": "levels"}},
    "deviation and quantile": {"heat": {"box": "deviation", "mask": "quantile", "masked_position": "levels"}},
    "no box heat": {"heat": {"box": "off"}},
    "no heat": NO_HEAT,
}


def make_encoder(fresh: bool = False, **changes: Any) -> HybridEncoder:
    """An encoder in evaluation mode; unless it is fresh, nothing in it is zero, as if it had been trained."""
    torch.manual_seed(0)
    config = DetectorConfig.model_validate(
        {"classes": ("plane", "ship"), "width": 16, "encoder": ENCODER, "decoder": {"heads": 2}} | changes
    )
    encoder = HybridEncoder(config, CHANNELS)
    with torch.no_grad():
        for parameter in () if fresh else encoder.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return encoder.eval()


def pyramid(batch: int = 2, seed: int = 1) -> list[Tensor]:
    """Levels of a picture that is not square."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [(8, 12), (4, 6), (2, 3)]
    return [torch.randn(batch, c, *size, generator=generator) for c, size in zip(CHANNELS, sizes, strict=True)]


def attention_inputs(encoder: HybridEncoder, levels: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The coarsest level, the content and the position that the encoder hands to its attention."""
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    hook = encoder.attention.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs))
    encoder(levels)
    hook.remove()
    return seen[0]


def slow_attention(block: AttentionBlock, level: Tensor, content: Tensor, position: Tensor) -> Tensor:
    """Head by head and token by token; (D, cells) each, to what is added to the level, (cells, D)."""
    layer, (width, cells) = block.attention, level.shape
    per_head = width // layer.heads
    rows = []
    for t in range(cells):
        heads = []
        for head in range(layer.heads):
            part = slice(head * per_head, (head + 1) * per_head)
            query = layer.to_query_key(content[:, t] + position[:, t])[:width][part]
            keys = [layer.to_query_key(content[:, s] + position[:, s])[width:][part] for s in range(cells)]
            values = [layer.to_value(content[:, s])[part] for s in range(cells)]
            weights = [math.exp(float(query @ key) / math.sqrt(per_head)) for key in keys]
            heads.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
        rows.append(layer.to_output(torch.cat(heads)))
    return torch.stack(rows)


@torch.no_grad()
def test_the_attention_block_is_what_a_plain_loop_gives() -> None:
    block = AttentionBlock(8, 2, 12).double()
    level, content, position = (torch.randn(1, 8, 2, 3, dtype=torch.float64) for _ in range(3))
    x = level[0].flatten(1).t()
    x = block.norm(x + slow_attention(block, *(t[0].flatten(1) for t in (level, content, position))))
    expected = block.last_norm(x + block.feedforward(x)).t().view(1, 8, 2, 3)
    torch.testing.assert_close(block(level, content, position), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", READINGS)
def test_every_reading_teaches_every_parameter(name: str) -> None:
    encoder = make_encoder(**READINGS[name]).train()
    memory, heat, mixed = encoder(pyramid())
    shown = [x for level in heat for x in (level.logits, level.deltas, level.mixed)]
    torch.stack([x.float().square().mean() for x in [*memory, *shown, *mixed]]).sum().backward()
    assert [n for n, p in encoder.named_parameters() if p.grad is None] == []
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", READINGS)
@torch.no_grad()
def test_a_picture_is_encoded_alone_as_in_its_batch(name: str) -> None:
    encoder, levels = make_encoder(**READINGS[name]), pyramid(3)
    memory, heat, mixed = encoder(levels)
    alone_memory, alone_heat, alone_mixed = encoder([level[1:2] for level in levels])
    for many, one in zip([*memory, *mixed], [*alone_memory, *alone_mixed], strict=True):
        torch.testing.assert_close(many[1:2], one, rtol=1e-4, atol=1e-5)
    for many, one in zip(heat, alone_heat, strict=True):
        torch.testing.assert_close(many.maps()[1:2], one.maps(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["deviation and quantile", "attention made of heat"])
def test_bfloat16_is_finite_forward_and_backward(name: str) -> None:
    encoder = make_encoder(**READINGS[name]).train()
    with torch.autocast("cpu", torch.bfloat16):
        memory, _, mixed = encoder(pyramid())
    torch.stack([x.float().square().mean() for x in [*memory, *mixed]]).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in encoder.parameters() if p.grad is not None)


@torch.no_grad()
def test_in_the_papers_mohfe_queries_keys_and_values_are_made_of_the_heat_embeddings() -> None:
    encoder, levels = make_encoder(encoder=ENCODER | {"mohfe": "attention"}), pyramid()
    lateral = encoder.laterals[-1](levels[-1])
    heat, embedding = encoder.heat[-1](lateral)
    level, content, position = attention_inputs(encoder, levels)
    assert encoder.gates is None
    torch.testing.assert_close(level, torch.nn.functional.silu(lateral))
    torch.testing.assert_close(content, embedding)
    torch.testing.assert_close(position, sine_encoding(2, 3, 16, like=level) * heat.mask)


@pytest.mark.parametrize("mohfe", ["off", "gated"])
@torch.no_grad()
def test_otherwise_the_attention_is_made_of_the_level_itself(mohfe: str) -> None:
    level, content, _ = attention_inputs(make_encoder(encoder=ENCODER | {"mohfe": mohfe}), pyramid())
    assert level is content


@torch.no_grad()
def test_gated_mohfe_adds_gate_times_embedding_to_a_level() -> None:
    encoder, levels = make_encoder(), pyramid()
    lateral = encoder.laterals[-1](levels[-1])
    embedding = encoder.heat[-1](lateral)[1]
    assert encoder.gates is not None
    expected = torch.nn.functional.silu(lateral + encoder.gates[-1] * embedding)
    torch.testing.assert_close(attention_inputs(encoder, levels)[0], expected)


def test_embeddings_that_nothing_takes_are_not_built() -> None:
    def embedded(name: str) -> list[int]:
        names = {n for n, _ in make_encoder(**READINGS[name]).named_parameters()}
        return [i for i in range(3) if f"heat.{i}.embed_class.weight" in names]

    assert embedded("no MOHFE") == [0, 1, 2]  # the queries take them
    assert embedded("attention made of heat, queries of memory") == [2]
    assert embedded("heat only shown") == []


def test_weights_of_the_default_readings_keep_their_names() -> None:
    names = {
        name for name, _ in make_encoder().named_parameters() if name.split(".")[0] in ("gates", "heat", "lsconvs")
    }
    layers = ("classify", "regress", "embed_class", "embed_box")
    heat = {f"heat.{i}.{layer}.{kind}" for i in range(3) for layer in layers for kind in ("weight", "bias")}
    lsconv = {"snake_x", "snake_y", "mix", "linear_x.weight", "linear_y.weight", "to_bends.weight", "to_bends.bias"}
    lsconv |= {f"{conv}.{part}" for conv in ("reduce", "expand") for part in ("0.weight", "1.weight", "1.bias")}
    assert names == heat | {f"heat.{i}.balance" for i in range(3)} | {f"gates.{i}" for i in range(3)} | {
        f"lsconvs.0.{name}" for name in lsconv
    }


@torch.no_grad()
def test_embeddings_are_made_of_the_level_with_one_heat_map_on_top() -> None:
    encoder, levels = make_encoder(), pyramid()
    lateral, module = encoder.laterals[1](levels[1]), encoder.heat[1]
    assert isinstance(module, HeatEmbedding)
    assert module.embed_class is not None
    assert module.embed_box is not None
    heat = encoder(levels)[1][1]
    parts = [
        module.embed_class(torch.cat([lateral, heat.of_class], 1)),
        module.embed_box(torch.cat([lateral, heat.of_box], 1)),
    ]
    torch.testing.assert_close(encoder(levels)[2][1], torch.cat(parts, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("enlarges", [False, True])
@torch.no_grad()
def test_a_fusion_is_its_layers_on_both_levels_one_above_the_other(enlarges: bool) -> None:
    torch.manual_seed(0)
    fusion = Fusion(8, 1, enlarges).eval()
    first, second = torch.randn(2, 8, 6, 10), torch.randn(2, 8, *((3, 5) if enlarges else (6, 10)))
    large = second.repeat_interleave(2, 2).repeat_interleave(2, 3) if enlarges else second
    both = torch.cat([first, large], 1)
    deep = fusion.deep(both)
    expected = fusion.widen(fusion.plain(both) + deep + fusion.blocks[0](deep))
    torch.testing.assert_close(fusion(first, second), expected)


@torch.no_grad()
def test_queries_of_memory_alone_get_no_e_mixed() -> None:
    memory, heat, mixed = make_encoder(query={"content": "memory"})(pyramid())
    assert (len(memory), len(heat), mixed) == (3, 3, [])


@torch.no_grad()
def test_a_host_without_heat_has_none_and_keeps_all_positions() -> None:
    encoder, levels = make_encoder(**NO_HEAT), pyramid()
    assert encoder(levels)[1:] == ([], [])
    level, _, position = attention_inputs(encoder, levels)
    assert torch.equal(position, sine_encoding(2, 3, 16, like=level))


@pytest.mark.parametrize("where", ["attention", "levels"])
@torch.no_grad()
def test_cold_cells_lose_their_position_in_attention(where: str) -> None:
    encoder, levels = make_encoder(heat={"masked_position": where, "mask": "quantile", "tau": 0.5}), pyramid()
    mask = encoder(levels)[1][-1].mask.bool()
    level, _, position = attention_inputs(encoder, levels)
    assert mask.sum((1, 2, 3)).tolist() == [3, 3]
    assert not (position * ~mask).any()
    torch.testing.assert_close(position, sine_encoding(2, 3, 16, like=level) * mask)


@torch.no_grad()
def test_without_masked_encoding_cold_cells_keep_their_position() -> None:
    level, _, position = attention_inputs(make_encoder(heat={"masked_position": "off", "tau": 0.99}), pyramid())
    assert torch.equal(position, sine_encoding(2, 3, 16, like=level))


@torch.no_grad()
def test_the_masked_encoding_is_added_to_every_level_through_its_gate() -> None:
    plain, levels = make_encoder(fresh=True), pyramid()
    masked = make_encoder(fresh=True, heat={"masked_position": "levels"})
    assert masked.position_gates is not None
    assert [gate.shape for gate in masked.position_gates] == [(1, 16, 1, 1)] * 3
    for one, other in zip(plain(levels)[0], masked(levels)[0], strict=True):
        assert torch.equal(one, other)  # training starts plain
    for i, gate in enumerate(masked.position_gates):
        before = [level.clone() for level in masked(levels)[0]]
        gate.add_(torch.randn_like(gate))
        assert not torch.equal(before[i], masked(levels)[0][i])
    lateral = masked.laterals[-1](levels[-1])
    position = sine_encoding(2, 3, 16, like=lateral) * masked.heat[-1](lateral)[0].mask
    expected = torch.nn.functional.silu(lateral + masked.position_gates[-1] * position)
    torch.testing.assert_close(attention_inputs(masked, levels)[0], expected)


@torch.no_grad()
def test_where_everything_is_cold_no_position_is_added_to_any_level() -> None:
    cold = {"mask": "hard", "tau": 0.999, "masked_position": "levels"}
    encoder, levels = make_encoder(heat=cold), pyramid()
    before = encoder(levels)[0]
    assert encoder.position_gates is not None
    for gate in encoder.position_gates:
        gate.fill_(3.0)
    assert all(torch.equal(one, other) for one, other in zip(before, encoder(levels)[0], strict=True))


def test_checkpointing_gives_the_same_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        encoder = make_encoder(decoder={"heads": 2, "checkpointing": checkpointing}).train()
        torch.stack([level.square().mean() for level in encoder(pyramid())[0]]).sum().backward()
        gradients.append(encoder.attention.get_parameter("attention.to_value.weight").grad)
    torch.testing.assert_close(*gradients)
