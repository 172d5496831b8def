"""From framed samples to mel energies: window, DFT, power, filterbank. Both front-ends share it.

Three ways to the same numbers: `fast` writes into scratch memory with a real float32 FFT (training, inference);
`exact` computes in float64 the few frames for which that is too coarse; `plain` is a matrix product with
cosine and sine tables (gradients, `torch.export`, ONNX: complex numbers appear nowhere).

Axes: b clips, t frames, w window samples, f mel bands.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

GROUP = 16  # bands multiplied together: few enough that each group touches few FFT bins


class Frames(NamedTuple):
    """A wave cut into frames, without copies.

    Attributes:
        samples: What goes under the window. [b, t, w]
        level: A constant still to be subtracted from each frame's samples. [b, t]
        raw: The frames before any filtering, for `exact`. [b, t, w]
    """

    samples: Tensor
    level: Tensor | None
    raw: Tensor

    def part(self, start: int, stop: int) -> Frames:
        level = None if self.level is None else self.level[:, start:stop]
        return Frames(self.samples[:, start:stop], level, self.raw[:, start:stop])


class MelSpectrum(nn.Module):
    """Window, power spectrum and mel filterbank as one module.

    Args:
        window: Analysis window, float64.
        bank: Mel weights; a stored buffer, so that a checkpoint may bring its own.
        fft: Transform length, at least the window's.
    """

    window: Tensor
    bank: Tensor
    basis: Tensor

    def __init__(self, window: Float[Tensor, " w"], bank: Float[Tensor, "bins f"], fft: int):
        super().__init__()
        self.fft = fft
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("basis", dft_basis(window, fft), persistent=False)
        self.register_buffer("bank", bank)
        self._exact_window, self._plan, self._plan_of = window, Plan(bank), (0, 0)

    def plain(self, frames: Frames) -> Float[Tensor, "b t f"]:
        """Energies by matrix products alone: differentiable and exportable."""
        parts = frames.samples @ self.basis
        if frames.level is not None:
            parts = parts - frames.level[..., None] * self.basis.sum(0)
        real, imag = parts.chunk(2, dim=-1)
        return (real.square() + imag.square()) @ self.bank

    def fast(self, frames: Frames, scratch: Scratch) -> Float[Tensor, "n f"]:
        """Mean power under each filter, of all frames in order: n = b * t. Energy is that times `Plan.area`.

        The result lies in `scratch`, which the next call overwrites. Takes no gradient.
        """
        b, t, w = frames.samples.shape
        padded, power, mel = scratch.take(b * t)
        torch.mul(frames.samples, self.window, out=padded.unflatten(0, (b, t))[..., :w])
        parts = torch.view_as_real(torch.fft.rfft(padded)).flatten(-2)  # re, im, re, im, ...
        if frames.level is not None:  # here and not in the samples: rounding there would bias the lowest bins
            parts.addcmul_(frames.level.reshape(-1, 1), scratch.leak, value=-1)
        parts.square_()
        return scratch.plan.multiply(torch.add(parts[:, 0::2], parts[:, 1::2], out=power), mel)

    def exact(self, frames: Float[Tensor, "n w"], plan: Plan) -> Float[Tensor, "n f"]:
        """The same for filtered float64 frames, by a float64 FFT."""
        padded = frames.new_zeros(len(frames), self.fft)  # by hand: the FFT's own padding is slow
        torch.mul(frames, self._exact_window.to(frames.device), out=padded[:, : frames.shape[1]])
        parts = torch.view_as_real(torch.fft.rfft(padded)).flatten(-2).square_()
        power = torch.add(parts[:, 0::2], parts[:, 1::2]).float()
        return plan.multiply(power, power.new_empty(len(frames), len(plan.area)))

    def plan(self) -> Plan:
        """How to multiply by the bank as it now is."""
        if self.bank.is_inference():  # made where no versions are counted, so it may have changed unseen
            return Plan(self.bank)
        key = (self.bank.data_ptr(), self.bank._version)
        if self._plan_of != key:
            self._plan, self._plan_of = Plan(self.bank), key
        return self._plan

    def scratch(self, frames: int) -> Scratch:
        """Working memory for up to `frames` frames."""
        real, imag = self.basis.sum(0).chunk(2)
        return Scratch(frames, self.fft, self.plan(), torch.stack([real, imag], 1).flatten())


class Plan:
    """The bank as filters of unit sum, in groups of bands, each group with only the FFT bins that it touches.

    A band without any bin (Kaldi's fourth of 128 has none) repeats its neighbour and has no area: the smallest
    value of a frame is then always the power of some bins.

    Attributes:
        groups: (first bin, last bin, weights [bins, bands]) of each group.
        area: Sum of each band's weights.
    """

    groups: list[tuple[int, int, Tensor]]
    area: Float[Tensor, " f"]

    def __init__(self, bank: Float[Tensor, "bins f"]):
        self.area = bank.sum(0)
        used = self.area > 0
        unit = bank / self.area.where(used, 1.0)
        if 0 < int(used.sum()) < len(used):
            full = used.nonzero().flatten()
            nearest = (torch.arange(len(used), device=bank.device)[:, None] - full).abs().argmin(1)
            unit = unit[:, full[nearest]]
        self.groups = [_trim(part) for part in unit.split(GROUP, dim=1)]

    def multiply(self, power: Float[Tensor, "n bins"], out: Float[Tensor, "n f"]) -> Float[Tensor, "n f"]:
        """Mean power under each filter."""
        for i, (first, last, weights) in enumerate(self.groups):
            torch.mm(power[:, first:last], weights, out=out[:, i * GROUP : i * GROUP + weights.shape[1]])
        return out


class Scratch:
    """Buffers that `fast` reuses from block to block, small enough to stay in the cache."""

    def __init__(self, frames: int, fft: int, plan: Plan, leak: Float[Tensor, " bins2"]):
        self.plan, self.leak = plan, leak  # leak: the window's own spectrum, what a constant turns into
        self.padded = leak.new_zeros(frames, fft)  # zero past the window, and never written there
        self.power = leak.new_empty(frames, len(leak) // 2)
        self.mel = leak.new_empty(frames, len(plan.area))

    def take(self, n: int) -> tuple[Tensor, Tensor, Tensor]:
        return self.padded[:n], self.power[:n], self.mel[:n]


def too_coarse(power: Float[Tensor, "n f"], limits: tuple[tuple[float, float], ...]) -> Int[Tensor, " k"]:
    """Frames that need float64, because float32 rounding of their strong bands shows in the weak.

    Measured on tones in noise and on recordings: the relative error of a band with mean power p, in a frame whose
    strongest has q, stays below 3e-7 * sqrt(q / p), so 1e-3 at q / p = exp(16).

    Args:
        power: Mean power under each filter.
        limits: (level, span) pairs: no band above `level` may lie more than a factor of `span` below the strongest.
    """
    low, high = power.amin(1), power.amax(1)  # on CPUs ten times as fast as aminmax
    wanted = torch.zeros_like(high, dtype=torch.bool)
    for level, span in limits:
        wanted |= high > low.clamp(min=level) * span
    return wanted.nonzero().flatten()


def dft_basis(window: Float[Tensor, " w"], fft: int) -> Float[Tensor, "w bins2"]:
    """Window times cosine and minus sine tables, side by side: `frame @ basis` is (real | imaginary)."""
    n, k = torch.arange(len(window)), torch.arange(fft // 2 + 1)
    angle = (n[:, None] * k % fft).double() * (2 * math.pi / fft)  # reduced first: exact for large n * k
    return (torch.cat([angle.cos(), -angle.sin()], dim=1) * window.double()[:, None]).float()


def hann(length: int, *, periodic: bool) -> Float[Tensor, " w"]:
    """Hann window in float64; symmetric (both ends zero) unless `periodic`."""
    return torch.hann_window(length, periodic=periodic, dtype=torch.float64)


def _trim(weights: Tensor) -> tuple[int, int, Tensor]:
    used = weights.any(dim=1).nonzero().flatten()
    first, last = (int(used[0]), int(used[-1]) + 1) if len(used) else (0, 1)
    return first, last, weights[first:last].contiguous()
