"""The front-end: waves in, normalised spectrograms out, the same object for training and inference.

What a clip becomes depends on that clip alone, never on the padding or on its batch mates.

Axes: b clips, s samples, t frames, f mel bands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from otic.audio.fbank import Fbank
from otic.audio.logmel import LogMel
from otic.audio.spectral import Frames, Scratch, too_coarse
from otic.core.batch import Batch
from otic.core.errors import ConfigError

CPU_BLOCK = 1024  # frames worked on at once for each thread: the scratch memory then stays in the cache
EXACT_BLOCK = 256  # the same for those in float64
DEVICE_BLOCK = 65536


@dataclass(frozen=True, kw_only=True)
class FrontendConfig:
    """How sound becomes a spectrogram; the defaults are EAT's (AudioSet statistics)."""

    kind: Literal["kaldi", "htsat"] = "kaldi"  # Kaldi log-mel (natural log) or centred STFT log-mel (decibels)
    sample_rate: int = 16000  # Hz of the waves that go in
    mels: int = 128  # mel bands
    low: float = 20.0  # Hz, lower edge of the first band
    high: float = 8000.0  # Hz, upper edge of the last band
    window: int = 400  # samples of a frame (htsat: ignored, the transform length counts)
    hop: int = 160  # samples between frames
    fft: int = 512  # transform length
    mel: Literal["kaldi", "slaney", "htk"] = "kaldi"  # shape of the filters (kind kaldi: always kaldi)
    mel_rate: int | None = None  # Hz the filters are built for, where that differs from sample_rate (MS-CLAP 2023)
    mean: float = -4.268  # of the log-mel; output = (log-mel - mean) / (2 std)
    std: float = 4.569
    subtract_mean: bool = True  # remove each clip's own mean from its wave first
    pad: Literal["logmel", "normalised", "floor"] = "logmel"  # where padded frames are 0 (or: they sound silent)
    quantise: bool = False  # cut samples off to what 16 bits hold first (LAION-CLAP)


def htsat(**changes: object) -> FrontendConfig:
    """The front-end of HTSAT as MS-CLAP 2023 runs it: 44.1 kHz waves, filters built for 32 kHz, plain decibels."""
    cfg = FrontendConfig(
        kind="htsat", sample_rate=44100, mel_rate=32000, mel="slaney", mels=64, low=50.0, high=14000.0,
        window=1024, fft=1024, hop=320, mean=0.0, std=0.5, subtract_mean=False, pad="floor",
    )  # fmt: skip
    return dataclasses.replace(cfg, **changes)  # type: ignore[arg-type]


class Frontend(nn.Module):
    """Waves `[b, s]` at `rate` to normalised spectrograms `[b, 1, t, f]`, on the device it was moved to.

    Args:
        cfg: What to compute.
        plain: Always use matrix products instead of the FFT. Gradients, `torch.compile` and `torch.export`
            get them by themselves.
        bank: The mel matrix that a model was trained with, where its file brings one; else it is computed.

    Raises:
        ConfigError: if a setting is impossible, or the mel matrix has another shape than the config asks for.
    """

    def __init__(
        self,
        cfg: FrontendConfig = FrontendConfig(),
        *,
        plain: bool = False,
        bank: Float[Tensor, "bins mels"] | None = None,
    ):
        super().__init__()
        self.cfg, self.plain, self.mel = cfg, plain, _spectrogram(cfg)
        if bank is not None:
            self._bring(bank)

    @torch.no_grad()
    def _bring(self, bank: Tensor) -> None:
        own = self.mel.spectrum.bank
        if bank.shape != own.shape:
            have, want = list(bank.shape), list(own.shape)
            raise ConfigError(f"front-end: the mel matrix has the shape {have}, but its config asks for {want}.")
        own.copy_(bank)

    @property
    def rate(self) -> int:
        """Samples per second of the waves that go in."""
        return self.cfg.sample_rate

    @property
    def frame_rate(self) -> float:
        """Frames per second."""
        return self.cfg.sample_rate / self.cfg.hop

    @property
    def pad_value(self) -> float:
        """What frames past a clip's end hold."""
        zero = {"logmel": 0.0, "normalised": self.cfg.mean, "floor": self._silence()}[self.cfg.pad]
        return (zero - self.cfg.mean) / (2 * self.cfg.std)

    def frames(self, samples: int) -> int:
        """Frames of a clip of so many samples, at least one."""
        return self.mel.frames(samples)

    def forward(
        self, wave: Float[Tensor, "b s"], lengths: Int[Tensor, " b"] | None = None, frames: int | None = None
    ) -> Float[Tensor, "b 1 t f"]:
        """Normalised spectrograms.

        Args:
            wave: Mono samples at `rate`, full scale 1 (not scaled to 16 bits).
            lengths: Real samples of each row; what lies beyond is not looked at.
            frames: Length of the output: the first so many frames, or padded at the end with `pad_value`.
        """
        wave = quantised(wave.float()) if self.cfg.quantise else wave.float()
        lengths = None if lengths is None or _all_full(wave, lengths) else lengths.to(wave.device)
        plain = self.plain or torch.compiler.is_compiling() or (torch.is_grad_enabled() and wave.requires_grad)
        with _full_precision(wave):
            spec = self._plain(wave, lengths, frames) if plain else self._fast(wave.detach(), lengths, frames)
        if lengths is not None:
            inside = torch.arange(spec.shape[1], device=wave.device) < self.mel.counts(lengths)[:, None]
            spec = spec.where(inside[..., None], self.pad_value)
        return spec[:, None]

    def fill(self, batch: Batch, frames: int | None = None) -> Batch:
        """The batch with its `spec` and the real `frames` of each clip set."""
        spec = self(batch.wave, batch.lengths, frames)
        real = self.mel.counts(batch.lengths).clamp(max=spec.shape[2])
        return dataclasses.replace(batch, spec=spec, frames=real)

    def _split(self, wave: Float[Tensor, "b s"], lengths: Tensor | None) -> Frames:
        """Frames of waves without their mean, zero past their ends, and long enough for one frame."""
        inside = None if lengths is None else torch.arange(wave.shape[1], device=wave.device) < lengths[:, None]
        wave = wave if inside is None else wave.where(inside, 0.0)
        if self.cfg.subtract_mean:
            wave = wave - clip_mean(wave, lengths)
            wave = wave if inside is None else wave.where(inside, 0.0)
        short = self.mel.shortest - wave.shape[1]
        return self.mel.split(F.pad(wave, (0, short)) if short > 0 else wave, lengths)

    def _plain(self, wave: Float[Tensor, "b s"], lengths: Tensor | None, total: int | None) -> Float[Tensor, "b t f"]:
        frames = self._split(wave, lengths)
        frames = frames if total is None else frames.part(0, total)
        spec = (self.mel.log_(self.mel.spectrum.plain(frames)) - self.cfg.mean) / (2 * self.cfg.std)
        return spec if total is None else F.pad(spec, (0, 0, 0, total - spec.shape[1]), value=self.pad_value)

    def _fast(self, wave: Float[Tensor, "b s"], lengths: Tensor | None, total: int | None) -> Float[Tensor, "b t f"]:
        b, t = len(wave), self.frames(wave.shape[1])
        total = t if total is None else total
        t = min(t, total)
        spec = wave.new_empty(b, total, self.cfg.mels)
        spec[:, t:] = self.pad_value
        block = CPU_BLOCK * torch.get_num_threads() if wave.device.type == "cpu" else DEVICE_BLOCK
        clips = max(1, block // max(1, t))  # whole short clips together, long clips in pieces
        scratch = self.mel.spectrum.scratch(min(block, b * t))
        shift = wave.new_tensor(-self.cfg.mean / (2 * self.cfg.std))
        for first in range(0, b, clips):
            rows = slice(first, first + clips)
            frames = self._split(wave[rows], None if lengths is None else lengths[rows])
            for start in range(0, t, block):
                out = spec[rows, start : min(start + block, t)]
                energy = self._energy(frames.part(start, start + out.shape[1]), scratch)
                torch.add(shift, self.mel.log_(energy).view_as(out), alpha=1 / (2 * self.cfg.std), out=out)
        return spec

    def _energy(self, frames: Frames, scratch: Scratch) -> Float[Tensor, "n f"]:
        """Mel energies; on CPUs exact where float32 is too coarse (asking would stall other devices)."""
        power = self.mel.spectrum.fast(frames, scratch)
        if power.device.type == "cpu":
            t = frames.raw.shape[1]
            coarse = too_coarse(power, self.mel.limits)
            for again in coarse.split(EXACT_BLOCK) if len(coarse) else ():  # MKL refuses an FFT of no frames
                one = len(frames.raw) == 1  # the usual case for clips of ten seconds, and then five times faster
                raw = frames.raw[0].index_select(0, again) if one else frames.raw[again // t, again % t]
                power[again] = self.mel.exact(raw, scratch.plan)
        return power.mul_(scratch.plan.area)

    def _silence(self) -> float:
        return float(self.mel.log_(torch.zeros(1, dtype=torch.float64)))


def clip_mean(wave: Float[Tensor, "b s"], lengths: Int[Tensor, " b"] | None) -> Float[Tensor, "b 1"]:
    """Mean of each clip's real samples (the rest must be zero), the same to the last bit however it is padded."""
    whole = wave.shape[1] // 256 * 256
    pieces = wave[:, :whole].unflatten(1, (-1, 256)).sum(-1)
    wide = torch.float32 if wave.device.type == "mps" else torch.float64  # Metal has no float64
    total = pieces.to(wide).sum(1, keepdim=True) + wave[:, whole:].to(wide).sum(1, keepdim=True)
    return (total / (wave.shape[1] if lengths is None else lengths[:, None].clamp(min=1))).to(wave.dtype)


def quantised(wave: Float[Tensor, "*b s"]) -> Float[Tensor, "*b s"]:
    """Samples as 16 bits hold them, cut off towards zero, as LAION-CLAP does before anything else.

    >>> (quantised(torch.tensor([0.5, -2.0])) * 32767).tolist()
    [16383.0, -32767.0]
    """
    return (wave.clamp(-1.0, 1.0) * 32767).trunc() / 32767


def measure(waves: Iterable[Tensor], cfg: FrontendConfig = FrontendConfig()) -> tuple[float, float]:
    """(mean, std) of the raw log-mel over all real frames of these clips, for `mean` and `std` of a config.

    Args:
        waves: One clip `[s]` at `cfg.sample_rate` at a time.
        cfg: The front-end; its own statistics are not used.

    Raises:
        ConfigError: if there is no clip, or all hold the same single value.
    """
    raw = Frontend(dataclasses.replace(cfg, mean=0.0, std=0.5))
    count, total, squares = 0, 0.0, 0.0
    for wave in waves:
        spec = raw(wave[None]).double()
        count, total, squares = count + spec.numel(), total + float(spec.sum()), squares + float(spec.square().sum())
    mean = total / max(count, 1)
    variance = squares / max(count, 1) - mean**2
    if variance <= 1e-9:
        raise ConfigError(f"normalisation statistics: {count} cells without variation. Measure on real, audible clips.")
    return mean, variance**0.5


def _spectrogram(cfg: FrontendConfig) -> Fbank | LogMel:
    if cfg.mels < 1:
        raise ConfigError(f"front-end: mels={cfg.mels} must be at least 1.")
    if not cfg.std > 0:
        raise ConfigError(f"front-end: std={cfg.std} must be above 0.")
    if cfg.kind == "htsat" and cfg.mel == "kaldi":
        raise ConfigError("front-end: kind=htsat needs mel=slaney or mel=htk.")
    if not 0 < cfg.hop <= cfg.window <= cfg.fft:
        raise ConfigError(f"front-end: hop={cfg.hop}, window={cfg.window}, fft={cfg.fft} must rise and be above 0.")
    rate = cfg.mel_rate or cfg.sample_rate
    if cfg.kind == "htsat":
        return LogMel(rate=rate, mels=cfg.mels, low=cfg.low, high=cfg.high, fft=cfg.fft, hop=cfg.hop, shape=cfg.mel)
    return Fbank(
        rate=rate, mels=cfg.mels, low=cfg.low, high=cfg.high, window=cfg.window, hop=cfg.hop, fft=cfg.fft
    )  # fmt: skip


def _all_full(wave: Tensor, lengths: Tensor) -> bool:
    """True when no clip is shorter than the row; asked only where asking does not stall a device."""
    return lengths.device.type == "cpu" and not torch.compiler.is_compiling() and bool((lengths >= wave.shape[1]).all())


def _full_precision(wave: Tensor) -> AbstractContextManager[object]:
    """Autocast off: bf16 products would cost the low bands their accuracy."""
    kind = wave.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
