"""Changing the sample rate: soxr for waves on disk, a windowed-sinc filter for published numbers and in-graph use."""

from __future__ import annotations

import math

import numpy as np
import soxr
from jaxtyping import Float32

from otic.audio.sinc import sinc_resample

__all__ = ["Resampler", "cut", "resample", "sinc_resample"]

SOXR_CONTEXT = 256  # samples of the slower rate which soxr's HQ filter can see to either side (measured: under 200)


def resample(wave: Float32[np.ndarray, " s"], old: int, new: int) -> Float32[np.ndarray, " t"]:
    """A mono wave at another rate, by soxr in its "HQ" quality (flat to 0.91 of Nyquist, aliases under -140 dB).

    The result has `round(s * new / old)` samples, but at least one; with equal rates it is `wave` itself.

    >>> resample(np.zeros(44100, np.float32), 44100, 16000).shape
    (16000,)
    """
    if old == new or not len(wave):
        return wave
    out = soxr.resample(np.ascontiguousarray(wave), old, new, quality="HQ")
    return out if len(out) else wave[:1]


class Resampler:
    """`resample` for a wave that comes in pieces: the joined results equal the result of the joined pieces."""

    def __init__(self, old: int, new: int):
        self._soxr = None if old == new else soxr.ResampleStream(old, new, 1, dtype="float32", quality="HQ")
        self._first: np.ndarray | None = None  # kept for sounds so short that nothing comes out
        self._some = False

    def push(self, wave: Float32[np.ndarray, " s"]) -> Float32[np.ndarray, " t"]:
        """What the next piece of input yields (a little less than its length suggests: the filter looks ahead)."""
        if self._soxr is None:
            return wave
        if self._first is None and len(wave):
            self._first = wave[:1].copy()
        return self._emit(self._soxr.resample_chunk(np.ascontiguousarray(wave)))

    def close(self) -> Float32[np.ndarray, " t"]:
        """The rest, once the last piece has been pushed."""
        if self._soxr is None:
            return np.zeros(0, np.float32)
        rest = self._emit(self._soxr.resample_chunk(np.zeros(0, np.float32), last=True))
        return rest if self._some or self._first is None else self._first

    def _emit(self, out: np.ndarray) -> np.ndarray:
        self._some = self._some or len(out) > 0
        return out


def cut(start: float, duration: float | None, old: int, new: int) -> tuple[int, int | None, int, int | None]:
    """Which input samples a stretch of the resampled wave needs, and where it then lies in their result.

    Resampling only a piece gives the same samples as resampling the whole if the piece starts where an input and
    an output sample coincide, and has the filter's context on both sides.

    Args:
        start, duration: The stretch, in seconds (`None`: to the end).

    Returns:
        First input sample, number of input samples (`None`: all), first output sample to keep, number to keep.
    """
    first = round(start * new)
    count = None if duration is None else round(duration * new)
    if old == new:
        return first, count, 0, count
    step = math.gcd(old, new)
    margin = math.ceil(SOXR_CONTEXT * new / min(old, new))
    meets = max(0, first - margin) // (new // step)  # the last common sample before the stretch and its context
    begin = meets * (old // step)
    size = None if count is None else math.ceil((first + count + margin) * old / new) - begin
    return begin, size, first - meets * (new // step), count
