"""What may be embedded, its name, and its windows one after the other in constant memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from otic.audio.windows import stream
from otic.core.errors import AudioError, ConfigError

Src = Any  # a path, bytes, a binary file object, or (array, rate)


@dataclass(frozen=True)
class Window:
    """One window of one source: samples at the model's rate `[s]`, and where it lies in seconds."""

    source: int
    wave: np.ndarray
    span: tuple[float, float]


@dataclass(frozen=True)
class End:
    """A source is through, or could not be read further (`reason`)."""

    source: int
    reason: str | None = None


def is_one(src: Src) -> bool:
    """Whether this is a single source, as opposed to a list of them."""
    return isinstance(src, str | os.PathLike | bytes | tuple | np.ndarray) or hasattr(src, "read")


def with_rate(src: Src, sample_rate: int | None) -> Src:
    """`src`, its rate joined to it where it is a bare array.

    Raises:
        ConfigError: on an array without a rate (a wrong guess would change every vector silently).
    """
    if not isinstance(src, np.ndarray):
        return src
    if sample_rate is None:
        raise ConfigError("an array needs its rate: embed(array, sample_rate=44100), or embed((array, 44100)).")
    return (src, sample_rate)


def name_of(src: Src, index: int = 0) -> str:
    """The path of a file, the name of a file object, else `array-0`, `array-1`, ..."""
    if isinstance(src, str | os.PathLike):
        return os.fsdecode(src)
    name = getattr(src, "name", None)
    return name if isinstance(name, str) else f"{'file' if hasattr(src, 'read') else 'array'}-{index}"


def windows(
    src: Src, index: int, rate: int, window: float, hop: float, *, strict: bool = False
) -> Iterator[Window | End]:
    """Every window of a source, closed by its `End`; a bad one ends early, with the reason.

    Raises:
        AudioError: when it is bad and `strict`.
    """
    reason = None
    try:
        for waves, spans in stream(src, rate=rate, window=window, hop=hop):
            for wave, (start, end) in zip(waves, spans, strict=True):
                yield Window(index, wave, (float(start), float(end)))
    except AudioError as error:
        if strict:
            raise
        reason = str(error)
    yield End(index, reason)
