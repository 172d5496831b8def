"""The transformer decoder: what it is given, what it answers, its positions."""

import pytest
import torch

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import DecoderShape, TransformerDecoder
from otic.models.positions import sincos

GRID = (5, 4)
SHAPES = {
    "global": DecoderShape(width=16, depth=2, heads=2),
    "local": DecoderShape(decoder="local", width=16, depth=2, heads=2, bias_hidden=8),
}


def build(kind, **more):
    shape = DecoderShape(**{**vars(SHAPES[kind]), **more})
    return TransformerDecoder(12, shape, 7, generator("decoder")).eval()


def inputs(rows=2, k=6):
    gen = generator("inputs")
    visible = torch.zeros(rows, 20, dtype=torch.bool)
    for row in visible:
        row[torch.randperm(20, generator=gen)[:k]] = True
    return torch.randn(rows, k, 12, generator=gen), visible, torch.randn(rows, 12, generator=gen)


@pytest.mark.parametrize("kind", SHAPES)
def test_everything_stands_at_its_place(kind):
    decoder, (tokens, visible, cls) = build(kind), inputs()
    filled = decoder.fill(tokens, visible, GRID, cls)
    assert filled.shape == (2, 20 + (kind == "global"), 16)
    if kind == "global":
        assert torch.allclose(filled[:, 0], decoder.embed(cls))
        filled = filled[:, 1:]
    codes = sincos(GRID, 16)
    for r in range(2):
        seen = iter(decoder.embed(tokens[r]))
        for n in range(20):
            content = next(seen) if visible[r, n] else decoder.mask_token[0, 0]
            assert torch.allclose(filled[r, n], content + codes[n], atol=1e-6)


@pytest.mark.parametrize("kind", SHAPES)
def test_answers_for_every_patch_with_and_without_cls(kind):
    decoder, (tokens, visible, cls) = build(kind), inputs()
    plain, told = decoder(tokens, visible, GRID), decoder(tokens, visible, GRID, cls)
    assert plain.shape == told.shape == (2, 20, 7)
    assert torch.equal(plain, told) == (kind == "local")  # windows have no place for it


@pytest.mark.parametrize("kind", SHAPES)
def test_first_weights_come_from_the_generator(kind):
    first, again = build(kind).state_dict(), build(kind).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    weight = first["blocks.1.mlp.fc1.weight"]
    assert weight.abs().max().item() <= (6 / sum(weight.shape)) ** 0.5 < 1.05 * weight.abs().max().item()
    assert not first["blocks.0.attn.qkv.bias"].any() and 0 < first["mask_token"].std() < 0.04


@pytest.mark.parametrize("depth, far", [(1, 4), (2, 8)])
def test_the_second_block_looks_over_the_border_of_the_first(depth, far):
    """The answer in the third row of 16: it reads its own window, and then those which the shift connects."""
    decoder = build("local", depth=depth)
    tokens = torch.randn(1, 64, 12, generator=generator("tokens")).requires_grad_()
    decoder(tokens, torch.ones(1, 64, dtype=torch.bool), (16, 4))[0, 2 * 4].sum().backward()
    reached = tokens.grad[0].abs().amax(1).view(16, 4) > 0
    assert reached[:far].all() and not reached[far:].any()


def test_tables_are_kept_and_shorter_clips_read_a_prefix():
    for positions, table in (("legacy", (5, 4)), ("table", (20, 1))):
        decoder = build("global", positions=positions, table=table)
        codes = decoder.state_dict()["position_table"]
        assert torch.equal(codes, sincos((4, 5) if positions == "legacy" else (20, 1), 16))
        assert torch.equal(decoder.positions((3, 4)), codes[:12])
        with pytest.raises(ConfigError, match="24 patches, but the decoder's position table ends at 20"):
            decoder.positions((6, 4))
    assert "position_table" not in build("global").state_dict()


@pytest.mark.parametrize(
    "wrong, says",
    [
        ({"heads": 3}, "multiple of 4 and of heads"),
        ({"width": 18}, "multiple of 4"),
        ({"shift": (4, 0)}, "within its window"),
        ({"table": (5, 4)}, "do not go together"),
        ({"positions": "table"}, "do not go together"),
    ],
)
def test_settings_that_do_not_fit(wrong, says):
    with pytest.raises(ConfigError, match=says):
        build("local", **wrong)
