"""Reading sound: any file, file object, bytes or array becomes one float32 wave, and says what was wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32

from otic.audio.choose import open_decoder
from otic.audio.containers import LEAST_RATE, Claims, claims, empty
from otic.audio.decode import ArrayDecoder, Decoder, SoundfileDecoder
from otic.audio.find import Found, find
from otic.audio.levels import Levels, warn_of
from otic.audio.opened import Bytes, Opened, opened, source_name
from otic.audio.pyav import PyAVDecoder, is_installed
from otic.audio.resample import cut, resample
from otic.core.errors import AudioError, ConfigError
from otic.core.text import printable

__all__ = ["Found", "Info", "Sound", "Src", "find", "info", "read"]

Src = Bytes | tuple | Any  # tuple: (array, rate)
MAX_SECONDS = 4 * 3600.0  # longer sounds are for `stream`: an hour at 48 kHz is 0.7 GB
CHUNK = 1 << 22  # samples of one block: most recordings come in one piece
TOLERANCE = 0.1  # seconds a decoder's claim may be off before that is called damage (encoder delay, padding)


@dataclass(frozen=True)
class Sound:
    """A mono wave.

    `wave` float32 `[s]`, full scale 1; `rate` in Hz; `source` the path as given, or a name; `notes` the kinds of
    `AudioWarning` it gave rise to.
    """

    wave: Float32[np.ndarray, " s"]
    rate: int
    source: str
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        return len(self.wave) / self.rate


@dataclass(frozen=True)
class Info:
    """What a header says: `rate` in Hz, `seconds` None when it does not tell."""

    rate: int
    channels: int
    seconds: float | None
    format: str


@dataclass
class Decoded:
    """A sound opened for decoding."""

    name: str  # printable
    decoder: Decoder
    levels: Levels
    partial: bool = False  # keep what can be decoded
    file: Opened | None = None  # None: an array
    kind: str = "array"
    damage: AudioError | None = None  # where decoding failed, when partial
    claims: Claims = field(default_factory=Claims)

    def mono(self, start: int = 0, frames: int | None = None, chunk: int = CHUNK) -> Iterator[np.ndarray]:
        """Blocks of the mean of the channels, at the decoder's rate."""
        if self.reaches_end(start, frames) and self.file is not None:
            self.claims = claims(self.file, self.kind, whole=True)
            if self.claims.noisy and isinstance(self.decoder, SoundfileDecoder):
                self.decoder.quiet = True
        for block in self._blocks(start, frames, chunk):
            yield self.levels.mono(block, self.decoder.rate)

    def reaches_end(self, start: int, frames: int | None) -> bool:
        return frames is None or (self.decoder.frames is not None and start + frames >= self.decoder.frames)

    def _blocks(self, start: int, frames: int | None, chunk: int) -> Iterator[np.ndarray]:
        done = 0
        try:
            for block in self.decoder.blocks(start, frames, chunk):
                yield block
                done += len(block)
        except AudioError as error:
            if not self.partial:
                raise
            self.damage = error
            yield from self._rest(start + done, None if frames is None else frames - done, chunk)

    def _rest(self, start: int, frames: int | None, chunk: int) -> Iterator[np.ndarray]:
        """What PyAV can decode where soundfile gave up."""
        if self.file is None or not isinstance(self.decoder, SoundfileDecoder) or not is_installed():
            return
        try:
            other = PyAVDecoder(self.file, mp3=self.kind == "mp3", seeks=False)
            try:
                if (other.rate, other.channels) == (self.decoder.rate, self.decoder.channels):
                    yield from other.blocks(start, frames, chunk)
            finally:
                other.close()
        except AudioError as error:
            self.damage = error


@contextmanager
def decoded(src: Src, *, on_error: str = "raise", non_finite: str = "raise") -> Iterator[Decoded]:
    """Open any source for decoding.

    Raises:
        AudioError: it cannot be opened, or its header is nonsense.
        ConfigError: an option that does not exist.
    """
    _check_option("on_error", on_error, ("raise", "partial"))
    _check_option("non_finite", non_finite, ("raise", "zero"))
    name = printable(source_name(src))
    if isinstance(src, tuple):
        if len(src) != 2:
            raise AudioError(f"a tuple of {len(src)} is not sound. Give (array, rate).", "unsupported_format")
        decoder: Decoder = ArrayDecoder(src[0], src[1], "<array>")
        yield _sane(Decoded("<array>", decoder, Levels("<array>", non_finite)))
        return
    if not isinstance(src, Bytes):
        text = f"{name}: neither a path, nor bytes, nor a binary file. Give an array with its rate: (array, rate)."
        raise AudioError(text, "not_a_file")
    with opened(src) as file:
        decoder, kind = open_decoder(file)
        try:
            yield _sane(Decoded(name, decoder, Levels(name, non_finite), on_error == "partial", file, kind))
        finally:
            decoder.close()


def _check_option(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value!r}: it is one of {', '.join(map(repr, known))}.")


def _sane(sound: Decoded) -> Decoded:
    if sound.decoder.rate < LEAST_RATE:
        text = f"{sound.name}: a sample rate of {sound.decoder.rate} Hz; at least {LEAST_RATE} Hz make sound."
        raise AudioError(f"{text} Correct the header.", "bad_header")
    return sound


def read(
    src: Src,
    *,
    rate: int | None = None,
    start: float = 0.0,
    duration: float | None = None,
    on_error: Literal["raise", "partial"] = "raise",
    non_finite: Literal["raise", "zero"] = "raise",
    max_seconds: float | None = MAX_SECONDS,
    warn: bool = True,
) -> Sound:
    """Read a sound, or a stretch of it, as one mono wave: the mean of its channels.

    A stretch is sample-exact: it equals the same samples of the whole, read and resampled. A mono float32 array at its
    own rate is not copied.

    Args:
        src: A path, "-" for standard input, a binary file object, bytes, or `(array, rate)` with an array `[s]` or
            `[s, channels]` of floats or of integers (scaled by their range).
        rate: Resample to this many Hz (soxr, HQ); None keeps the file's rate.
        start, duration: The stretch, in seconds; it ends with the sound if that is shorter.
        on_error: At damage in the middle "raise", or keep what can be decoded ("partial") with a warning.
        non_finite: At NaN or infinite samples "raise", or make them "zero" with a warning.
        max_seconds: Longer results are refused before anything is decoded; None: no limit.
        warn: Whether to warn; `Sound.notes` names the kinds in any case.

    Raises:
        AudioError: not to be used; its `kind` says why.
        ConfigError: a stretch or a rate that is none.

    Warns:
        AudioWarning: usable, but truncated, silent, over full scale, ...; its `kind` says which.
    """
    _check_stretch(start, duration)
    if rate is not None and not (isinstance(rate, Integral) and rate >= 1):
        raise ConfigError(f"rate={rate!r}: a whole number of Hz, or None for the file's own.")
    with decoded(src, on_error=on_error, non_finite=non_finite) as sound:
        old, new = sound.decoder.rate, sound.decoder.rate if rate is None else int(rate)
        _check_length(sound, start, duration, max_seconds)
        first, frames, skip, count = cut(start, duration, old, new)
        pieces = list(_within(sound, sound.mono(first, frames), max_seconds))
        wave = pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.zeros(0, np.float32)])
        findings = finish(sound, first, frames)
        wave = resample(wave, old, new)[skip : None if count is None else skip + count]
        if not len(wave):
            raise AudioError(f"{sound.name}: it ends before the start at {start:g} s. Start earlier.", "too_short")
        notes = warn_of(sound.name, findings, warn)
    return Sound(wave, new, source_name(src) if not isinstance(src, tuple) else "<array>", notes)


def _check_stretch(start: float, duration: float | None) -> None:
    if not 0 <= start < float("inf") or (duration is not None and not 0 < duration < float("inf")):
        raise ConfigError(f"start={start}, duration={duration}: from 0 seconds on, and more than 0 seconds long.")


def _check_length(sound: Decoded, start: float, duration: float | None, most: float | None) -> None:
    if most is None:
        return
    seconds = float("inf") if sound.decoder.frames is None else sound.decoder.frames / sound.decoder.rate - start
    seconds = min(seconds, float("inf") if duration is None else duration)
    if most < seconds < float("inf"):
        raise _too_long(sound, f"{seconds:.0f} s", most)


def _within(sound: Decoded, pieces: Iterator[np.ndarray], most: float | None) -> Iterator[np.ndarray]:
    """The pieces, as long as they stay within the limit: headers may claim less, or nothing."""
    for piece in pieces:
        seconds = sound.levels.frames / sound.decoder.rate
        if most is not None and seconds > most + 2:  # a stretch is read with a little more around it
            raise _too_long(sound, f"{seconds:.0f} s and more", most)
        yield piece


def _too_long(sound: Decoded, length: str, most: float) -> AudioError:
    text = f"{sound.name}: {length} in one piece are over the limit of {most:.0f} s."
    return AudioError(f"{text} Give a duration, raise max_seconds, or stream it.", "too_long")


def finish(sound: Decoded, start: int = 0, frames: int | None = None) -> list[tuple[str, str]]:
    """What to warn of, once all blocks have been read.

    Raises:
        AudioError: there was nothing to read.
    """
    decoder, levels = sound.decoder, sound.levels
    if not levels.frames:
        if sound.damage is not None:
            raise sound.damage
        if start:
            text = f"{sound.name}: it ends before the start at {start / decoder.rate:g} s. Start earlier."
            raise AudioError(text, "too_short")
        if sound.file is None:
            raise AudioError(f"{sound.name}: an array without any samples.", "empty_audio")
        raise empty(sound.file, sound.kind)
    found = _damage(sound, start, sound.reaches_end(start, frames))
    return found + levels.findings(decoder.rate, decoder.lossy)


def _damage(sound: Decoded, start: int, whole: bool) -> list[tuple[str, str]]:
    """What the container gives away, and how far the decoded length is from the promised one."""
    said, rate = sound.claims, sound.decoder.rate
    found = [(flaw.kind, flaw.text) for flaw in said.flaws]
    promised = said.seconds
    if promised is None and said.trusted and sound.decoder.frames is not None:
        promised = sound.decoder.frames / rate
    got = (start + sound.levels.frames) / rate
    of = "" if promised is None else f" of {promised:.2f} s"
    if sound.damage is not None:
        found.append((sound.damage.kind, f"{got:.2f} s{of} could be decoded"))
    elif whole and not found and promised is not None and got < promised - TOLERANCE:
        found.append(("truncated", f"{got:.2f} s{of} could be decoded"))
    return found


def info(src: Src) -> Info:
    """Rate, channels, length and format, from the header alone.

    Raises:
        AudioError: as `read`.
    """
    with decoded(src) as sound:
        d = sound.decoder
        return Info(d.rate, d.channels, None if d.frames is None else d.frames / d.rate, d.format)
