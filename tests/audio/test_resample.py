"""Resampling by soxr: facts about tones, lengths, pieces."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio.resample import Resampler, cut, resample

RATES = st.sampled_from([1000, 7919, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])


def tone(hertz, rate, seconds=1.0):
    return np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate).astype(np.float32)


def level(wave):
    """In dB against a full-scale sine, edges left out."""
    middle = wave[len(wave) // 8 : -len(wave) // 8]
    return 10 * np.log10(2 * np.mean(middle.astype(np.float64) ** 2) + 1e-20)


def test_a_tone_under_the_cutoff_passes_and_one_above_dies():
    assert level(resample(tone(7000, 44100), 44100, 16000)) == pytest.approx(0, abs=0.05)
    for hertz in (8100, 9000, 12000):
        assert level(resample(tone(hertz, 44100), 44100, 16000)) < -120


@pytest.mark.parametrize("old, new", [(44100, 16000), (16000, 44100), (7919, 16000), (192000, 16000)])
def test_a_tone_keeps_its_place_in_time(old, new):
    got, want = resample(tone(440, old), old, new), tone(440, new)
    edge = new // 20
    np.testing.assert_allclose(got[edge:-edge], want[edge:-edge], atol=1e-4)


@given(old=RATES, new=RATES, samples=st.integers(1, 5000))
@settings(max_examples=60, deadline=None)
def test_length_and_pieces(old, new, samples):
    rng = np.random.default_rng(samples)
    wave = rng.standard_normal(samples).astype(np.float32)
    whole = resample(wave, old, new)
    assert whole.dtype == np.float32
    assert abs(len(whole) - max(1, samples * new / old)) <= 1
    streamed = Resampler(old, new)
    edges = [0, *np.sort(rng.integers(0, samples + 1, 3)).tolist(), samples]
    pieces = [streamed.push(wave[a:b]) for a, b in pairwise(edges)]
    np.testing.assert_allclose(np.concatenate([*pieces, streamed.close()]), whole, atol=1e-6)


def test_equal_rates_change_nothing():
    wave = tone(440, 16000)
    assert resample(wave, 16000, 16000) is wave
    assert len(resample(wave[:0], 44100, 16000)) == 0


@given(old=RATES, new=RATES, start=st.floats(0, 3), duration=st.none() | st.floats(0.01, 3))
@settings(max_examples=80, deadline=None)
def test_a_stretch_equals_the_same_stretch_of_the_whole(old, new, start, duration):
    wave = np.random.default_rng(0).standard_normal(4 * old + 123).astype(np.float32)
    first, size, skip, count = cut(start, duration, old, new)
    part = wave[first:] if size is None else wave[first : first + size]
    got = resample(part, old, new)[skip : None if count is None else skip + count]
    begin = round(start * new)
    want = resample(wave, old, new)[begin : None if count is None else begin + count]
    # Where the rates have no common divisor soxr interpolates its filter; the rounding of the phase depends on where
    # the input begins: up to 2.3e-5 of noise of unit variance (7919 to 192000 Hz), which is -93 dB.
    np.testing.assert_allclose(got, want, atol=3e-5)
    if duration is not None:
        assert len(part) <= duration * old + old + 1024 * max(1, old / new) + 2  # no more is read than that
