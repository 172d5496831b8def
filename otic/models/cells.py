"""Where a token lies in seconds and in hertz, and how one model's tokens are read on another model's grid.

A teacher's token map rarely has the student's grid. Each student patch takes the mean of the teacher's tokens, weighted
by the area that both cells share in the plane of seconds and hertz (`area`), or interpolated between the centres of the
teacher's cells (`bilinear`). Cells are float64 on the CPU: there are few of them, and neighbours meet exactly.

Axes: b clips, n student cells, m teacher cells, e channels of the teacher.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from otic.audio.frontend import FrontendConfig
from otic.audio.melbank import MelShape, from_mel, to_mel

TOUCH = 1e-6  # of a cell's width: what rounding may make neighbours share


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """Where the columns and rows of a spectrogram lie; the defaults are those of `FrontendConfig`."""

    rate: int = 16000  # Hz of the waves
    hop: int = 160  # samples between frames
    centred: bool = False  # frame i stands round sample i * hop, instead of beginning there
    mels: int = 128  # mel bands
    low: float = 20.0  # Hz, lower edge of the first band
    high: float = 8000.0  # Hz, upper edge of the last band
    mel: MelShape = "kaldi"  # the scale of the bands
    mel_rate: int | None = None  # Hz the bands are built for, where that differs from `rate`

    @staticmethod
    def of(cfg: FrontendConfig) -> Ruler:
        """The ruler of a front-end's spectrograms."""
        return Ruler(
            rate=cfg.sample_rate, hop=cfg.hop, centred=cfg.kind == "htsat", mels=cfg.mels, low=cfg.low, high=cfg.high,
            mel=cfg.mel if cfg.kind == "htsat" else "kaldi", mel_rate=cfg.mel_rate,
        )  # fmt: skip

    def seconds(self, frame: Float64[np.ndarray, " t"]) -> Float64[np.ndarray, " t"]:
        """Where these frames begin."""
        return (frame - 0.5 * self.centred) * self.hop / self.rate

    def hertz(self) -> Float64[np.ndarray, " f"]:
        """Borders of the bands, one more than there are: halfway (in mel) between the centres of neighbours."""
        bottom, top = to_mel(np.array([self.low, self.high]), self.mel)
        border = bottom + (np.arange(self.mels + 1) + 0.5) * (top - bottom) / (self.mels + 1)
        return from_mel(border, self.mel) * (self.rate / (self.mel_rate or self.rate))


@dataclass(frozen=True)
class Cells:
    """Begin and end of each token, in token order; clips may each have their own.

    Attributes:
        time: Seconds from the beginning of the clip.
        freq: Hz.
    """

    time: Float64[Tensor, "*b n 2"]
    freq: Float64[Tensor, "*b n 2"]

    def later(self, seconds: float) -> Cells:
        """The same cells, so much later."""
        return Cells(self.time + seconds, self.freq)


def join(parts: list[Cells]) -> Cells:
    """The cells of several token maps, one after the other."""
    return Cells(torch.cat([p.time for p in parts], -2), torch.cat([p.freq for p in parts], -2))


def patch_cells(ruler: Ruler, grid: tuple[int, int], patch: tuple[int, int], step: tuple[int, int]) -> Cells:
    """The cells of a spectrogram's patches, time-major.

    >>> patch_cells(Ruler(), (64, 8), (16, 16), (16, 16)).time[19 * 8]
    tensor([3.0400, 3.2000], dtype=torch.float64)
    """
    frame, band = np.arange(grid[0]) * step[0], np.arange(grid[1]) * step[1]
    hertz = ruler.hertz()
    time = np.stack([ruler.seconds(at.astype(np.float64)) for at in (frame, frame + patch[0])], 1)
    freq = np.stack([hertz[band], hertz[band + patch[1]]], 1)
    return Cells(torch.from_numpy(time).repeat_interleave(grid[1], 0), torch.from_numpy(freq).repeat(grid[0], 1))


def heard(cells: Cells, seconds: Float64[Tensor, " b"], at_least: float = 0.5) -> Bool[Tensor, "b n"]:
    """Which cells hold sound for at least this share of their time; the first column always does.

    Args:
        cells: Of a padded spectrogram, the same for all clips.
        seconds: Real length of each clip.
        at_least: Smallest share that counts.
    """
    first, last = cells.time.unbind(-1)
    share = (seconds[:, None].minimum(last) - first.clamp(min=0)) / (last - first)
    return (share >= at_least - TOUCH) | (first <= first.min())


def area(student: Cells, teacher: Cells) -> Float64[Tensor, "*b n m"]:
    """Seconds times hertz that each pair of cells shares; zero rows where the teacher has nothing."""
    return _shared(student.time, teacher.time) * _shared(student.freq, teacher.freq)


def bilinear(student: Cells, teacher: Cells) -> Float64[Tensor, "*b n m"]:
    """Weights that interpolate between the centres of the teacher's cells, which must form a grid; flat beyond the
    outermost centres, zero rows where the teacher has nothing."""
    if teacher.time.ndim == 3:  # clips with cells of their own, in which an empty cell fills a row up
        weights = torch.zeros(len(teacher.time), len(student.time), teacher.time.shape[1], dtype=torch.float64)
        for row, time, freq in zip(weights, teacher.time, teacher.freq.expand_as(teacher.time), strict=True):
            real = time[:, 1] > time[:, 0]
            row[:, real] = bilinear(student, Cells(time[real], freq[real]))
        return weights
    covered = (area(student, teacher) > 0).any(-1, keepdim=True)
    return _hats(student.time, teacher.time) * _hats(student.freq, teacher.freq) * covered


def blend(
    weights: Float64[Tensor, "*b n m"], tokens: Float[Tensor, "b m e"]
) -> tuple[Float[Tensor, "b n e"], Bool[Tensor, "b n"]]:
    """The teacher's tokens on the student's grid, float32, and which student cells the teacher covers at all.

    Args:
        weights: From `area` or `bilinear`; each row is brought to the sum 1.
        tokens: The teacher's, which must be finite.
    """
    total = weights.sum(-1, keepdim=True)
    covered = (total > 0).squeeze(-1).expand(len(tokens), -1)
    share = (weights / total.where(total > 0, 1.0)).to(tokens.device, torch.float32)
    with torch.autocast(tokens.device.type, enabled=False):
        return share @ tokens.float(), covered.to(tokens.device)


def _shared(ours: Float64[Tensor, "*b n 2"], theirs: Float64[Tensor, "*c m 2"]) -> Float64[Tensor, "*d n m"]:
    """Length that each pair of intervals has in common."""
    ours, theirs = ours[..., :, None, :], theirs[..., None, :, :]
    common = ours[..., 1].minimum(theirs[..., 1]) - ours[..., 0].maximum(theirs[..., 0])
    return common.where(common > TOUCH * (ours[..., 1] - ours[..., 0]), 0.0)


def _hats(ours: Float64[Tensor, "n 2"], theirs: Float64[Tensor, "m 2"]) -> Float64[Tensor, "n m"]:
    """Linear interpolation along one axis: the weight that each of their cells has at our centres."""
    at, (centres, index) = ours.mean(-1), torch.unique(theirs.mean(-1), return_inverse=True)
    if len(centres) == 1:
        return torch.ones(len(at), len(index), dtype=at.dtype)
    left = (torch.searchsorted(centres, at) - 1).clamp(0, len(centres) - 2)
    part = ((at - centres[left]) / (centres[left + 1] - centres[left])).clamp(0, 1)
    weights = torch.zeros(len(at), len(centres), dtype=at.dtype)
    weights.scatter_(1, left[:, None], 1 - part[:, None]).scatter_(1, left[:, None] + 1, part[:, None])
    return weights[:, index]
