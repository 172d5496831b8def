"""From bytes to blocks of samples: soundfile for what it knows, PyAV for the rest, arrays as they are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import soundfile as sf

from otic.audio.containers import format_of, refusal
from otic.audio.opened import Opened
from otic.core.errors import AudioError

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
    if x.ndim != 2 or x.shape[0] == x.shape[1]:
        raise AudioError(
            f"{name}: an array of shape {list(x.shape)} is not sound. Give [samples] or [samples, channels].",
            "bad_header",
        )
    return x if x.shape[0] > x.shape[1] else np.ascontiguousarray(x.T)


class SoundfileDecoder(Decoder):
    """Everything libsndfile reads; with a file descriptor it decodes without holding Python's lock."""

    def __init__(self, file: Opened):
        self.file = sf.SoundFile(file.rewound(), closefd=False)
        self.rate, self.channels = self.file.samplerate, self.file.channels
        self.frames = self.file.frames if self.file.frames < 1 << 62 else None  # a stream of unknown length
        self.format, self.lossy = f"{self.file.format}/{self.file.subtype}", self.file.subtype in LOSSY
        self.name = file.name

    def blocks(self, start: int, frames: int | None, chunk: int) -> Iterator[np.ndarray]:
        total = self.file.frames
        at, end = start, total if frames is None else min(total, start + frames)
        size = max(1, chunk // self.channels)
        try:
            if 0 < at < end:
                self.file.seek(at)
            while at < end:
                block = self.file.read(min(size, end - at), dtype="float32", always_2d=True)
                if not len(block):
                    return
                yield block
                at += len(block)
        except sf.SoundFileError as error:
            raise _broken(self.name, at / self.rate, error) from None

    def close(self) -> None:
        self.file.close()


def _broken(name: str, seconds: float, error: Exception) -> AudioError:
    text = f"{name}: damaged after {seconds:.2f} s ({_reason(error)})."
    return AudioError(f'{text} Fetch or export it again, or read with on_error="partial".', "corrupt")


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    return " ".join(str(text).split()).rstrip(".")


def open_decoder(file: Opened) -> tuple[Decoder, str]:
    """The decoder for a file, and the format its content says it has.

    Raises:
        AudioError: not decodable here; the kind says why.
    """
    kind = format_of(file)
    reason = "no known signature"
    if kind not in ("unknown", "mp4", "matroska", "asf", "aac"):
        try:
            return SoundfileDecoder(file), kind
        except (sf.SoundFileError, TypeError) as error:  # TypeError: it takes the name for headerless samples
            reason = _reason(error)
    raise refusal(file, kind, reason)
