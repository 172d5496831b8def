"""Regularised masking: each reading written again row by row, and what it must never do."""

from dataclasses import replace

import pytest
import torch

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.block import Attention
from otic.models.regularise import Barred, Regularise

MODES = ["key", "self", "query_mean"]


def attention(seed="attention"):
    layer, gen = Attention(16, 2), generator(seed)
    with torch.no_grad():
        for p in layer.parameters():
            p.normal_(0.0, 0.5, generator=gen)
    return layer


def by_hand(layer, x, barred, mode):
    """One clip, one head, one query at a time."""
    out = torch.zeros_like(x)
    for clip in range(len(x)):
        q, k, v = (p.view(-1, 2, 8) for p in layer.qkv(x[clip]).split(16, -1))
        for head in range(2):
            rows = []
            for i in range(x.shape[1]):
                logits = torch.stack([q[i, head] @ k[j, head] / 8**0.5 for j in range(x.shape[1])])
                if mode == "key":
                    logits[barred[clip]] = -torch.inf
                if mode == "self" and barred[clip, i]:
                    logits[i] = -torch.inf
                rows.append(logits.softmax(0))
            rows = torch.stack(rows)
            if mode == "query_mean":
                rows[barred[clip]] = rows[~barred[clip]].mean(0)
            out[clip, :, 8 * head : 8 * head + 8] = rows @ v[:, head]
    return layer.proj(out)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_row_by_row(mode):
    layer, x = attention(), torch.randn(2, 7, 16, generator=generator("x"))
    barred = torch.tensor([[0, 1, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1]], dtype=torch.bool)
    got = layer(x, Barred(barred, mode))
    torch.testing.assert_close(got, by_hand(layer, x, barred, mode), atol=1e-5, rtol=1e-5)
    assert not torch.allclose(got, layer(x), atol=1e-3)
    half = layer.bfloat16()(x.bfloat16(), Barred(barred, mode)).float()  # plain products instead of the fused kernel
    assert (half - got).norm() < 0.03 * got.norm()


@torch.no_grad()
def test_key_gives_others_nothing_of_what_is_barred():
    layer, x = attention(), torch.randn(1, 6, 16, generator=generator("x"))
    barred = torch.tensor([[False, True, False, False, True, False]])
    changed = torch.where(barred[..., None], x + 3.0, x)
    first, again = (layer(y, Barred(barred, "key")) for y in (x, changed))
    torch.testing.assert_close(first[~barred], again[~barred])
    assert not torch.allclose(first[barred], again[barred])  # their own query still asks


@pytest.mark.parametrize(
    "patches, ratio, count", [(512, 0.1, 51), (10, 0.5, 5), (3, 0.99, 2), (4, 0.1, 0), (1, 0.9, 0)]
)
def test_how_many_and_whom(patches, ratio, count):
    barred = Regularise(ratio=ratio).barred(4, patches, 1, generator(0))
    if not count:
        assert barred is None
        return
    assert barred.tokens.shape == (4, patches + 1) and not barred.tokens[:, 0].any()
    assert (barred.tokens.sum(1) == count).all()


def test_every_patch_equally_often():
    shares = torch.stack([Regularise().barred(64, 40, 0, generator(k)).tokens.float().mean(0) for k in range(40)])
    assert (shares.mean(0) - 0.1).abs().max() < 0.03


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_in_the_encoder(mode, norm):
    encoder = ViT(ViTConfig(width=32, depth=3, heads=4, norm=norm), generator("encoder"))
    tokens, _ = encoder.tokens(torch.randn(2, 1, 64, 128, generator=generator("spec")))
    rm = Regularise(ratio=0.3, mode=mode)

    def run(rm, seed=0):
        return encoder.encode(tokens, regularise=rm, gen=generator(seed)).patches

    plain = encoder.encode(tokens).patches
    assert not torch.equal(run(rm), plain)
    assert torch.equal(run(rm), run(rm)) and not torch.equal(run(rm), run(rm, 1))
    assert torch.equal(run(replace(rm, ratio=0.0)), plain)
    encoder.eval()
    assert torch.equal(run(rm), plain)  # plain attention at test time


def test_another_draw_in_each_layer(monkeypatch):
    drawn = []
    real = Regularise.barred
    monkeypatch.setattr(Regularise, "barred", lambda self, *args: (drawn.append(real(self, *args)), drawn[-1])[1])
    encoder = ViT(ViTConfig(width=32, depth=3, heads=4))
    tokens, _ = encoder.tokens(torch.zeros(2, 1, 64, 128))
    encoder.encode(tokens, regularise=Regularise(), gen=generator(0))
    assert len(drawn) == 3
    assert not torch.equal(drawn[0].tokens, drawn[1].tokens)
    assert not torch.equal(drawn[0].tokens[0], drawn[0].tokens[1])


def test_a_share_of_all_is_refused():
    with pytest.raises(ConfigError, match=r"rm\.ratio=1"):
        Regularise(ratio=1.0)
