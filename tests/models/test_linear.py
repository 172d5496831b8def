"""Linear layers of inference: the numbers of the plain way, of a row in any company, and of the weights as they are."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.core.seeds import generator
from otic.models import linear as module
from otic.models.htsat import HTSAT, HTSATConfig
from otic.models.linear import inference_dtype, linear
from otic.models.swin import SwinAttention

GELUS = pytest.mark.parametrize("gelu", [None, "none", "tanh"])


def layer(d=48, e=96, bias=True):
    made, gen = torch.nn.Linear(d, e, bias), generator("linear")
    for p in made.parameters():
        p.data.normal_(0, 0.3, generator=gen)
    return made


def rows(*shape):
    return torch.randn(*shape, generator=generator("rows", *shape))


def plain(one, x, gelu):
    y = F.linear(x, one.weight, one.bias)
    return y if gelu is None else F.gelu(y, approximate=gelu)


@GELUS
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_the_plain_way(gelu, bias, monkeypatch):
    one = layer(bias=bias)
    for fused in (module.FUSED, False):
        monkeypatch.setattr(module, "FUSED", fused)
        for shape in ((48,), (1, 48), (3, 5, 48), (0, 48), (2, 0, 48)):
            x = rows(*shape)
            torch.testing.assert_close(linear(one, x, gelu), plain(one, x, gelu), atol=2e-5, rtol=1e-5)
            with torch.autocast("cpu", torch.bfloat16):
                got = linear(one, x, gelu)
            assert got.dtype == torch.bfloat16
            torch.testing.assert_close(got.float(), plain(one, x, gelu), atol=0.1, rtol=0.02)


@given(st.integers(1, 70), st.sampled_from([None, "none", "tanh"]), st.booleans())
@settings(max_examples=25, deadline=None)
@torch.no_grad()
def test_company_changes_no_bit(count, gelu, bf16):
    one, x = layer(1536, 24), rows(70, 1536)
    if inference_dtype(one.weight) is None:
        pytest.skip("this torch has no fused linear layers")
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        assert torch.equal(linear(one, x, gelu)[:count], linear(one, x[:count], gelu))


@torch.no_grad()
def test_weights_may_change():
    one, x = layer(), rows(4, 48)
    for change in (
        lambda: one.weight.mul_(2),
        lambda: one.bias.add_(1),
        lambda: one.load_state_dict(layer().state_dict()),
    ):
        linear(one, x)
        change()
        torch.testing.assert_close(linear(one, x), plain(one, x, None), atol=2e-5, rtol=1e-5)
    one.weight = torch.nn.Parameter(rows(96, 48))
    torch.testing.assert_close(linear(one, x), plain(one, x, None), atol=2e-5, rtol=1e-5)


def test_fused_optimizers_change_weights_without_a_word():
    layer, x = torch.nn.Linear(8, 6), rows(4, 8)
    with torch.no_grad():
        before = linear(layer, x)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    layer(x).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        assert not torch.allclose(linear(layer, x), before)
        assert torch.allclose(linear(layer, x), F.linear(x, layer.weight, layer.bias), atol=1e-6)


def test_gradients_and_exporters_go_the_plain_way():
    one, x = layer(), rows(4, 48).requires_grad_()
    y = linear(one, x, "tanh")
    assert torch.equal(y, plain(one, x, "tanh"))
    y.sum().backward()
    assert x.grad is not None and one.weight.grad is not None
    with torch.no_grad():
        assert inference_dtype(one.double().weight) is None
    with torch.inference_mode():
        assert inference_dtype(layer().weight) is None  # it may change unseen


def test_copies_go_with_their_layer():
    one, before = layer(), len(module._laid)
    with torch.no_grad():
        linear(one, rows(2, 48))
    del one
    assert len(module._laid) <= before


@torch.no_grad()
def test_clips_go_through_a_stage_in_parts(monkeypatch):
    """Company changes no clip, in either precision."""
    cfg = HTSATConfig(width=8, depths=(2, 2), heads=(2, 2), window=4, image=32, mels=8, classes=0)
    encoder, spec = HTSAT(cfg).eval(), 20 * rows(5, 1, 100, 8) - 50
    for p in encoder.parameters():
        p.add_(0.1 * rows(*p.shape))
    for bf16 in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            want = encoder(spec).patches
            for cache in (1, 1 << 10, 1 << 30):
                monkeypatch.setattr("otic.models.swin.CACHE", cache)
                torch.testing.assert_close(encoder(spec).patches, want, atol=1e-6, rtol=0)
            torch.testing.assert_close(encoder(spec[3:4]).patches, want[3:4], atol=1e-6, rtol=0)


def test_bf16_attention_is_computed_in_float32():
    """What comes out is that of float32, up to the rounding of the linear layers."""
    attention, x = SwinAttention(16, 2, 4).eval(), rows(2, 32, 16)
    for p in attention.parameters():
        p.data.add_(0.3 * rows(*p.shape))
    with torch.no_grad():
        want = attention(x)
        with torch.autocast("cpu", torch.bfloat16):
            got = attention(x)
    assert (got.float() - want).abs().max() <= 0.02 * want.abs().max()
