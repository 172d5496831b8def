"""Inverse block masks against the per-clip rule written again, and their laws."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic import masking
from otic.core.errors import ConfigError, OticWarning
from otic.core.seeds import generator, rng
from otic.masking.blocks import squares

GRIDS = st.tuples(st.integers(1, 40), st.integers(1, 10))


def rule(grid, keep, adjust, block, draw):
    """The published sampler for one clip, as a loop (with its counts before the correction)."""
    kept = np.zeros(grid, bool)
    n = grid[0] * grid[1]
    for centre in draw.integers(0, n, int(n * ((keep + adjust) / block**2))):
        t, f = divmod(int(centre), grid[1])
        for dt in range(-(block // 2), block - block // 2):
            for df in range(-(block // 2), block - block // 2):
                kept[min(max(t + dt, 0), grid[0] - 1), min(max(f + df, 0), grid[1] - 1)] = True
    before = int(kept.sum())
    flat, k = kept.ravel(), int(n * keep)
    if before > k:
        flat[draw.choice(np.flatnonzero(flat), before - k, replace=False)] = False
    elif before < k:
        flat[draw.choice(np.flatnonzero(~flat), k - before, replace=False)] = True
    return flat, before


@pytest.mark.parametrize(
    "grid, keep, adjust, block", [((64, 8), 1 - 0.8, 0.07, 5), ((20, 6), 0.3, 0.1, 4), ((9, 9), 0.5, 0.2, 3)]
)
def test_same_distribution_as_the_loop(grid, keep, adjust, block):
    draw, count = rng("loop", *grid), 4000
    theirs = np.stack([rule(grid, keep, adjust, block, draw)[0] for _ in range(count)])
    ours = masking.inverse_block(
        count, grid, keep=keep, adjust=adjust, block=block, gen=generator("ours", *grid)
    ).numpy()
    error = np.sqrt(2 * theirs.mean(0).clip(0.02) / count)  # standard error of a difference of two shares
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 5 * error).all()

    def neighbours(masks):
        m = masks.reshape(count, *grid)
        return (m[:, 1:] & m[:, :-1]).sum((1, 2)) + (m[:, :, 1:] & m[:, :, :-1]).sum((1, 2))

    a, b = neighbours(ours), neighbours(theirs)
    assert abs(a.mean() - b.mean()) < 5 * np.hypot(a.std(), b.std()) / np.sqrt(count)
    assert a.std() == pytest.approx(b.std(), rel=0.1)


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, keep=st.floats(0.05, 1.0), block=st.integers(1, 9), seed=st.integers(0, 99))
def test_exact_count_and_same_seed_same_mask(grid, keep, block, seed):
    if int(grid[0] * grid[1] * keep) == 0:
        with pytest.raises(ConfigError, match="visible tokens"):
            masking.inverse_block(3, grid, keep=keep, block=block, gen=generator(seed))
        return

    def draw():
        return masking.inverse_block(3, grid, keep=keep, block=block, gen=generator(seed), at_least=0)

    assert draw().sum(1).tolist() == [int(grid[0] * grid[1] * keep)] * 3
    assert torch.equal(draw(), draw())


@settings(max_examples=60, deadline=None)
@given(grid=GRIDS, block=st.integers(1, 9), seed=st.integers(0, 99))
def test_one_block_is_a_rectangle_round_its_centre(grid, block, seed):
    mask = squares(1, grid, 1, block, generator(seed)).view(grid)
    centre = int(torch.randint(grid[0] * grid[1], (1, 1), generator=generator(seed)))
    expect = torch.zeros(grid, dtype=torch.bool)
    t, f = divmod(centre, grid[1])
    low = block // 2
    expect[max(0, t - low) : t + block - low, max(0, f - low) : f + block - low] = True
    assert torch.equal(mask, expect)


def test_published_counts():
    masks = (masking.inverse_block(9, (64, 8), keep=0.2, gen=generator(1), **kw) for kw in ({}, {"adjust": 0.07}))
    assert torch.equal(*masks)
    assert masking.block_count((64, 8), share=1 - 0.8, adjust=0.07, block=5) == 5
    assert masking.block_count((64, 8), share=1 - 0.75, adjust=0.1, block=5) == 7
    assert masking.block_count((32, 8), share=1 - 0.8, adjust=0.07, block=5) == 2
    assert masking.block_count((8, 8), share=1 - 0.8, adjust=0.07, block=5) == 0


def test_no_block_warns_and_can_be_mended():
    with pytest.warns(OticWarning, match="8x8 grid: no 5x5 block"):
        masking.inverse_block(2, (8, 8), keep=0.2, gen=generator(0))
    mended = masking.inverse_block(500, (8, 8), keep=0.2, gen=generator(0), at_least=1).view(-1, 8, 8)
    uniform = masking.inverse_block(500, (8, 8), keep=0.2, gen=generator(0), at_least=0).view(-1, 8, 8)
    together = [(m[:, 1:] & m[:, :-1]).sum().item() for m in (mended, uniform)]
    assert together[0] > 2 * together[1]


def test_hidden_blocks():
    masks = masking.block(400, (16, 8), keep=0.6, block=4, gen=generator(3))
    assert masks.sum(1).unique().tolist() == [int(128 * 0.6)]
    hidden = ~masks.view(-1, 16, 8)
    loose = ~masking.random(400, (16, 8), keep=0.6, gen=generator(3)).view(-1, 16, 8)
    assert (hidden[:, 1:] & hidden[:, :-1]).sum() > 1.5 * (loose[:, 1:] & loose[:, :-1]).sum()
    draw = rng("hidden blocks")  # the published rule on the hidden share
    theirs = np.stack([rule((16, 8), 0.25, 0.0, 4, draw)[0] for _ in range(2000)]).reshape(-1, 16, 8)
    ours = ~masking.block(2000, (16, 8), keep=0.75, block=4, gen=generator(4)).view(-1, 16, 8)
    near = [(m[:, 1:] & m[:, :-1]).sum() / len(m) for m in (ours.numpy(), theirs)]
    assert near[0] == pytest.approx(near[1], rel=0.05)


def test_block_below_one_is_refused():
    with pytest.raises(ConfigError, match="block=0"):
        masking.inverse_block(1, (8, 8), keep=0.5, block=0, gen=generator(0))
