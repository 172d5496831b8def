"""Kaldi-compatible log-mel energies, batched (the front-end of AST, SSAST, Audio-MAE, EAT, A-JEPA).

Per frame Kaldi subtracts the mean m, applies pre-emphasis 0.97 with the frame's first sample as its own
predecessor, and multiplies by a symmetric Hann window. That window is zero at the first sample, so pre-emphasis
may run once over the whole wave, and subtracting m becomes subtracting (1 - 0.97) m: frames stay views.

Axes: b clips, s samples, t frames, w window samples, f mel bands.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from otic.audio.melbank import mel_bank
from otic.audio.spectral import Frames, MelSpectrum, Plan, hann

LEAK = 0.03  # 1 - pre-emphasis: what remains of a constant


class Fbank(nn.Module):
    """Log-mel energies of frames that lie wholly inside the wave (Kaldi's `snip_edges`).

    Symmetric Hann window, power spectrum, natural logarithm; no dither, no energy column.

    Args:
        rate: Hz.
        mels: Number of bands.
        low: Lower edge of the first band, Hz.
        high: Upper edge of the last band, Hz.
        window: Samples of a frame.
        hop: Samples between frames.
        fft: Transform length.
    """

    floor = 1.1920928955078125e-07  # float32 epsilon, Kaldi's smallest energy
    limits = ((math.exp(-12), math.exp(15.5)), (floor, math.exp(18)))  # float64 beyond: errors < 6e-4, deep down < 2e-3

    def __init__(self, *, rate: int, mels: int, low: float, high: float, window: int, hop: int, fft: int):
        super().__init__()
        self.window, self.hop = window, hop
        bank = mel_bank("kaldi", rate=rate, fft=fft, mels=mels, low=low, high=high)
        self.spectrum = MelSpectrum(hann(window, periodic=False)[1:], bank, fft)  # the first weight is zero

    def forward(self, wave: Float[Tensor, "b s"]) -> Float[Tensor, "b t f"]:
        """Raw log-mel, by matrix products: for gradients and export. `Frontend` has the fast way.

        >>> Fbank(rate=16000, mels=128, low=20, high=8000, window=400, hop=160, fft=512)(torch.zeros(1, 16000)).shape
        torch.Size([1, 98, 128])
        """
        return self.spectrum.plain(self.split(wave)).clamp(min=self.floor).log()

    def split(self, wave: Float[Tensor, "b s"], lengths: Tensor | None = None) -> Frames:
        """Frames as views of the pre-emphasised wave, and what is still to be subtracted from each."""
        before, after = wave[:, :-1], wave[:, 1:]
        emphasised = torch.sub(after, before).add_(before, alpha=LEAK)  # x - 0.97 b as (x - b) + 0.03 b: rounds less
        raw = wave.unfold(1, self.window, self.hop)
        return Frames(emphasised.unfold(1, self.window - 1, self.hop), self._means(wave) * LEAK, raw)

    def exact(self, raw: Float[Tensor, "n w"], plan: Plan) -> Float[Tensor, "n f"]:
        """Mean power under each filter, of unfiltered frames, all in float64."""
        frames = raw.double()
        frames -= frames.mean(1, keepdim=True)
        return self.spectrum.exact(torch.sub(frames[:, 1:], frames[:, :-1], alpha=1 - LEAK), plan)

    def _means(self, wave: Float[Tensor, "b s"]) -> Float[Tensor, "b t"]:
        """Each frame's mean, from sums of short pieces which neighbouring frames share."""
        size = math.gcd(self.window, self.hop)
        pieces = wave[:, : wave.shape[1] // size * size].unflatten(1, (-1, size)).sum(-1)
        return pieces.unfold(1, self.window // size, self.hop // size).sum(-1) / self.window

    def frames(self, samples: int) -> int:
        """Frames of a clip; a clip shorter than a window is zero-padded to one frame."""
        return max(1, 1 + (samples - self.window) // self.hop)

    def counts(self, lengths: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """`frames` of many clips."""
        return ((lengths - self.window) // self.hop + 1).clamp(min=1)

    @property
    def shortest(self) -> int:
        """Samples below which the wave must be padded before `split`."""
        return self.window

    def log_(self, energy: Tensor) -> Tensor:
        """ln(max(energy, floor)), in place; digital silence is -15.942385."""
        return energy.clamp_(min=self.floor).log_()
