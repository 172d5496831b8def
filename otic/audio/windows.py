"""Windows over a sound of any length, with the time span of each; files are streamed in constant memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64

from otic.audio.levels import warn_of
from otic.audio.read import Src, decoded, finish
from otic.audio.resample import Resampler
from otic.core.errors import ConfigError


def starts(total: int, window: int, hop: int, *, slack: int = 0) -> list[int]:
    """First samples of the windows over `total` samples.

    Windows start every `hop` samples as long as they fit. If the last one does not reach the end, one more is moved
    back so that it ends with the sound: no window holds padding, and every sample is covered when `hop <= window`.
    A sound shorter than a window is one short window. A rest of `slack` samples or less is rounding, and left out.

    >>> starts(25, 10, 10)
    [0, 10, 15]
    >>> starts(7, 10, 10)
    [0]
    """
    if total <= window:
        return [0]
    first = list(range(0, total + slack - window + 1, hop))
    return [*first, total - window] if first[-1] + max(window, hop) < total - slack else first


def spans(seconds: float, window: float, hop: float) -> Float64[np.ndarray, "w 2"]:
    """Start and end in seconds of the windows over a sound (to the microsecond; rule as in `starts`).

    >>> spans(2.5, 1.0, 1.0).tolist()
    [[0.0, 1.0], [1.0, 2.0], [1.5, 2.5]]
    """
    _check(window, hop)
    grid = 1_000_000
    total, size = round(seconds * grid), round(window * grid)
    first = np.array(starts(total, size, max(1, round(hop * grid)), slack=10))
    return np.stack([first, np.minimum(first + size, total)], 1) / grid


def _check(window: float, hop: float) -> None:
    if not (window > 0 and hop > 0):
        raise ConfigError(f"window={window}, hop={hop}: both must be more than 0 seconds.")


def stream(
    src: Src, *, rate: int, window: float, hop: float, block: int = 16, warn: bool = True, **options: Any
) -> Iterator[tuple[Float32[np.ndarray, "k s"], Float64[np.ndarray, "k 2"]]]:
    """Blocks of windows of a sound at `rate`, with their spans in seconds, in memory independent of its length.

    Windows lie as `spans` says. Only a sound shorter than a window yields a shorter wave; nothing is padded.
    What the sound is warned of (`AudioWarning`) is known when its end is reached.

    Args:
        src: As for `read`.
        rate: Samples per second of the windows.
        window, hop: Seconds.
        block: Most windows in one block.
        warn: Whether to warn.
        options: `on_error` and `non_finite`, as for `read`.

    Raises:
        AudioError: as `read`; windows before the damage have then been given out already.
    """
    _check(window, hop)
    size, step = max(1, round(window * rate)), max(1, round(hop * rate))
    cutter = _Cutter(size, step, block)
    for piece in _pieces(src, rate, warn, options):
        for first, waves in cutter.push(piece):
            yield waves, _seconds(first, waves.shape[1], rate)
    for first, waves in cutter.close():
        yield waves, _seconds(first, waves.shape[1], rate)


def _seconds(first: list[int], size: int, rate: int) -> np.ndarray:
    return np.array([[a, a + size] for a in first], np.float64) / rate


def _pieces(src: Src, rate: int, warn: bool, options: dict[str, Any]) -> Iterator[np.ndarray]:
    """The sound at `rate`, piece by piece."""
    with decoded(src, **options) as sound:
        resampler = Resampler(sound.decoder.rate, rate)
        for piece in sound.mono(chunk=1 << 18):
            yield resampler.push(piece)
        yield resampler.close()
        warn_of(sound.name, finish(sound), warn)


class _Cutter:
    """Cuts a stream of samples into windows."""

    def __init__(self, size: int, hop: int, block: int):
        self.size, self.hop, self.block = size, hop, block
        self.pieces: deque[np.ndarray] = deque()  # joined when a window is complete: long windows have many
        self.at = 0  # the stream position of the first piece's first sample
        self.end = 0  # and after the last one's last
        self.next = 0  # where the next window starts

    def push(self, piece: np.ndarray) -> Iterator[tuple[list[int], np.ndarray]]:
        self.pieces.append(piece)
        self.end += len(piece)
        while self.next + self.size <= self.end:
            fit = min(self.block, (self.end - self.size - self.next) // self.hop + 1)
            first = [self.next + i * self.hop for i in range(fit)]
            yield first, np.stack([self._window(a) for a in first])
            self.next = first[-1] + self.hop
        keep = min(self.next, self.end - self.size)  # a last window may be moved back
        while self.at + len(self.pieces[0]) <= keep:
            self.at += len(self.pieces.popleft())
        if self.at < keep:
            self.pieces[0], self.at = self.pieces[0][keep - self.at :], keep

    def close(self) -> Iterator[tuple[list[int], np.ndarray]]:
        last = starts(self.end, self.size, self.hop)[-1]
        if self.end and (self.next == 0 or last > self.next - self.hop):
            yield [last], self._window(last)[None]

    def _window(self, first: int) -> np.ndarray:
        if len(self.pieces) > 1:
            self.pieces = deque([np.concatenate(self.pieces)])
        return self.pieces[0][first - self.at : first - self.at + self.size]
