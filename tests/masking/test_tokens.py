"""Gather and scatter: the visible tokens out, and back in."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic import masking
from otic.core.seeds import generator


@settings(max_examples=40, deadline=None)
@given(b=st.integers(1, 4), t=st.integers(1, 12), f=st.integers(1, 6), keep=st.floats(0.1, 1), seed=st.integers(0, 9))
def test_gather_then_scatter_restores(b, t, f, keep, seed):
    visible = masking.random(b, (t, f), keep=max(keep, 1 / (t * f)), gen=generator(seed))
    tokens = torch.randn(b, t * f, 3, generator=generator(seed, "x"))
    seen = masking.gather(tokens, visible)
    assert torch.equal(seen.flatten(0, 1), tokens[visible])
    fill = torch.randn(b, t * f, 3, generator=generator(seed, "fill"))
    whole = masking.scatter(seen, visible, fill)
    assert torch.equal(whole[visible], tokens[visible])
    assert torch.equal(whole[~visible], fill[~visible])


def test_clones_share_their_clip():
    tokens = torch.randn(2, 12, 5, generator=generator(0))
    visible = masking.random(6, (4, 3), keep=0.5, gen=generator(1))
    repeated = tokens.repeat_interleave(3, 0)
    assert torch.equal(masking.gather(tokens, visible), masking.gather(repeated, visible))
    assert torch.equal(masking.gather(tokens, visible, 6), masking.gather(tokens, visible))


def test_gradients_flow_through_both():
    visible = masking.random(4, (4, 3), keep=0.5, gen=generator(1))
    tokens = torch.randn(2, 12, 5, generator=generator(0)).requires_grad_()
    fill = torch.zeros(4, 12, 5).requires_grad_()
    whole = masking.scatter(masking.gather(tokens, visible), visible, fill)
    whole.sum().backward()
    assert torch.equal(tokens.grad[..., 0], visible.view(2, 2, 12).sum(1).float())
    assert torch.equal(fill.grad[..., 0], (~visible).float())


def test_scatter_takes_the_dtype_of_what_was_seen():
    visible = masking.random(1, (2, 2), keep=0.5, gen=generator(1))
    seen = torch.ones(1, 2, 3, dtype=torch.bfloat16)
    assert masking.scatter(seen, visible, torch.zeros(1, 4, 3)).dtype == torch.bfloat16


def test_unequal_rows_are_refused():
    with pytest.raises(AssertionError, match="different numbers"):
        masking.positions(torch.tensor([[True, False], [True, True]]))


def test_rows_are_filled_up():
    visible = torch.tensor([[False, True, False, True], [True, False, False, False]])
    tokens = torch.arange(4.0).view(1, 4, 1).expand(2, 4, 1)
    lone = masking.spare(visible)
    assert lone.tolist() == [[False, False], [False, True]] and masking.spare(visible[:1]) is None
    assert masking.gather(tokens, visible, 2)[..., 0].tolist() == [[1, 3], [0, 1]]
