"""Multi-block masks: the published statistics of grid-relative blocks, and their laws on any grid."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic import masking
from otic.core.errors import ConfigError
from otic.core.seeds import generator

CROSS = {"targets": 3, "scale": (0.05, 0.075), "remove": "cross"}


def sample(grid, steps=400, **settings):
    views = [masking.multi_block(4, grid, gen=generator(step, *grid), **settings) for step in range(steps)]
    return torch.cat([v.context[:, 0] for v in views]), torch.cat([v.targets.any(1) for v in views])


@pytest.mark.parametrize(
    "grid, kind, block, union, context, low, high",  # shares of the grid; the context's 1st and 99th percentile
    [
        ((64, 8), {}, 0.176, 0.481, 0.468, 0.258, 0.662),
        ((64, 8), CROSS, 0.066, 0.182, 0.165, 0.043, 0.361),
        ((32, 8), {}, 0.176, 0.485, 0.464, 0.25, 0.66),
        ((32, 8), CROSS, 0.066, 0.182, 0.163, 0.043, 0.371),
        ((8, 8), {}, 0.176, 0.499, 0.470, 0.22, 0.69),
        ((8, 8), CROSS, 0.064, 0.179, 0.169, 4 / 64, 0.391),  # fewer than four tokens are drawn again
    ],
)
def test_shares_of_the_default_sampler(grid, kind, block, union, context, low, high):
    views = [masking.multi_block(4, grid, gen=generator(step, *grid), **kind) for step in range(400)]
    seen = torch.cat([v.context[:, 0] for v in views]).float().mean(1)
    assert float(torch.cat([v.targets for v in views]).float().mean()) == pytest.approx(block, abs=0.02)
    assert float(torch.cat([v.targets.any(1) for v in views]).float().mean()) == pytest.approx(union, abs=0.02)
    assert float(seen.mean()) == pytest.approx(context, abs=0.02)
    assert float(seen.quantile(0.01)) == pytest.approx(low, abs=0.03)
    assert float(seen.quantile(0.99)) == pytest.approx(high, abs=0.03)


@pytest.mark.parametrize("kind", [{}, CROSS])
def test_every_row_and_column_is_context_and_target(kind):
    seen, covered = (m.view(-1, 16, 8) for m in sample((16, 8), **kind))
    for mask in (seen, covered):
        assert mask.any(2).float().mean(0).min() > 0.03
        assert mask.any(1).float().mean(0).min() > 0.03


@settings(max_examples=50, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 24), st.integers(1, 9)).filter(lambda g: g[0] * g[1] > 1),
    remove=st.sampled_from(["blocks", "time", "freq", "cross"]),
    targets=st.integers(1, 4),
    top=st.floats(0.05, 0.9),
    seed=st.integers(0, 50),
)
def test_laws(grid, remove, targets, top, seed):
    def draw():
        return masking.multi_block(
            3, grid, targets=targets, scale=(0.05, top), remove=remove, min_keep=1, gen=generator(seed)
        )

    seen, blocks = draw()
    assert torch.equal(seen, draw().context)
    seen = seen[:, 0]
    assert seen.any(1).all()
    assert blocks.sum(2).unique().numel() == 1  # equally large, so that they stack
    for block in blocks.flatten(0, 1).view(-1, *grid):
        rows, columns = block.any(1), block.any(0)
        assert torch.equal(block, rows[:, None] & columns[None])  # a rectangle
        assert (rows.diff().sum() <= 2) and (columns.diff().sum() <= 2)  # without gaps
    assert not (seen & blocks[:, 0]).any()


@pytest.mark.parametrize("remove", ["blocks", "cross", "time", "freq"])
def test_context_and_targets_share_nothing(remove):
    seen, blocks = masking.multi_block(200, (32, 8), targets=2, scale=(0.03, 0.05), remove=remove, gen=generator(1))
    context, target = seen[:, 0].view(-1, 32, 8), blocks.any(1).view(-1, 32, 8)
    assert not (context & target).any()
    if remove in ("time", "cross"):
        assert not (context.any(2) & target.any(2)).any()
    if remove in ("freq", "cross"):
        assert not (context.any(1) & target.any(1)).any()


def test_aspect_stretches_along_time():
    """A sixteenth of the grid, four times as long as the grid's own proportions."""
    blocks = masking.multi_block(3, (32, 16), scale=(1 / 16, 1 / 16), aspect=(4.0, 4.0), gen=generator(0)).targets
    blocks = blocks.view(-1, 32, 16)
    assert (blocks.any(2).sum(1) == 16).all() and (blocks.any(1).sum(1) == 2).all()


def test_several_contexts():
    seen, blocks = masking.multi_block(20, (32, 8), contexts=3, context=(0.5, 0.6), gen=generator(4))
    assert seen.shape == (20, 3, 256) and not (seen & blocks.any(1)[:, None]).any()
    assert not torch.equal(seen[:, 0], seen[:, 1])


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="1x1 grid"):
        masking.multi_block(1, (1, 1), gen=generator(0))
    with pytest.raises(ConfigError, match="scale"):
        masking.multi_block(1, (8, 8), scale=(0.5, 0.2), gen=generator(0))
