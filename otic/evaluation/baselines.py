"""What every model is measured against: plain log-mel statistics, and the model itself before training.

Both read like a model: `sample_rate`, `card` and `encode(waves) -> [len, D]`.

Axes: s samples, t frames, f mel bins.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from otic.core.seeds import fold, generator

RATE, WINDOW, HOP, FFT = 16_000, 400, 160, 512  # Hz, then samples: 25 ms, 10 ms, 32 ms
BANDS, LOW, HIGH = 64, 20.0, 7600.0


def is_baseline(name: str) -> bool:
    """`logmel-stats`, `untrained`, and `untrained NAME` where several architectures are compared."""
    return name in ("logmel-stats", "untrained") or name.startswith("untrained ")


class LogMelStats:
    """192 numbers per clip: of each of 64 log-mel bands the mean, the spread, and the spread of its steps in time.

    16 kHz, 25 ms Hann window, 10 ms hop, 512-point FFT, HTK mel from 20 to 7600 Hz, power, log(x + 1e-6). No context
    longer than one step is seen, so a learned representation should do better.
    """

    sample_rate = RATE
    dim = 3 * BANDS

    def __init__(self) -> None:
        self.card: dict[str, Any] = {"name": "logmel-stats", "parameters": 0}

    def encode(
        self, waves: Sequence[np.ndarray], layers: Sequence[int] | None = None, pool: str | None = None
    ) -> Float32[np.ndarray, "n 192"]:
        """One row for each wave `[s]` at 16 kHz; there are no layers or poolings to choose from."""
        return np.stack([_statistics(log_mel(torch.as_tensor(w, dtype=torch.float32))) for w in waves])


def log_mel(wave: Float[Tensor, " s"]) -> Float[Tensor, "t f"]:
    """log(power + 1e-6) in 64 mel bands; a wave shorter than a window is padded with silence.

    >>> log_mel(torch.zeros(16000)).shape
    torch.Size([98, 64])
    """
    wave = torch.nn.functional.pad(wave, (0, max(0, WINDOW - len(wave))))
    frames = wave.unfold(0, WINDOW, HOP) * torch.hann_window(WINDOW)
    return torch.log(torch.fft.rfft(frames, FFT).abs().square() @ _mel_bands() + 1e-6)


def _statistics(spec: Float[Tensor, "t f"]) -> Float32[np.ndarray, " 192"]:
    steps = spec.diff(dim=0) if len(spec) > 1 else torch.zeros_like(spec)
    return torch.cat([spec.mean(0), spec.std(0, correction=0), steps.std(0, correction=0)]).numpy()


@cache
def _mel_bands() -> Float[Tensor, "bins f"]:
    """Triangles with unit peak, their corners evenly spaced on the HTK mel scale 2595 log10(1 + Hz / 700)."""
    low, high = (2595 * math.log10(1 + hz / 700) for hz in (LOW, HIGH))
    mel = torch.linspace(low, high, BANDS + 2, dtype=torch.float64)
    corners = 700 * (10 ** (mel / 2595) - 1)
    hz = torch.linspace(0, RATE / 2, FFT // 2 + 1, dtype=torch.float64)[:, None]
    rise = (hz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - hz) / (corners[2:] - corners[1:-1])
    return torch.minimum(rise, fall).clamp(min=0).float()


def untrained(model: Any, seed: int = 0) -> Any:
    """The same architecture, front-end, tokenizer and pooling with fresh weights: what the architecture alone is worth.

    A model with words gets both towers fresh.
    """
    encoder, towers = model.encoder, getattr(model, "towers", None)
    takes_gen = "gen" in inspect.signature(type(encoder)).parameters
    device = next(encoder.parameters()).device
    with torch.random.fork_rng(devices=[]):  # an encoder without one draws from the global generator
        torch.manual_seed(fold(seed, "untrained"))
        fresh = type(encoder)(encoder.cfg, **({"gen": generator(seed, "untrained")} if takes_gen else {}))
    twin = copy.copy(model)
    twin.encoder = fresh.to(device).eval()
    if towers is not None:
        gen = generator(seed, "untrained", "towers")
        twin.towers = type(towers)(twin.encoder, towers.cfg, towers.tokenizer, gen).to(device).eval()
    twin.card = dict(model.card) | {"name": "untrained", "init_seed": seed}
    return twin
