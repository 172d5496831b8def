"""From framed samples to mel energies: window, DFT, power, filterbank. Both front-ends share it.

Two ways to the same numbers: `fast` writes into scratch memory with a real FFT (training and inference on any
device), `plain` is a matrix product with cosine and sine tables (gradients, `torch.export`, ONNX: complex
numbers appear nowhere).

Axes: b clips, t frames, w window samples, f mel bands.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

GROUP = 16  # bands multiplied together: few enough that each group touches few FFT bins


class MelSpectrum(nn.Module):
    """Window, power spectrum and mel filterbank as one module.

    Args:
        window: Analysis window.
        bank: Mel weights; a stored buffer, so that a checkpoint may bring its own.
        fft: Transform length, at least the window's.
    """

    window: Tensor
    bank: Tensor
    basis: Tensor

    def __init__(self, window: Float[Tensor, " w"], bank: Float[Tensor, "bins f"], fft: int):
        super().__init__()
        self.fft = fft
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("basis", dft_basis(window, fft), persistent=False)
        self.register_buffer("bank", bank)
        self._bands: list[tuple[int, int, Tensor]] = []
        self._bands_of: tuple[int, int] | None = None

    def plain(self, frames: Float[Tensor, "b t w"]) -> Float[Tensor, "b t f"]:
        """Energies by matrix products alone: differentiable and exportable."""
        real, imag = (frames @ self.basis).chunk(2, dim=-1)
        return (real.square() + imag.square()) @ self.bank

    def fast(
        self, frames: Float[Tensor, "b t w"], offset: Float[Tensor, "b t 1"] | None, scratch: Scratch
    ) -> Float[Tensor, "n f"]:
        """Energies of all frames in order, n = b * t; `offset` is subtracted from each frame first.

        The result lies in `scratch`, which the next call overwrites. Takes no gradient.
        """
        b, t, w = frames.shape
        padded, power, mel = scratch.take(b * t)
        windowed = padded.unflatten(0, (b, t))[..., :w]
        if offset is None:
            torch.mul(frames, self.window, out=windowed)
        else:
            torch.sub(frames, offset, out=windowed)
            windowed.mul_(self.window)
        parts = torch.view_as_real(torch.fft.rfft(padded)).flatten(-2).square_()  # re, im, re, im, ...
        torch.add(parts[:, 0::2], parts[:, 1::2], out=power)
        for i, (first, last, weights) in enumerate(self.bands()):
            torch.mm(power[:, first:last], weights, out=mel[:, i * GROUP : i * GROUP + weights.shape[1]])
        return mel

    def bands(self) -> list[tuple[int, int, Tensor]]:
        """The bank in groups of bands, each with only the FFT bins it touches: (first, last, weights)."""
        key = (self.bank.data_ptr(), self.bank._version)
        if self._bands_of != key:
            self._bands, self._bands_of = [_trim(part) for part in self.bank.split(GROUP, dim=1)], key
        return self._bands


class Scratch:
    """Buffers that `fast` reuses from block to block, small enough to stay in the cache."""

    def __init__(self, frames: int, spectrum: MelSpectrum):
        bins, f = spectrum.bank.shape
        self.padded = spectrum.bank.new_zeros(frames, spectrum.fft)  # zero past the window, and never written there
        self.power, self.mel = spectrum.bank.new_empty(frames, bins), spectrum.bank.new_empty(frames, f)

    def take(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.padded[:n], self.power[:n], self.mel[:n]


def dft_basis(window: Float[Tensor, " w"], fft: int) -> Float[Tensor, "w bins2"]:
    """Window times cosine and minus sine tables, side by side: `frame @ basis` is (real | imaginary)."""
    n, k = torch.arange(len(window)), torch.arange(fft // 2 + 1)
    angle = (n[:, None] * k % fft).double() * (2 * math.pi / fft)  # reduced first: exact for large n * k
    return (torch.cat([angle.cos(), -angle.sin()], dim=1) * window.double()[:, None]).float()


def hann(length: int, *, periodic: bool) -> Float[Tensor, " w"]:
    """Hann window; symmetric (both ends zero) unless `periodic`."""
    return torch.hann_window(length, periodic=periodic, dtype=torch.float64).float()


def _trim(weights: Tensor) -> tuple[int, int, Tensor]:
    used = weights.any(dim=1).nonzero().flatten()
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    return first, last, weights[first:last].contiguous()
