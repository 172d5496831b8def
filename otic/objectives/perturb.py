"""Two hearings of one spectrogram: what a contrastive method must learn to ignore.

AudioMosaic changes waves (its code's `dataset/options.py`: roll, stretch by 0.7 to 1.3, pitch by 4 semitones, noise of
5 to 40 dB, filters, gain). An objective is given spectrograms, so these are stand-ins for the same changes on log-mel;
polarity leaves a spectrogram as it is. Stretching and rolling wrap round.

Axes: b clips, t frames, f mel bins.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

NATS_PER_DECIBEL = math.log(10) / 10


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    roll: bool = True  # begin anywhere in the clip
    stretch: float = 0.3  # faster or slower by up to this share
    stretch_chance: float = 0.7  # share of clips
    pitch: float = 6.0  # up or down by up to so many mel bins (4 semitones are 3 to 11 of 128 bins)
    pitch_chance: float = 0.6
    stop: float = 0.25  # widest filtered band, as a share of all bins
    stop_depth: float = 0.5  # by which it is lowered, in units of the spectrogram
    stop_chance: float = 0.5
    noise: tuple[float, float] = (5.0, 40.0)  # decibels of a clip above the noise added to it
    noise_chance: float = 0.5
    gain: float = 0.05  # louder or softer by up to this, in units of the spectrogram
    nats: float = 2 * 4.569  # natural-log units of energy in one unit of the spectrogram (EAT's front-end)


def perturb(spec: Float[Tensor, "b 1 t f"], cfg: PerturbConfig, gen: Generator) -> Float[Tensor, "b 1 t f"]:
    """Each clip changed in its own way, drawn from `gen`."""
    x = spec[:, 0]
    x = _resample(x, _times(x, cfg, gen))
    x = _resample(x.mT, _bins(x, cfg, gen)).mT
    x = x - cfg.stop_depth * _stopped(x, cfg, gen)[:, None]
    x = _noisy(x, cfg, gen)
    return (x + _uniform(len(x), -cfg.gain, cfg.gain, gen)[..., None])[:, None]


def _times(x: Float[Tensor, "b t f"], cfg: PerturbConfig, gen: Generator) -> Float[Tensor, "b t"]:
    """Where each new frame is taken from: the clip begins somewhere, and goes faster or slower."""
    b, t, _ = x.shape
    start = _uniform(b, 0.0, t * float(cfg.roll), gen)
    rate = _uniform(b, 1 - cfg.stretch, 1 + cfg.stretch, gen)
    chosen = _chosen(b, cfg.stretch_chance, gen)
    at = torch.arange(t, device=gen.device)
    return torch.where(chosen, start + rate * at, start.floor() + at) % t  # else the frames stay as they are


def _bins(x: Float[Tensor, "b t f"], cfg: PerturbConfig, gen: Generator) -> Float[Tensor, "b f"]:
    """Where each new mel bin is taken from; beyond the edges the edge."""
    b, _, f = x.shape
    shift = _uniform(b, -cfg.pitch, cfg.pitch, gen) * _chosen(b, cfg.pitch_chance, gen)
    return (torch.arange(f, device=gen.device) - shift).clamp(0, f - 1)


def _stopped(x: Float[Tensor, "b t f"], cfg: PerturbConfig, gen: Generator) -> Bool[Tensor, "b f"]:
    """The mel bins that a filter takes away."""
    b, _, f = x.shape
    width = _uniform(b, 0.0, cfg.stop * f, gen)
    first = _uniform(b, 0.0, 1.0, gen) * (f - width)
    at = torch.arange(f, device=gen.device)
    return (at >= first) & (at < first + width) & _chosen(b, cfg.stop_chance, gen)


def _noisy(x: Float[Tensor, "b t f"], cfg: PerturbConfig, gen: Generator) -> Float[Tensor, "b t f"]:
    """Noise of one mean energy in every cell, so many decibels below the clip's mean energy."""
    energy = x.flatten(1) * cfg.nats
    below = _uniform(len(x), cfg.noise[0], cfg.noise[1], gen) * NATS_PER_DECIBEL
    level = energy.logsumexp(1, keepdim=True) - math.log(energy.shape[1]) - below
    uniform = torch.rand(x.shape, generator=gen, device=gen.device).clamp(1e-6, 1 - 1e-6)
    grain = uniform.log().neg().log()  # the energy of one cell of noise is exponentially distributed
    mixed = torch.logaddexp(x * cfg.nats, level[..., None] + grain) / cfg.nats
    return torch.where(_chosen(len(x), cfg.noise_chance, gen)[..., None], mixed, x)


def _resample(x: Float[Tensor, "b t f"], at: Float[Tensor, "b t"]) -> Float[Tensor, "b t f"]:
    """Rows of each clip at fractional places, linearly between neighbours; after the last comes the first."""
    low = at.floor()
    weight = (at - low)[..., None]
    index = low.long() % x.shape[1]
    here = x.gather(1, index[..., None].expand_as(x))
    after = x.gather(1, ((index + 1) % x.shape[1])[..., None].expand_as(x))
    return here * (1 - weight) + after * weight


def _chosen(count: int, chance: float, gen: Generator) -> Bool[Tensor, "b 1"]:
    return torch.rand(count, 1, generator=gen, device=gen.device) < chance


def _uniform(count: int, low: float, high: float, gen: Generator) -> Float[Tensor, "b 1"]:
    return low + (high - low) * torch.rand(count, 1, generator=gen, device=gen.device)
