"""Triangular mel filterbanks in the three shapes that published front-ends use.

kaldi   triangles linear in mel, 1127 ln(1 + f/700), peak 1 (Kaldi `fbank`)
slaney  triangles linear in Hz, linear-then-log mel, unit area (librosa's default)
htk     triangles linear in Hz, 2595 log10(1 + f/700), peak 1
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from otic.core.errors import ConfigError

MelShape = Literal["kaldi", "slaney", "htk"]

SLANEY_STEP = 200 / 3  # Hz per mel below 1 kHz
SLANEY_LOG = math.log(6.4) / 27  # per mel above


def mel_bank(shape: MelShape, *, rate: int, fft: int, mels: int, low: float, high: float) -> Float[Tensor, "bins mels"]:
    """Weights from power spectrum bins (0 .. fft/2) to mel bands, computed in float64.

    Args:
        shape: Which kind of triangle (see the module).
        rate: Hz; the bank is built for this rate.
        fft: Transform length in samples.
        mels: Number of bands.
        low: Lower edge of the first band, Hz.
        high: Upper edge of the last band, Hz, at most rate / 2.

    Raises:
        ConfigError: if the edges are not 0 <= low < high <= rate / 2.
    """
    if not 0 <= low < high <= rate / 2:
        raise ConfigError(
            f"mel bands from {low:g} to {high:g} Hz at {rate} Hz: expected 0 <= low < high <= {rate / 2:g}."
        )
    hertz = np.arange(fft // 2 + 1) * (rate / fft)
    bottom, top = to_mel(np.array([low, high], dtype=np.float64), shape)
    edges = np.linspace(bottom, top, mels + 2)
    at = to_mel(hertz, "kaldi") if shape == "kaldi" else hertz
    corner = edges if shape == "kaldi" else from_mel(edges, shape)
    left, centre, right = corner[:-2], corner[1:-1], corner[2:]
    rise, fall = (at[:, None] - left) / (centre - left), (right - at[:, None]) / (right - centre)
    bank = np.maximum(0, np.minimum(rise, fall))
    if shape == "kaldi":
        bank[-1] = 0  # Kaldi leaves the Nyquist bin out
    if shape == "slaney":
        bank *= 2 / (right - left)
    return torch.from_numpy(bank.astype(np.float32))


def to_mel(hertz: np.ndarray, shape: MelShape) -> np.ndarray:
    """Hz to mel, elementwise."""
    if shape == "kaldi":
        return 1127 * np.log1p(hertz / 700)
    if shape == "htk":
        return 2595 * np.log10(1 + hertz / 700)
    return np.where(hertz < 1000, hertz / SLANEY_STEP, 15 + np.log(np.maximum(hertz, 1000) / 1000) / SLANEY_LOG)


def from_mel(mel: np.ndarray, shape: MelShape) -> np.ndarray:
    """Mel to Hz, elementwise."""
    if shape == "kaldi":
        return 700 * np.expm1(mel / 1127)
    if shape == "htk":
        return 700 * (10 ** (mel / 2595) - 1)
    return np.where(mel < 15, mel * SLANEY_STEP, 1000 * np.exp((np.maximum(mel, 15) - 15) * SLANEY_LOG))
