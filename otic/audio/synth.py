"""Primitive sounds: tones, noises and events as float32 arrays, drawn from the generator passed in.

All lengths are in samples, frequencies in Hz, `rate` in Hz; a sound's peak is about 1 unless said otherwise.
"""

from __future__ import annotations

import numpy as np

Wave = np.ndarray  # float32 [s]
Gen = np.random.Generator
RATE = 16_000


def curve(gen: Gen, n: int, knots: int, low: float, high: float) -> Wave:
    """A random course between `low` and `high` through `knots` points, straight in between."""
    values = gen.uniform(low, high, max(knots, 2))
    return np.interp(np.linspace(0, 1, n), np.linspace(0, 1, len(values)), values).astype(np.float32)


def fade(n: int, attack: int, release: int) -> Wave:
    """Linear rise over `attack` samples and fall over `release`, 1 between."""
    t = np.arange(n, dtype=np.float32)
    return np.minimum(np.minimum((t + 1) / max(attack, 1), (n - t) / max(release, 1)), 1).astype(np.float32)


def phase(freq: Wave | float, n: int, rate: int = RATE) -> np.ndarray:
    """Cycles so far (float64), for a constant or a moving frequency."""
    if isinstance(freq, int | float):
        return np.arange(n) * (freq / rate)
    return np.cumsum(freq, dtype=np.float64) / rate


def table(amplitudes: np.ndarray, size: int = 2048) -> Wave:
    """One period with these harmonic amplitudes (sine phases, rows for several), peak 1."""
    amplitudes = np.atleast_2d(amplitudes)
    spectrum = np.zeros((len(amplitudes), size // 2 + 1), dtype=np.complex64)
    spectrum[:, 1 : amplitudes.shape[1] + 1] = -1j * amplitudes
    period = np.fft.irfft(spectrum, axis=1)
    return (period / np.abs(period).max(axis=1, keepdims=True)).astype(np.float32)


def tone(freq: Wave | float, n: int, harmonics: np.ndarray | tuple[float, ...] = (1.0,), rate: int = RATE) -> Wave:
    """A periodic sound of these harmonic amplitudes."""
    period = table(np.asarray(harmonics))[0]
    return period[(phase(freq, n, rate) * len(period)).astype(np.int64) & (len(period) - 1)]


def glide(start: float, end: float, n: int) -> Wave:
    """Frequencies from `start` to `end` in equal musical steps."""
    return np.geomspace(start, end, n).astype(np.float32)


def partial(freq: float, n: int, decay: float, rate: int = RATE, at: float = 0.0) -> Wave:
    """A sine that dies away by 60 dB in `decay` seconds, from phase `at` (radians)."""
    step = 2j * np.pi * freq / rate - 6.9 / (decay * rate)
    rows = -(-n // 256)
    grid = np.exp(step * 256 * np.arange(rows) + 1j * at)[:, None] * np.exp(
        step * np.arange(256)
    )  # 1 exp for 256 samples
    return grid.imag.reshape(-1)[:n].astype(np.float32)


def noise(gen: Gen, n: int, slope: float = 0.0, low: float = 20.0, high: float = 8000.0, rate: int = RATE) -> Wave:
    """Noise whose level changes by `slope` dB per octave, between `low` and `high` Hz (soft edges); RMS 1."""
    size = 1 << max(n - 1, 1).bit_length()
    freq = np.fft.rfftfreq(size, 1 / rate).astype(np.float32)
    freq[0] = freq[1]
    with np.errstate(under="ignore"):
        gain = (freq / 1000) ** (slope / 6.02) / np.sqrt((1 + (low / freq) ** 8) * (1 + (freq / high) ** 8))
    spectrum = gen.standard_normal((2, len(freq)), dtype=np.float32)
    wave = _irfft((spectrum[0] + 1j * spectrum[1]) * gain, size)[:n]
    return wave / (np.sqrt(np.mean(wave * wave)) + 1e-12)


def _irfft(spectrum: np.ndarray, n: int) -> Wave:
    import scipy.fft  # single precision, which numpy's transform may lack

    return scipy.fft.irfft(spectrum, n).astype(np.float32)


def click(gen: Gen, freq: float, seconds: float, rate: int = RATE) -> Wave:
    """A short knock: a damped sine with a noisy edge."""
    n = round(seconds * rate)
    wave = partial(freq, n, seconds, rate)
    edge = min(n, rate // 500)
    wave[:edge] += 0.5 * gen.standard_normal(edge, dtype=np.float32)
    return wave


def kick(gen: Gen, rate: int = RATE) -> Wave:
    """A bass drum: a sine that falls from about 150 Hz to about 50 Hz."""
    n = round(gen.uniform(0.10, 0.18) * rate)
    return tone(glide(gen.uniform(120, 200), gen.uniform(45, 65), n), n, rate=rate) * fade(n, rate // 1000, n)


def snare(gen: Gen, rate: int = RATE) -> Wave:
    """A snare drum: a noise that dies away over a short tone."""
    n = round(gen.uniform(0.10, 0.18) * rate)
    wave = 0.4 * noise(gen, n, low=gen.uniform(600, 1500), rate=rate) * np.exp(-np.linspace(0, 6, n, dtype=np.float32))
    return (wave + 0.5 * partial(gen.uniform(160, 260), n, 0.1, rate)).astype(np.float32)


def formants(pitch: Wave, first: tuple[float, ...], last: tuple[float, ...], position: Wave, rate: int = RATE) -> Wave:
    """A voice-like sound: harmonics of `pitch` under formants that move from `first` (position 0) to `last` (1).

    Formants are resonances with a bandwidth of 60 Hz + 5 %, summed in power with falling weights.
    """
    steps = 9
    f0 = float(pitch.mean())
    h = np.arange(1, max(2, int(0.4 * rate / f0))) * f0
    mix = np.linspace(0, 1, steps)[:, None, None]
    centre = (1 - mix) * np.asarray(first)[None, :, None] + mix * np.asarray(last)[None, :, None]
    shape = 1 / (1 + ((h - centre) / (60 + 0.05 * centre)) ** 2) * (0.6 ** np.arange(len(first)))[None, :, None]
    tables = table(np.sqrt(shape.sum(1)) * (h / h[0]) ** -0.5)
    spot = np.clip(position, 0, 1) * (steps - 1)
    low = np.minimum(spot.astype(np.int64), steps - 2)
    index = (phase(pitch, len(pitch), rate) * tables.shape[1]).astype(np.int64) & (tables.shape[1] - 1)
    part = (spot - low).astype(np.float32)
    return (1 - part) * tables[low, index] + part * tables[low + 1, index]


def place(buffer: Wave, sound: Wave, at: int, gain: float = 1.0) -> None:
    """Add `sound` to `buffer` from sample `at` on; what exceeds the buffer is dropped."""
    sound = sound[: max(len(buffer) - at, 0)]
    buffer[at : at + len(sound)] += gain * sound
