"""Windowed-sinc resampling as the published systems do it (torchaudio's default, `sinc_interp_hann`)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from otic.core.errors import ConfigError


def sinc_resample(
    wave: Float[Tensor, "*b s"], old: int, new: int, *, width: int = 6, rolloff: float = 0.99
) -> Float[Tensor, "*b s2"]:
    """Waves at another rate, by a Hann-windowed sinc low-pass; differentiable, on any device.

    For parity with published numbers; `resample` (soxr) has the better filter. The result has
    ceil(s * new / old) samples.

    Args:
        wave: Samples, last axis time.
        old: Hz of `wave`.
        new: Hz of the result.
        width: Zero crossings of the sinc to either side.
        rolloff: Cut-off as a share of the lower Nyquist frequency.

    Raises:
        ConfigError: if a rate is below 1 Hz.

    >>> sinc_resample(torch.zeros(2, 44100), 44100, 16000).shape
    torch.Size([2, 16000])
    """
    if min(old, new) < 1:
        raise ConfigError(f"resampling from {old} to {new} Hz: both rates must be at least 1.")
    if old == new:
        return wave
    shared = math.gcd(old, new)
    o, n = old // shared, new // shared
    kernel = _kernel(o, n, width, rolloff).to(wave)  # [taps, n]
    reach = (len(kernel) - o) // 2
    padded = F.pad(wave, (reach, reach + o))
    phases = padded.unfold(-1, len(kernel), o) @ kernel  # [*b, blocks, n]
    return phases.flatten(-2)[..., : -(-n * wave.shape[-1] // o)]


@lru_cache(maxsize=16)
def _kernel(o: int, n: int, width: int, rolloff: float) -> Tensor:
    """One column of taps for each of the n output phases, computed in float64. [taps, n]"""
    base = rolloff * min(o, n)
    reach = math.ceil(width * o / base)
    taps = torch.arange(-reach, reach + o, dtype=torch.float64)[:, None] / o
    time = ((taps - torch.arange(n, dtype=torch.float64) / n) * base).clamp(-width, width)
    return (torch.sinc(time) * (time * math.pi / (2 * width)).cos().square() * (base / o)).float()
