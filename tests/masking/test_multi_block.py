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
    "grid, kind, union, context",
    [
        ((64, 8), {}, 0.481, 0.468),
        ((64, 8), CROSS, 0.182, 0.165),
        ((32, 8), {}, 0.485, 0.464),
        ((32, 8), CROSS, 0.182, 0.163),
        ((8, 8), {}, 0.499, 0.470),
        ((8, 8), CROSS, 0.179, 0.169),
    ],
)
def test_shares_of_the_default_sampler(grid, kind, union, context):
    seen, covered = sample(grid, **kind)
    assert float(covered.float().mean()) == pytest.approx(union, abs=0.02)
    assert float(seen.float().mean()) == pytest.approx(context, abs=0.02)


def test_every_row_and_column_is_context_and_target():
    seen, covered = (m.view(-1, 16, 8) for m in sample((16, 8)))
    for mask in (seen, covered):
        assert mask.any(2).float().mean(0).min() > 0.05
        assert mask.any(1).float().mean(0).min() > 0.05


@settings(max_examples=80, deadline=None)
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


def test_trim_is_unbiased_in_time():
    seen = masking.multi_block(600, (32, 8), gen=generator(2)).context[:, 0]
    level = masking.trim(seen, generator(3))
    assert level.sum(1).unique().tolist() == [int(seen.sum(1).min())]
    assert not (level & ~seen).any()
    kept = [m.view(-1, 32, 8).float().mean((0, 2)) for m in (level, seen)]
    early, late = (kept[0][:8] / kept[1][:8]).mean(), (kept[0][-8:] / kept[1][-8:]).mean()
    assert float(early) == pytest.approx(float(late), rel=0.12)


def test_impossible_settings_are_refused():
    with pytest.raises(ConfigError, match="1x1 grid"):
        masking.multi_block(1, (1, 1), gen=generator(0))
    with pytest.raises(ConfigError, match="scale"):
        masking.multi_block(1, (8, 8), scale=(0.5, 0.2), gen=generator(0))
