"""Signal facts about the primitive sounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio import synth
from otic.audio.synth import RATE


def gen(seed=0):
    return np.random.default_rng(seed)


def strongest(wave):
    """The strongest frequency in Hz."""
    return float(np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax() * RATE / len(wave))


@pytest.mark.parametrize("freq", [100.0, 440.0, 3000.0])
def test_a_tone_has_its_frequency_and_its_harmonics(freq):
    wave = synth.tone(freq, RATE, (1.0, 0.5))
    spectrum = np.abs(np.fft.rfft(wave))
    assert wave.dtype == np.float32 and strongest(wave) == pytest.approx(freq, abs=1)
    assert spectrum[round(2 * freq)] / spectrum[round(freq)] == pytest.approx(0.5, rel=0.02)
    assert spectrum[round(freq / 2)] < 1e-2 * spectrum[round(freq)]


def test_a_glide_starts_and_ends_where_it_should():
    wave = synth.tone(synth.glide(300.0, 2400.0, RATE), RATE)
    assert strongest(wave[:800]) == pytest.approx(330, rel=0.15)
    assert strongest(wave[-800:]) == pytest.approx(2300, rel=0.05)


def test_a_partial_is_the_formula():
    n, t = 1000, np.arange(1000) / RATE
    want = np.exp(-6.9 * t / 0.5) * np.sin(2 * np.pi * 700 * t + 0.3)
    assert np.allclose(synth.partial(700.0, n, 0.5, at=0.3), want, atol=1e-5)


def level(wave, low, high):
    spectrum = np.abs(np.fft.rfft(wave)) ** 2
    freq = np.fft.rfftfreq(len(wave), 1 / RATE)
    return 10 * np.log10(spectrum[(freq >= low) & (freq < high)].mean())


def test_noise_has_its_slope_and_band():
    wave = synth.noise(gen(), 1 << 17, slope=-6.0)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1, rel=1e-3)
    assert level(wave, 450, 550) - level(wave, 1900, 2100) == pytest.approx(12, abs=1)
    band = synth.noise(gen(), 1 << 17, low=1000.0, high=2000.0)
    assert level(band, 1300, 1600) - level(band, 100, 300) > 40
    assert level(band, 1300, 1600) - level(band, 5000, 7000) > 30


def test_noise_is_drawn_from_its_generator():
    assert np.array_equal(synth.noise(gen(1), 500), synth.noise(gen(1), 500))
    assert not np.array_equal(synth.noise(gen(1), 500), synth.noise(gen(2), 500))


@settings(deadline=None)
@given(n=st.integers(1, 5000), attack=st.integers(0, 6000), release=st.integers(0, 6000))
def test_a_fade_stays_between_nought_and_one(n, attack, release):
    shape = synth.fade(n, attack, release)
    assert shape.shape == (n,) and shape.dtype == np.float32
    assert (shape > 0).all() and (shape <= 1).all()


@settings(deadline=None)
@given(n=st.integers(1, 40), at=st.integers(0, 60))
def test_place_adds_what_fits(n, at):
    buffer = np.ones(40, np.float32)
    synth.place(buffer, np.full(n, 2, np.float32), at, 0.5)
    want = 1 + ((np.arange(40) >= at) & (np.arange(40) < at + n))
    assert np.array_equal(buffer, want)


def test_formants_sit_where_they_are_told():
    """Harmonics of 100 Hz; the strongest above 600 Hz follows the first formant as it moves."""
    pitch = np.full(RATE, 100, np.float32)
    wave = synth.formants(pitch, (700.0, 1200.0), (700.0, 2400.0), np.linspace(0, 1, RATE))
    first, last = wave[:3200], wave[-3200:]
    assert level(first, 1100, 1300) - level(first, 2300, 2500) > 10
    assert level(last, 2300, 2500) - level(last, 1100, 1300) > 3
    assert strongest(first) == pytest.approx(700, abs=120)


@pytest.mark.parametrize("drum", [synth.kick, synth.snare])
def test_drums_are_short_and_die_away(drum):
    wave = drum(gen(3))
    assert 0.1 <= len(wave) / RATE <= 0.18 and np.isfinite(wave).all()
    assert np.abs(wave[-len(wave) // 10 :]).max() < 0.25 * np.abs(wave).max()
    assert level(synth.kick(gen()), 40, 200) > level(synth.kick(gen()), 1000, 8000) + 20


def test_a_click_is_as_long_as_told():
    wave = synth.click(gen(), 1000.0, 0.02)
    assert len(wave) == 320 and np.abs(wave[:32]).max() > 5 * np.abs(wave[-32:]).max()


def test_a_curve_stays_between_its_bounds():
    course = synth.curve(gen(), 1000, 5, -2.0, 3.0)
    assert course.min() >= -2 and course.max() <= 3 and np.abs(np.diff(course)).max() < 0.03
