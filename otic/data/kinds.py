"""The kinds of sound in the embedded corpus: how each is made, named and described.

Six pairs hold the same events and differ only in their order or rhythm: what a clip's average spectrum, or its
spread, cannot tell. A maker gets a generator and a length in samples (16 kHz) and returns that many, at any level.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from otic.audio import synth
from otic.audio.synth import RATE, Gen, Wave
from otic.core.registry import Registry

Maker = Callable[[Gen, int], Wave]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One class of the corpus."""

    make: Maker  # (generator, samples) -> wave
    captions: tuple[str, ...]  # sentences that are true of every clip of the kind
    shortest: float = 1.2  # seconds of sound at least; at most the clip


KINDS: Registry[Kind] = Registry("kind of sound")


def kind(label: str, *captions: str, shortest: float = 1.2) -> Callable[[Maker], Maker]:
    def file(make: Maker) -> Maker:
        KINDS.add(Kind(make=make, captions=captions, shortest=shortest), label)
        return make

    return file


def _timbre(gen: Gen) -> np.ndarray:
    """Amplitudes of 1 to 6 harmonics."""
    return gen.uniform(0.3, 0.9) ** np.arange(gen.integers(1, 7))


def _sweep(gen: Gen, n: int, up: bool) -> Wave:
    low = np.exp(gen.uniform(np.log(250), np.log(1200)))
    high = low * gen.uniform(1.6, 3.2)
    course = synth.glide(low, high, n) if gen.random() < 0.5 else np.linspace(low, high, n, dtype=np.float32)
    return synth.tone(course if up else course[::-1], n, _timbre(gen)) * synth.fade(n, 800, 800)


@kind(
    "rising chirp",
    "a chirp rises in pitch",
    "a tone slides from low to high",
    "a sweep that goes up",
    "an upward glide",
)
def rising(gen: Gen, n: int) -> Wave:
    return _sweep(gen, n, True)


@kind(
    "falling chirp",
    "a chirp falls in pitch",
    "a tone slides from high to low",
    "a sweep that goes down",
    "a downward glide",
)
def falling(gen: Gen, n: int) -> Wave:
    return _sweep(gen, n, False)


def _two_tone(gen: Gen, n: int, up: bool) -> Wave:
    low = np.exp(gen.uniform(np.log(250), np.log(900)))
    high = low * 2 ** (gen.integers(3, 10) / 12)
    half, harmonics, decay = n // 2, _timbre(gen), gen.uniform(0.5, 3)
    notes = [synth.tone(f, half, harmonics) for f in ((low, high) if up else (high, low))]
    shape = synth.fade(half, 200, 800) * np.exp(-decay * np.linspace(0, 1, half, dtype=np.float32))
    out = np.zeros(n, dtype=np.float32)
    synth.place(out, notes[0] * shape, 0)
    synth.place(out, notes[1] * shape, half)
    return out


@kind(
    "low-high chime",
    "a low note and then a high note",
    "a chime steps up",
    "two notes, first the low one",
    "ding with the higher note last",
)
def low_high(gen: Gen, n: int) -> Wave:
    return _two_tone(gen, n, True)


@kind(
    "high-low chime",
    "a high note and then a low note",
    "a chime steps down",
    "two notes, first the high one",
    "ding with the lower note last",
)
def high_low(gen: Gen, n: int) -> Wave:
    return _two_tone(gen, n, False)


def _at(sounds: list[Wave], times: np.ndarray, n: int, gains: np.ndarray) -> Wave:
    """Sound k at `times[k]` (a share of the length)."""
    out = np.zeros(n, dtype=np.float32)
    for sound, time, gain in zip(sounds, times, gains, strict=True):
        synth.place(out, sound, int(time * n), float(gain))
    return out


def _knocks(gen: Gen, times: np.ndarray, n: int) -> Wave:
    """The same knock, a little different each time, at these shares of the length."""
    freq, seconds = np.exp(gen.uniform(np.log(400), np.log(3500))), gen.uniform(0.015, 0.06)
    sounds = [synth.click(gen, freq * gen.uniform(0.97, 1.03), seconds) for _ in times]
    return _at(sounds, times, n, gen.uniform(0.7, 1.0, len(times)))


def _count(gen: Gen, n: int, slow: float = 3.0, fast: float = 8.0) -> int:
    return max(6, int(n / RATE * gen.uniform(slow, fast)))


@kind(
    "regular ticking",
    "a clock ticks steadily",
    "even ticking",
    "ticks at equal distances",
    "a regular tick tock",
    shortest=1.8,
)
def regular(gen: Gen, n: int) -> Wave:
    count = _count(gen, n)
    return _knocks(gen, (np.arange(count) + gen.uniform(-0.03, 0.03, count) + 0.05) / count, n)


@kind(
    "irregular ticking",
    "ticks at random moments",
    "uneven ticking",
    "clicks without a rhythm",
    "a faulty clock ticks irregularly",
    shortest=1.8,
)
def irregular(gen: Gen, n: int) -> Wave:
    count = _count(gen, n)
    gaps = 0.25 + gen.exponential(1.0, count + 1)
    return _knocks(gen, (np.cumsum(gaps) / gaps.sum())[:-1] * 0.97, n)


def _ramp(gen: Gen, n: int, faster: bool) -> Wave:
    count = _count(gen, n, 4.0, 7.0)
    gaps = np.geomspace(gen.uniform(2.5, 5), 1, count)
    times = np.concatenate([[0], np.cumsum(gaps)[:-1]]) / gaps.sum()
    if not faster:
        times = (1 - gaps[-1] / gaps.sum() - times)[::-1]
    drum = synth.kick if gen.random() < 0.5 else synth.snare
    return _at([drum(gen) for _ in times], np.clip(times, 0, 1), n, gen.uniform(0.7, 1, count))


@kind(
    "quickening beats",
    "drum beats get faster and faster",
    "beats that speed up",
    "an accelerating drum",
    "slow beats turn quick",
    shortest=2.0,
)
def quickening(gen: Gen, n: int) -> Wave:
    return _ramp(gen, n, True)


@kind(
    "slowing beats",
    "drum beats get slower and slower",
    "beats that slow down",
    "a decelerating drum",
    "quick beats turn slow",
    shortest=2.0,
)
def slowing(gen: Gen, n: int) -> Wave:
    return _ramp(gen, n, False)


def _pattern(gen: Gen, n: int, bar: str) -> Wave:
    """Bars of kicks and snares at an even pace, begun anywhere in the bar."""
    count = max(8, int(n / RATE * gen.uniform(3.5, 6.5)))
    first = int(gen.integers(4))
    hits = [bar[(first + k) % 4] for k in range(count)]
    times = (np.arange(count) + gen.uniform(-0.02, 0.02, count) + 0.03) / count
    sounds = [synth.kick(gen) if hit == "k" else 0.8 * synth.snare(gen) for hit in hits]
    return _at(sounds, times, n, gen.uniform(0.75, 1.0, count))


@kind(
    "alternating drums",
    "a bass drum and a snare take turns",
    "kick, snare, kick, snare",
    "a simple beat of single strokes",
    shortest=2.0,
)
def alternating(gen: Gen, n: int) -> Wave:
    return _pattern(gen, n, "ksks")


@kind(
    "paired drums",
    "two bass drum beats, then two snare beats",
    "kick, kick, snare, snare",
    "a beat of double strokes",
    shortest=2.0,
)
def paired(gen: Gen, n: int) -> Wave:
    return _pattern(gen, n, "kkss")


_AH, _EE = (750.0, 1200.0, 2600.0), (290.0, 2250.0, 3000.0)


def _voice(gen: Gen, n: int, first: tuple[float, ...], last: tuple[float, ...]) -> Wave:
    size = gen.uniform(0.85, 1.2)
    pitch = np.exp(gen.uniform(np.log(90), np.log(260))) * (1 + synth.curve(gen, n, 5, -0.08, 0.08))
    hold = gen.uniform(0.1, 0.35)
    position = (np.linspace(0, 1, n) - hold) / (1 - 2 * hold)
    scaled = [tuple(size * f for f in formant) for formant in (first, last)]
    return synth.formants(pitch.astype(np.float32), scaled[0], scaled[1], position) * synth.fade(n, 1200, 2400)


@kind(
    "voice from ah to ee",
    "a voice sings ah and then ee",
    "a vowel glides from ah to ee",
    "an open vowel turns bright",
    "somebody says eye, slowly",
)
def ah_ee(gen: Gen, n: int) -> Wave:
    return _voice(gen, n, _AH, _EE)


@kind(
    "voice from ee to ah",
    "a voice sings ee and then ah",
    "a vowel glides from ee to ah",
    "a bright vowel opens",
    "somebody says ya, slowly",
)
def ee_ah(gen: Gen, n: int) -> Wave:
    return _voice(gen, n, _EE, _AH)


@kind("bell", "a bell rings", "a church bell is struck", "the ringing of a metal bell", "a bell tolls")
def bell(gen: Gen, n: int) -> Wave:
    base, decay = np.exp(gen.uniform(np.log(200), np.log(900))), gen.uniform(1.0, 3.5)
    ratios = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.67]) * gen.uniform(0.99, 1.01, 6)
    gains = gen.uniform(0.3, 1.0, 6)
    out = np.zeros(n, dtype=np.float32)
    strike = sum(g * synth.partial(base * r, n, decay / r**0.7) for r, g in zip(ratios, gains, strict=True))
    for k in range(int(gen.integers(1, 4))):
        synth.place(out, np.asarray(strike, dtype=np.float32), int(k * n * gen.uniform(0.28, 0.4)), gen.uniform(0.6, 1))
    return out


@kind(
    "engine",
    "an engine is running",
    "a motor hums and rattles",
    "the rumble of an idling engine",
    "a machine is running",
)
def engine(gen: Gen, n: int) -> Wave:
    speed = np.exp(gen.uniform(np.log(30), np.log(110))) * (1 + synth.curve(gen, n, 6, -0.12, 0.12))
    harmonics = gen.uniform(0.2, 1, 40) * gen.uniform(0.88, 0.95) ** np.arange(40)
    body = synth.tone(speed.astype(np.float32), n, harmonics)
    hiss = synth.noise(gen, n, slope=-4.0, low=60.0, high=3000.0)
    return (body * (1 + 0.3 * hiss) + gen.uniform(0.02, 0.15) * hiss).astype(np.float32)


@kind("rain", "rain is falling", "raindrops patter on a roof", "steady rain", "a shower of rain")
def rain(gen: Gen, n: int) -> Wave:
    drops = np.zeros(n, dtype=np.float32)
    count = int(n / RATE * gen.uniform(30, 250))
    drops[gen.integers(0, n, count)] = gen.exponential(1.0, count)
    tail = np.exp(-np.arange(160, dtype=np.float32) / gen.uniform(10, 30))
    rush = synth.noise(gen, n, slope=gen.uniform(-3, 1), low=gen.uniform(300, 1200), high=gen.uniform(4000, 7800))
    patter = np.convolve(drops, tail)[:n]
    return (rush * (gen.uniform(0.3, 1.0) + patter)).astype(np.float32)


@kind("wind", "the wind is blowing", "gusts of wind", "wind howls around the house", "a windy day")
def wind(gen: Gen, n: int) -> Wave:
    body = synth.noise(gen, n, slope=gen.uniform(-9, -5), low=60.0, high=gen.uniform(600, 2500))
    return body * synth.curve(gen, n, int(gen.integers(4, 9)), 0.1, 1.0)


@kind(
    "siren", "a siren wails up and down", "an ambulance passes with its siren on", "a wailing siren", "an alarm howls"
)
def siren(gen: Gen, n: int) -> Wave:
    turns, start = gen.uniform(0.8, 3.0) * n / RATE, gen.uniform(0, 1)
    course = np.sin(2 * np.pi * (start + np.linspace(0, turns, n)))
    freq = np.exp(gen.uniform(np.log(500), np.log(1000))) * gen.uniform(1.2, 1.5) ** course
    return synth.tone(freq.astype(np.float32), n, _timbre(gen)) * synth.fade(n, 800, 800)


@kind("bird song", "a bird is singing", "birds chirp", "the song of a small bird", "a bird whistles and trills")
def bird(gen: Gen, n: int) -> Wave:
    out = np.zeros(n, dtype=np.float32)
    base, at = gen.uniform(2200, 4500), 0
    while at < n - 800:
        length = int(gen.uniform(0.04, 0.16) * RATE)
        course = base * (1 + synth.curve(gen, length, 3, -0.25, 0.25))
        synth.place(
            out, synth.tone(course.astype(np.float32), length) * synth.fade(length, length // 3, length // 2), at
        )
        at += length + int(gen.uniform(0.02, 0.2) * RATE)
    return out


@kind(
    "noise bursts",
    "bursts of noise",
    "short hisses with pauses",
    "a spray hisses again and again",
    "static comes and goes",
)
def bursts(gen: Gen, n: int) -> Wave:
    low = gen.uniform(200, 2500)
    body, count = synth.noise(gen, n, low=low, high=low * gen.uniform(1.5, 3)), int(gen.integers(2, 6))
    out, slot = np.zeros(n, dtype=np.float32), n // count
    for k in range(count):
        length = int(slot * gen.uniform(0.25, 0.7))
        at = k * slot + int(gen.uniform(0, slot - length))
        out[at : at + length] = body[at : at + length] * synth.fade(length, 160, length // 2)
    return out


@kind("steady tone", "a steady tone", "a continuous beep", "one note is held", "a test tone sounds")
def steady(gen: Gen, n: int) -> Wave:
    freq = np.exp(gen.uniform(np.log(200), np.log(2500)))
    return synth.tone(float(freq), n, _timbre(gen)) * synth.fade(n, 800, 800)
