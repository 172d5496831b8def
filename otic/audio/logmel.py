"""HTSAT-style log-mel in decibels (the front-end of CLAP models, PANNs; STFT conventions of librosa).

Frames are centred: the wave is reflected by half a transform at both ends, frame i stands at sample i * hop,
and there are 1 + s // hop of them (1 + (s - 1) // hop where the transform has an odd length). Periodic Hann window,
power, 10 log10(max(p, 1e-10)), no reference level.

Axes: b clips, s samples, t frames, w window samples, f mel bands.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from otic.audio.melbank import MelShape, mel_bank
from otic.audio.spectral import Frames, MelSpectrum, Plan, hann


class LogMel(nn.Module):
    """Log-mel decibels of centred frames; digital silence is -100 dB.

    Args:
        rate: Hz for which the filterbank is built (MS-CLAP builds it for 32 kHz and feeds 44.1 kHz).
        mels: Number of bands.
        low: Lower edge of the first band, Hz.
        high: Upper edge of the last band, Hz.
        fft: Transform and window length in samples.
        hop: Samples between frames.
        shape: `slaney` (librosa's default) or `htk`.
    """

    floor = 1e-10  # smallest energy: -100 dB
    limits = ((floor, math.exp(13)),)  # float64 for frames of more contrast (56 dB): errors stay below 5e-4 dB

    def __init__(
        self, *, rate: int, mels: int, low: float, high: float, fft: int, hop: int, shape: MelShape = "slaney"
    ):
        super().__init__()
        self.fft, self.hop = fft, hop
        bank = mel_bank(shape, rate=rate, fft=fft, mels=mels, low=low, high=high)
        self.spectrum = MelSpectrum(hann(fft, periodic=True), bank, fft)

    def forward(self, wave: Float[Tensor, "b s"]) -> Float[Tensor, "b t f"]:
        """Decibels by matrix products: for gradients and export. `Frontend` has the fast way.

        >>> LogMel(rate=32000, mels=64, low=50, high=14000, fft=1024, hop=320)(torch.zeros(1, 32000)).shape
        torch.Size([1, 101, 64])
        """
        return self.spectrum.plain(self.split(wave)).clamp(min=self.floor).log10() * 10

    def split(self, wave: Float[Tensor, "b s"], lengths: Tensor | None = None) -> Frames:
        """Frames as views of the reflected wave; each clip is reflected at its own end."""
        half = self.fft // 2
        if lengths is None and wave.shape[1] > half:
            reflected = F.pad(wave, (half, half), mode="reflect")
        else:
            ends = torch.full((len(wave),), wave.shape[1], device=wave.device) if lengths is None else lengths
            reflected = wave.gather(1, mirror(wave.shape[1], half, ends))
        frames = reflected.unfold(1, self.fft, self.hop)
        return Frames(frames, None, frames)

    def exact(self, raw: Float[Tensor, "n w"], plan: Plan) -> Float[Tensor, "n f"]:
        """Mean power under each filter, of these frames, all in float64."""
        return self.spectrum.exact(raw.double(), plan)

    def frames(self, samples: int) -> int:
        """Frames of a clip."""
        return 1 + (samples - self.fft % 2) // self.hop

    def counts(self, lengths: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """`frames` of many clips."""
        return 1 + (lengths - self.fft % 2) // self.hop

    @property
    def shortest(self) -> int:
        """Samples below which the wave must be padded before `split`."""
        return 1

    def log_(self, energy: Tensor) -> Tensor:
        """10 log10(max(energy, floor)), in place."""
        return energy.clamp_(min=self.floor).log10_().mul_(10)


def mirror(samples: int, half: int, ends: Int[Tensor, " b"]) -> Int[Tensor, "b padded"]:
    """Sample indices of a wave reflected at 0 and at each clip's own end, as often as needed."""
    at = torch.arange(-half, samples + half, device=ends.device)
    period = (2 * (ends - 1)).clamp(min=1)[:, None]
    folded = at % period
    return torch.minimum(folded, period - folded).minimum((ends - 1).clamp(min=0)[:, None])
