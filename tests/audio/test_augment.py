"""SSAST's augmentations: what they leave alone, and how strips are distributed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio import augment
from otic.core.seeds import generator


@settings(max_examples=30, deadline=None)
@given(a=st.integers(1, 50), b=st.integers(1, 50), share=st.floats(0, 1))
def test_mixture(a, b, share):
    first, second = torch.randn(a, generator=generator(a)), torch.randn(b, generator=generator(b, "b"))
    mixed = augment.mix(first, second, share)
    assert mixed.shape == first.shape
    assert float(mixed.mean()) == pytest.approx(0, abs=1e-6)
    assert torch.allclose(augment.mix(first, second, 1.0), first - first.mean(), atol=1e-6)


def test_strips_stay_inside_and_start_evenly():
    strips = augment.strip(torch.rand(20000, 2, generator=generator(0)), 128, 48)
    start, width = strips.unbind(-1)
    assert width.min() == 0 and width.max() == 47
    assert start.min() == 0 and (start + width).max() <= 128
    assert float(width.float().mean()) == pytest.approx(23.5, abs=0.5)


def test_spec_augment_hides_one_strip_of_each_kind():
    spec = torch.randn(50, 1, 64, 32, generator=generator(1))
    masked = augment.spec_augment(spec, freq=12, time=20, value=7.0, gen=generator(2))
    hidden = masked == 7.0
    assert torch.equal(masked[~hidden], spec[~hidden])
    columns, rows = hidden.all(2)[:, 0], hidden.all(3)[:, 0]  # hidden bands, hidden frames
    assert torch.equal(hidden[:, 0], columns[:, None, :] | rows[:, :, None])
    assert columns.sum(1).max() < 12 and rows.sum(1).max() < 20
    assert columns.sum(1).float().std() > 1  # each clip has its own
    assert torch.equal(augment.spec_augment(spec, freq=0, time=0, value=7.0, gen=generator(2)), spec)


def test_noise_and_shift():
    spec = torch.randn(2, 1, 10, 4, generator=generator(3))
    field = torch.rand(2, 1, 10, 4, generator=generator(4))
    moved = augment.noise_and_shift(spec, field, torch.tensor([0.0, 0.5]), torch.tensor([3, -2]))
    assert torch.equal(moved[0], spec[0].roll(3, 1))
    assert torch.allclose(moved[1], (spec[1] + field[1] * 0.05).roll(-2, 1))
