"""Random masks and strips: exact counts, uniform marginals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic import masking
from otic.core.errors import ConfigError
from otic.core.seeds import generator

GRIDS = st.tuples(st.integers(1, 40), st.integers(1, 10))


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, keep=st.floats(0, 1), seed=st.integers(0, 99))
def test_exact_count_or_refusal(grid, keep, seed):
    k = int(grid[0] * grid[1] * keep)
    if k == 0:
        with pytest.raises(ConfigError, match="visible tokens"):
            masking.random(2, grid, keep=keep, gen=generator(seed))
    else:
        mask = masking.random(2, grid, keep=keep, gen=generator(seed))
        assert mask.sum(1).tolist() == [k, k]
        assert torch.equal(mask, masking.random(2, grid, keep=keep, gen=generator(seed)))


def test_random_is_uniform_and_rows_differ():
    masks = masking.random(4000, (16, 8), keep=0.25, gen=generator(1))
    assert (masks.float().mean(0) - 0.25).abs().max() < 5 * np.sqrt(0.25 * 0.75 / 4000)
    overlap = (masks[0::2] & masks[1::2]).sum(1).float().mean()
    assert float(overlap) == pytest.approx(128 * 0.25**2, rel=0.05)


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, time=st.floats(0.1, 1), freq=st.floats(0.1, 1), seed=st.integers(0, 99))
def test_strips_are_whole_rows_and_columns(grid, time, freq, seed):
    if min(int(grid[0] * time), int(grid[1] * freq)) == 0:
        with pytest.raises(ConfigError, match="leaves 0"):
            masking.strips(2, grid, keep_time=time, keep_freq=freq, gen=generator(seed))
        return
    masks = masking.strips(2, grid, keep_time=time, keep_freq=freq, gen=generator(seed)).view(2, *grid)
    steps, rows = masks.any(2), masks.any(1)
    assert torch.equal(masks, steps[:, :, None] & rows[:, None, :])
    assert steps.sum(1).tolist() == [int(grid[0] * time)] * 2
    assert rows.sum(1).tolist() == [int(grid[1] * freq)] * 2


def test_strips_are_drawn_for_each_clip():
    masks = masking.strips(60, (16, 8), keep_time=0.5, keep_freq=0.5, gen=generator(2)).view(60, 16, 8)
    for kept in (masks.any(2), masks.any(1)):
        assert len(kept.unique(dim=0)) > 30
        assert (kept.float().mean(0) - 0.5).abs().max() < 5 * 0.5 / 60**0.5


def test_bad_shares_and_grids_are_refused():
    with pytest.raises(ConfigError, match=r"keep=1.5"):
        masking.random(1, (4, 4), keep=1.5, gen=generator(0))
    with pytest.raises(ConfigError, match="at least 1"):
        masking.random(1, (0, 8), keep=0.5, gen=generator(0))
    with pytest.raises(ConfigError, match="keep_freq=2"):
        masking.strips(1, (4, 4), keep_time=0.5, keep_freq=2.0, gen=generator(0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_masks_live_where_their_generator_lives():
    mask = masking.inverse_block(4, (64, 8), keep=0.2, gen=generator(0, device="cuda"))
    assert mask.device.type == "cuda" and mask.sum(1).tolist() == [102] * 4
