from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from otic import masking
from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.positions import fit, sincos

TINY = ViTConfig(width=32, depth=3, heads=4)
KINDS = {
    "eat": TINY,
    "pre-norm": replace(TINY, norm="pre"),
    "no cls": replace(TINY, cls=False),
    "two tokens, learned": replace(TINY, norm="pre", dist=True, positions="learned", table=(8, 8)),
    "overlapping": replace(TINY, norm="pre", stride=(10, 10), positions="learned", table=(8, 8)),
    "frames": replace(TINY, norm="pre", patch=(2, 128), positions="learned", table=(64, 1)),
    "stored codes": replace(TINY, positions="table", table=(64, 8)),
}


def spec(frames, clips=2, seed=0):
    return torch.randn(clips, 1, frames, 128, generator=generator("test", seed))


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def encoder(request):
    return ViT(request.param).eval()


@torch.no_grad()
@pytest.mark.parametrize("frames", [16, 100, 128, 300])
def test_any_length(encoder, frames):
    tokens, grid = encoder.tokens(spec(frames))
    assert tokens.shape == (2, grid[0] * grid[1], 32)
    patch, step = encoder.cfg.patch, encoder.cfg.step
    assert grid == ((frames - patch[0]) // step[0] + 1, (128 - patch[1]) // step[1] + 1)
    encoded = encoder.encode(tokens, taps=True)
    assert encoded.patches.shape == tokens.shape
    assert (encoded.cls is not None) == encoder.cfg.cls and (encoded.dist is not None) == encoder.cfg.dist
    assert len(encoded.layers) == len(encoded.ffn) == encoder.depth
    assert all(x.shape == (2, encoder.cfg.extra + tokens.shape[1], 32) for x in encoded.layers + encoded.ffn)
    last = encoded.layers[-1] if encoder.norm is None else encoder.norm(encoded.layers[-1])
    assert torch.equal(last[:, encoder.cfg.extra :], encoded.patches)
    assert torch.equal(encoder(spec(frames)).patches, encoded.patches)


@torch.no_grad()
def test_clips_do_not_touch_each_other(encoder):
    both, alone = encoder(spec(128)), encoder(spec(128)[1:])
    torch.testing.assert_close(both.patches[1:], alone.patches, atol=2e-6, rtol=0)


@torch.no_grad()
def test_hidden_tokens_have_no_influence(encoder):
    tokens, grid = encoder.tokens(spec(128))
    visible = masking.random(2, grid, keep=0.4, gen=generator(1))
    seen = encoder.encode(tokens, visible)
    noise = torch.randn(tokens.shape, generator=generator(2))
    other = torch.where(visible[..., None], tokens, noise)
    assert torch.equal(seen.patches, encoder.encode(other, visible).patches)
    full = encoder.encode(tokens, torch.ones_like(visible))
    torch.testing.assert_close(full.patches, encoder.encode(tokens).patches)


@torch.no_grad()
def test_views_of_a_clip_equal_a_repeated_clip():
    encoder = ViT(TINY)
    tokens, grid = encoder.tokens(spec(128))
    visible = masking.random(6, grid, keep=0.25, gen=generator(3))
    views = encoder.encode(tokens, visible)
    repeated = encoder.encode(tokens.repeat_interleave(3, 0), visible)
    torch.testing.assert_close(views.patches, repeated.patches)
    torch.testing.assert_close(views.cls, repeated.cls)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_block_is_its_formula(norm):
    encoder = ViT(replace(TINY, norm=norm, depth=1)).double()
    for p in encoder.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=generator(norm), dtype=p.dtype))
    block, x = encoder.blocks[0], torch.randn(2, 7, 32, generator=generator(4), dtype=torch.float64)

    def attend(x):
        q, k, v = (F.linear(x, w, b) for w, b in zip(block.attn.qkv.weight.chunk(3), block.attn.qkv.bias.chunk(3)))
        heads = []
        for h in range(4):
            part = slice(8 * h, 8 * h + 8)
            weights = (q[..., part] @ k[..., part].mT / 8**0.5).softmax(-1)
            heads.append(weights @ v[..., part])
        return block.attn.proj(torch.cat(heads, -1))

    def ffn(x):
        y = block.mlp.fc1(x)
        return block.mlp.fc2(y * 0.5 * (1 + torch.erf(y / 2**0.5)))

    if norm == "pre":
        y = x + attend(block.norm1(x))
        raw = ffn(block.norm2(y))
        want = y + raw
    else:
        y = block.norm1(x + attend(x))
        raw = ffn(y)
        want = block.norm2(y + raw)
    got, got_raw = block(x)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(got_raw, raw)


def test_sincos_is_its_formula():
    code = sincos((3, 2), 16)
    for t in range(3):
        for f in range(2):
            row = []
            for p in (f, t):
                angles = [p * 10000 ** (-k / 4) for k in range(4)]
                row += [torch.sin(torch.tensor(a)) for a in angles] + [torch.cos(torch.tensor(a)) for a in angles]
            torch.testing.assert_close(code[2 * t + f], torch.stack(row), atol=1e-6, rtol=0)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 30))
def test_a_shorter_sincos_table_is_a_prefix(time, freq, more):
    long, short = sincos((time + more, freq), 8), sincos((time, freq), 8)
    assert torch.equal(long[: len(short)], short)
    assert torch.equal(long[len(short) :], sincos((more, freq), 8, start=time))


def test_positions_go_on_where_the_stored_table_ends():
    encoder = ViT(replace(TINY, table=(4, 8)))
    assert torch.equal(encoder.positions((9, 8)), sincos((9, 8), 32))
    assert "position_table" in encoder.state_dict()
    assert "position_table" not in ViT(TINY).state_dict()
    with pytest.raises(ConfigError, match="the position table ends at 32"):
        ViT(replace(TINY, positions="table", table=(4, 8)))(spec(80))


def test_learned_table_is_cropped_at_its_centre_or_stretched():
    table = torch.arange(8 * 4, dtype=torch.float32)[:, None].expand(-1, 4).contiguous()  # row 4 t + f
    assert torch.equal(fit(table, (8, 4), (8, 4)), table)
    # SSAST section 4: columns [pt//2 - t//2, + t)
    want = torch.tensor([4 * t + f for t in (2, 3, 4, 5) for f in range(4)], dtype=torch.float32)
    assert torch.equal(fit(table, (8, 4), (4, 4))[:, 0], want)
    stretched = fit(table, (8, 4), (16, 4))[:, 0].view(16, 4)
    assert torch.allclose(stretched[:, 1] - stretched[:, 0], torch.ones(16))
    assert torch.allclose(stretched[2:14].diff(dim=0), torch.full((11, 4), 2.0))
    both = fit(table, (8, 4), (4, 12))
    assert both.shape == (48, 4)
    resized = fit(table, (8, 4), (4, 4), crop=False)[:, 0].view(4, 4)
    assert torch.allclose(resized.diff(dim=0), torch.full((3, 4), 8.0))


def test_published_sizes():
    """eat.md section 1; ssast.md section 2.1 for the encoder with two tokens and learned positions."""

    def count(cfg):
        with torch.device("meta"):
            return sum(p.numel() for p in ViT(cfg).parameters())

    assert count(ViTConfig()) == 85_254_144
    assert count(ViTConfig(width=1024, depth=24, heads=16)) == 302_575_616
    ast = {"norm": "pre", "dist": True, "positions": "learned", "table": (64, 8)}
    assert count(ViTConfig(width=192, heads=3, **ast)) == 5_487_168
    assert count(ViTConfig(**ast)) == 85_649_664


def test_initial_weights_come_from_the_generator():
    first, same, other = (ViT(TINY, generator("init", seed)).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])
    assert first["blocks.0.mlp.fc1.weight"].std() == pytest.approx(0.02, rel=0.1)
    assert first["extra_tokens"].std() == pytest.approx(1.0, rel=0.3)


@pytest.mark.parametrize(
    "rule, bound, std, bias",
    [
        ("xavier", (6 / (192 + 256)) ** 0.5, (2 / (192 + 256)) ** 0.5, 1 / 16),
        ("default", 1 / 16, 1 / 16 / 3**0.5, 1 / 16),
        ("normal", 6 * 0.02, 0.02, 0.0),  # no value as far out as six deviations
    ],
)
@pytest.mark.parametrize("init", ["normal", "xavier", "shrunk"])
@torch.no_grad()
def test_first_weights_of_the_patch_embedding(rule, bound, std, bias, init):
    bound, bias = bound * (1 + 1e-6), bias * (1 + 1e-6)  # float32 rounds
    cfg = ViTConfig(width=192, depth=1, heads=3, init=init, patch_init=rule)
    proj = ViT(cfg, generator("patches")).proj
    assert float(proj.weight.std()) == pytest.approx(std, rel=0.02)
    assert (0.99 if rule != "normal" else 0.5) * bound < float(proj.weight.abs().max()) <= bound
    assert 0.95 * bias <= float(proj.bias.abs().max()) <= bias
    assert torch.equal(proj.weight, ViT(cfg, generator("patches")).proj.weight)


def test_a_config_without_the_patches_rule_means_xavier():
    stored = {name: value for name, value in to_dict(TINY).items() if name != "patch_init"}
    assert from_dict(ViTConfig, stored) == TINY and TINY.patch_init == "xavier"


def test_drop_path_needs_and_obeys_its_generator():
    encoder = ViT(replace(TINY, drop_path=0.9)).train()
    assert [b.drop_path for b in encoder.blocks] == pytest.approx([0, 0.45, 0.9])
    tokens = encoder.tokens(spec(64, clips=40))[0]
    with pytest.raises(AssertionError, match="pass gen"):
        encoder.encode(tokens)
    first, again, other = (encoder.encode(tokens, gen=generator(s)).patches for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    encoder.eval()
    assert torch.equal(encoder.encode(tokens).patches, encoder.encode(tokens, gen=generator(0)).patches)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"width": 30}, "multiple of 4"),
        ({"heads": 5}, "heads=5"),
        ({"patch": (16, 256)}, "wider than the 128"),
        ({"positions": "learned"}, "needs table"),
    ],
)
def test_impossible_shapes(change, says):
    with pytest.raises(ConfigError, match=says):
        ViT(replace(TINY, **change))


def test_wrong_input():
    encoder = ViT(TINY)
    with pytest.raises(ConfigError, match="less than one patch"):
        encoder(spec(15))
    with pytest.raises(ConfigError, match="64 mel bins"):
        encoder(torch.zeros(1, 1, 64, 64))
