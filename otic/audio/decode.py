"""From bytes to blocks of samples: what every decoder does, arrays as they are, and soundfile."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile as sf

from otic.audio import ogg
from otic.audio.hush import hushed
from otic.audio.opened import Opened
from otic.core.errors import AudioError

UNKNOWN = 1 << 62  # what libsndfile says of a stream whose header leaves the length open
SMALL = 1 << 12  # samples of a block where damage is near
LOSSY = ("VORBIS", "OPUS", "MPEG_LAYER_I", "MPEG_LAYER_II", "MPEG_LAYER_III")


class Decoder(ABC):
    """Samples of one sound at its own rate; `frames` is what its header claims, None when it claims nothing."""

    rate: int
    channels: int
    frames: int | None
    format: str
    lossy: bool

    @abstractmethod
    def blocks(self, start: int, frames: int | None, chunk: int) -> Iterator[np.ndarray]:
        """Float32 blocks `[n, channels]` of about `chunk` samples, from frame `start` on.

        Raises:
            AudioError: where the data cannot be decoded further.
        """

    def close(self) -> None:  # noqa: B027  # most have nothing to close
        pass


class ArrayDecoder(Decoder):
    """An array that is the sound already."""

    def __init__(self, wave: Any, rate: Any, name: str):
        if not isinstance(rate, int | np.integer) or isinstance(rate, bool):
            raise AudioError(f"{name}: the sample rate {rate!r} is not a whole number of Hz.", "bad_header")
        self.data = _frames_first(_floats(wave, name), name)
        self.rate, self.channels, self.frames = int(rate), self.data.shape[1], len(self.data)
        self.format, self.lossy = "array", False

    def blocks(self, start: int, frames: int | None, chunk: int) -> Iterator[np.ndarray]:
        end = len(self.data) if frames is None else min(len(self.data), start + frames)
        for at in range(start, end, max(1, chunk // self.channels)):
            yield self.data[at : min(end, at + max(1, chunk // self.channels))]


def _floats(wave: Any, name: str) -> np.ndarray:
    """Float32, full scale 1; integers are scaled by their range."""
    if hasattr(wave, "detach"):
        wave = wave.detach().cpu()
        wave = wave.float() if wave.is_floating_point() else wave  # numpy has no bfloat16
    x = np.asarray(wave)
    if x.dtype == np.uint8:
        return (x.astype(np.float32) - 128) / 128
    if x.dtype in (np.int8, np.int16, np.int32):
        return x.astype(np.float32) / -float(np.iinfo(x.dtype).min)
    if not np.issubdtype(x.dtype, np.floating):
        text = f"{name}: an array of {x.dtype} is not sound. Give floats in -1..1, or 8-, 16- or 32-bit integers."
        raise AudioError(text, "unsupported_format")
    return np.ascontiguousarray(x, np.float32)


def _frames_first(x: np.ndarray, name: str) -> np.ndarray:
    """`[s]`, `[s, c]` or `[c, s]` as `[s, c]`: channels are fewer than samples."""
    if x.ndim == 1:
        return x[:, None]
    if x.ndim == 2 and not x.size:
        raise AudioError(f"{name}: an array without any samples.", "empty_audio")
    if x.ndim != 2 or x.shape[0] == x.shape[1]:
        raise AudioError(
            f"{name}: an array of shape {list(x.shape)} is not sound. Give [samples] or [samples, channels].",
            "bad_header",
        )
    return x if x.shape[0] > x.shape[1] else np.ascontiguousarray(x.T)


class _Forward(sf.SoundFile):
    """soundfile seeks to where it is after every read of a seekable file: that takes time, and fails near damage."""

    def seekable(self) -> bool:
        return False


class SoundfileDecoder(Decoder):
    """Everything libsndfile reads; with a file descriptor it decodes without holding Python's lock.

    Args:
        quiet: Keep the MP3 decoder from writing to standard error.
    """

    def __init__(self, file: Opened, *, quiet: bool = False):
        self.opened, self.name, self.quiet = file, file.name, quiet
        self._open()
        self.rate, self.channels = self.file.samplerate, self.file.channels
        self.frames = self.file.frames if self.file.frames < UNKNOWN else None
        self.format, self.lossy = f"{self.file.format}/{self.file.subtype}", self.file.subtype in LOSSY

    def _open(self) -> None:
        with hushed(self.quiet):
            self.file = _Forward(self.opened.rewound(), closefd=False)

    def blocks(self, start: int, frames: int | None, chunk: int) -> Iterator[np.ndarray]:
        total = self.file.frames
        at, end = start, total if frames is None else min(total, start + frames)
        size, least = max(1, chunk // self.channels), max(1, SMALL // self.channels)
        there = not start  # whether the decoder stands at `at`
        while at < end:
            try:
                if not there:
                    self._go(at, least)
                with hushed(self.quiet):
                    block = self.file.read(min(size, end - at), dtype="float32", always_2d=True)
            except sf.SoundFileError as error:
                if size <= least:
                    raise self._broken(at, error) from None
                self.close()  # the block is lost; once more in small ones, up to the damage
                self._open()
                size, there = least, False
                continue
            if not len(block):
                return
            yield block
            at, there = at + len(block), True

    def _go(self, at: int, chunk: int) -> None:
        """Stand at a frame, coming from one from which the decoder gets there exactly."""
        begin = at
        if self.file.subtype.startswith("MPEG"):
            begin = max(0, at - self.rate // 2)  # what comes just after a jump lacks its bit reservoir
        elif self.file.subtype == "VORBIS":
            begin = min(at, ogg.safe_seek(self.opened))
        with hushed(self.quiet):
            if sf.SoundFile.seekable(self.file):
                self.file.seek(begin)
            else:  # GSM, G.721: libsndfile only goes forward in them
                self.close()
                self._open()
                begin = 0
            while begin < at:
                passed = len(self.file.read(min(at - begin, 16 * chunk), dtype="float32", always_2d=True))
                if not passed:
                    return
                begin += passed

    def _broken(self, at: int, error: Exception) -> AudioError:
        return broken(self.name, at / self.rate, error, cut=self.opened.position() >= self.opened.size)

    def close(self) -> None:
        with hushed(self.quiet):
            self.file.close()


def broken(name: str, seconds: float, error: Exception, *, cut: bool) -> AudioError:
    """The error for a sound that can be decoded up to here.

    Args:
        cut: The decoder has eaten the whole file: it wants bytes that are not there.
    """
    text = f"{name}: {'cut off' if cut else 'damaged'} after {seconds:.2f} s ({reason_of(error)})."
    mend = 'Fetch or export it again, or read with on_error="partial".'
    return AudioError(f"{text} {mend}", "truncated" if cut else "corrupt")


def reason_of(error: Exception) -> str:
    """A decoder's own words, in one line."""
    text = (
        getattr(error, "error_string", None) or getattr(error, "strerror", None) or str(error) or type(error).__name__
    )
    return " ".join(str(text).removeprefix("Error : ").split()).rstrip(".")
