"""I-JEPA's sampler where its published form hangs, and the curriculum; exact masks are in tests/parity."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.masking import Curriculum, ijepa_legacy
from otic.masking.ijepa import ijepa_sizes
from otic.recipes.base import stretch


@settings(max_examples=30, deadline=None)
@given(
    grid=st.tuples(st.integers(1, 16), st.integers(1, 9)).filter(lambda g: g[0] * g[1] > 1),
    targets=st.integers(1, 4),
    contexts=st.integers(1, 2),
    min_keep=st.integers(0, 40),
    overlap=st.booleans(),
    step=st.integers(0, 100),
)
def test_never_hangs(grid, targets, contexts, min_keep, overlap, step):
    def draw():
        return ijepa_legacy(
            2, grid, step=step, targets=targets, contexts=contexts, min_keep=min_keep, overlap=overlap, gen=generator(1)
        )

    views = draw()
    assert views.context.shape == (2, contexts, grid[0] * grid[1])
    assert all(torch.equal(a, b) for a, b in zip(views, draw(), strict=True))
    for masks in views:
        assert masks.any(2).all() and masks.sum(2).unique().numel() == 1


def test_contexts_keep_off_the_targets_where_there_is_room():
    views = ijepa_legacy(50, (16, 16), step=3, gen=generator(0))
    assert not (views.context[:, 0] & views.targets.any(1)).any()
    assert views.context.sum(2).unique().numel() == views.targets.sum(2).unique().numel() == 1
    over = ijepa_legacy(50, (16, 16), step=3, overlap=True, gen=generator(0))
    assert (over.context[:, 0] & over.targets.any(1)).any()


def test_sizes_follow_from_the_step_alone():
    """One number of the step's generator gives a block's scale and its aspect; the context's comes next."""
    for step in range(20):
        first, second = torch.rand(2, generator=torch.Generator().manual_seed(step)).tolist()
        area, ratio = int(24 * 20 * (0.15 + 0.05 * first)), 0.5 + 2.0 * first
        frame = round(int(24 * 20 * (0.85 + 0.15 * second)) ** 0.5)
        sizes = ijepa_sizes((24, 20), step=step, scale=(0.15, 0.2), aspect=(0.5, 2.5), context=(0.85, 1.0))
        assert sizes == ((round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)), (min(frame, 23), min(frame, 19)))


def test_last_row_and_column_are_never_used():
    views = [ijepa_legacy(4, (12, 12), step=k, gen=generator(k)) for k in range(30)]
    for masks in (torch.cat([v.context for v in views]), torch.cat([v.targets for v in views])):
        image = masks.flatten(0, 1).any(0).view(12, 12)
        assert not image[-1].any() and not image[:, -1].any() and image[:-1, :-1].all()


def test_a_single_token_is_refused():
    with pytest.raises(ConfigError, match="1x1 grid"):
        ijepa_legacy(1, (1, 1), step=0, gen=generator(0))


# --- curriculum

TABLE = {
    0: 0.0100,
    10: 0.1005,
    50: 0.2238,
    100: 0.3164,
    250: 0.5001,
    500: 0.7071,
    750: 0.8660,
    1000: 1.0,
}  # a_jepa.md 2


def test_share_of_hard_steps():
    curriculum = Curriculum(progress=Ramp(0.0, 1.0, steps=1000))
    for step, share in TABLE.items():
        assert curriculum.share(step) == pytest.approx(share, abs=5.1e-5)
    assert curriculum.share(5000) == 1.0
    longer = stretch(curriculum, 3.0)
    assert longer.share(750) == pytest.approx(0.5001, abs=5.1e-5)


def test_two_thirds_of_a_run_are_hard():
    curriculum = Curriculum(progress=Ramp(0.0, 1.0, steps=8000))
    drawn = [curriculum.hard(step) for step in range(8000)]
    assert sum(drawn) / len(drawn) == pytest.approx(0.667, abs=0.01)
    assert sum(drawn[:800]) < sum(drawn[-800:]) / 3
    assert drawn[:50] == [curriculum.hard(step) for step in range(50)]  # of (seed, step) alone
    other = Curriculum(progress=Ramp(0.0, 1.0, steps=8000), seed=1)
    assert drawn[:200] != [other.hard(step) for step in range(200)]


def test_the_papers_comparisons():
    ramp = Ramp(0.0, 1.0, steps=100)
    for step in (0, 30, 99):
        falling = Curriculum(progress=ramp, order="easier").share(step)
        assert falling == pytest.approx(1 - Curriculum(progress=ramp).share(step))
        assert not Curriculum(progress=ramp, order="never").hard(step)
        assert Curriculum(progress=ramp, order="always").hard(step)
