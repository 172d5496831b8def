"""What a decoded sound is warned of, or refused for, gathered block by block."""

from __future__ import annotations

import warnings

import numpy as np

from otic.core.errors import AudioError, AudioWarning

SILENCE = 1e-7  # full scale is 1; less than a 24-bit step
CANCELLED = 1e-4  # of the loudest channel (-80 dB): rounding leaves a little of opposite channels
FULL_SCALE = 1.001  # what rounding may add
LOSSY_FULL_SCALE = 2.0  # lossy codecs overshoot a little on every loud recording: that is no fault
SHORT = 0.025  # seconds: one analysis frame of every front-end


class Levels:
    """Running extremes of all channels and of their mean."""

    def __init__(self, name: str, non_finite: str = "raise"):
        self.name, self.non_finite = name, non_finite
        self.peak = 0.0
        self.mono_peak = 0.0
        self.frames = 0
        self.replaced = 0

    def mono(self, block: np.ndarray, rate: int) -> np.ndarray:
        """The mean of the channels `[n, c] -> [n]`, after a look at the levels.

        Raises:
            AudioError: NaN or infinity, unless they are to become 0.
        """
        peak = _peak(block)
        if not np.isfinite(peak):
            block = self._without_non_finite(block, rate)
            peak = _peak(block)
        wave = _mean(block)
        self.peak = max(self.peak, peak)
        self.mono_peak = max(self.mono_peak, peak if block.shape[1] == 1 else _peak(wave))
        self.frames += len(block)
        if 0 < peak < 1e-30:  # subnormal numbers slow every later step down
            wave = np.zeros_like(wave)
        return wave

    def _without_non_finite(self, block: np.ndarray, rate: int) -> np.ndarray:
        bad = ~np.isfinite(block)
        if self.non_finite != "zero":
            first = (self.frames + int(np.argmax(bad.any(1)))) / rate
            text = f"{self.name}: NaN or infinite samples, the first at {first:.3f} s."
            raise AudioError(f'{text} Export it again, or read with non_finite="zero".', "non_finite")
        self.replaced += int(bad.sum())
        return np.where(bad, np.float32(0), block)

    def findings(self, rate: int, lossy: bool) -> list[tuple[str, str]]:
        """Kind and text of what to warn of, once everything has been read."""
        found = []
        if self.replaced:
            found.append(("non_finite", f"{self.replaced} NaN or infinite samples were replaced by 0"))
        if self.peak < SILENCE:
            found.append(("silent", "digital silence"))
        elif self.mono_peak < CANCELLED * self.peak:
            found.append(("silent_after_downmix", "the channels cancel each other: their mean is silent"))
        if self.peak > (LOSSY_FULL_SCALE if lossy else FULL_SCALE):
            found.append(
                ("over_full_scale", f"samples up to {self.peak:.4g} (full scale is 1); they are kept as they are")
            )
        if self.frames < SHORT * rate:
            found.append(("too_short", f"only {1000 * self.frames / rate:.3g} ms; less than one analysis frame"))
        return found


def warn_of(name: str, findings: list[tuple[str, str]], warn: bool) -> tuple[str, ...]:
    """Warn once of each kind of finding (or not at all), and return the kinds."""
    kinds = tuple(dict.fromkeys(kind for kind, _ in findings))
    for kind in kinds if warn else ():
        text = "; ".join(text for found, text in findings if found == kind)
        warnings.warn(AudioWarning(f"{name}: {text}.", kind), stacklevel=3)
    return kinds


def _peak(x: np.ndarray) -> float:
    """Largest magnitude; NaN where there is one (two passes, but no copy)."""
    return float(max(x.max(), -x.min())) if x.size else 0.0


def _mean(block: np.ndarray) -> np.ndarray:
    channels = block.shape[1]
    if channels == 1:
        return block[:, 0]
    total = block[:, 0] + block[:, 1]
    for c in range(2, channels):
        total += block[:, c]
    total *= np.float32(1 / channels)
    return total
