"""The sinc resampler: signal facts, and the published kernel written again as a loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio.sinc import sinc_resample
from otic.core.errors import ConfigError
from otic.core.seeds import generator

RATES = st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000])


def formula(wave, old, new):
    """One output sample after the other, in float64."""
    shared = math.gcd(old, new)
    o, n = old // shared, new // shared
    base = 0.99 * min(o, n)
    out = []
    for k in range(-(-n * len(wave) // o)):
        block, phase = divmod(k, n)
        total = 0.0
        reach = math.ceil(6 * o / base)
        for i in range(-reach, reach + o):
            t = max(-6.0, min(6.0, (i / o - phase / n) * base))
            at = block * o + i
            if 0 <= at < len(wave):
                sinc = 1.0 if t == 0 else math.sin(math.pi * t) / (math.pi * t)
                total += float(wave[at]) * sinc * math.cos(math.pi * t / 12) ** 2 * base / o
        out.append(total)
    return torch.tensor(out)


@settings(max_examples=12, deadline=None)
@given(old=RATES, new=RATES, samples=st.integers(1, 120))
def test_formula(old, new, samples):
    wave = torch.randn(samples, generator=generator(samples))
    ours = sinc_resample(wave, old, new)
    if old == new:
        assert torch.equal(ours, wave)
    else:
        assert len(ours) == math.ceil(samples * new / old)
        assert torch.allclose(ours, formula(wave, old, new), atol=1e-5)


@pytest.mark.parametrize("old, new", [(32000, 16000), (44100, 16000), (16000, 44100)])
def test_a_tone_stays_itself_and_what_is_too_high_goes(old, new):
    t_old, t_new = torch.arange(old) / old, torch.arange(new) / new
    low = sinc_resample(torch.sin(2 * math.pi * 1000 * t_old), old, new)
    inner = slice(500, -500)
    assert (low - torch.sin(2 * math.pi * 1000 * t_new))[inner].abs().max() < 2e-3
    if new < old:
        high = sinc_resample(torch.sin(2 * math.pi * (new * 0.7) * t_old), old, new)
        assert high[inner].abs().max() < 0.02


def test_leading_axes_and_gradients():
    wave = torch.randn(2, 3, 441, generator=generator(1)).requires_grad_()
    ours = sinc_resample(wave, 44100, 16000)
    assert ours.shape == (2, 3, 160)
    assert torch.allclose(ours[1, 2], sinc_resample(wave[1, 2], 44100, 16000), atol=1e-6)
    ours.sum().backward()
    assert wave.grad is not None and wave.grad.abs().sum() > 0


def test_a_rate_below_one_is_refused():
    with pytest.raises(ConfigError, match="0 to 16000"):
        sinc_resample(torch.zeros(10), 0, 16000)
