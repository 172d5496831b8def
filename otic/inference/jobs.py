"""Embed many sources of any length: windows of several files share a pass, the memory stays bounded, order is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from jaxtyping import Float32, Real

from otic.core.machine import cores
from otic.inference.ahead import ahead
from otic.inference.embeddings import Embeddings
from otic.inference.options import Options
from otic.inference.sources import End, Src, Window, name_of, windows

SPAN = 10.0  # seconds of a window, unless the model's card knows better
CHUNK = 320.0  # seconds of sound held before they are encoded, and as many read ahead; 20 MB each at 16 kHz
READERS = 8  # threads that read, at most

Encode = Callable[[Sequence[np.ndarray]], list[np.ndarray]]  # waves -> [D] or [t', D] for each


@dataclass
class _Open:
    """A source some of whose windows are still to come."""

    vectors: list[np.ndarray] = field(default_factory=list)
    spans: list[np.ndarray] = field(default_factory=list)
    told: float = 0.0  # seconds which the rows so far reach

    def add(self, vectors: np.ndarray, span: tuple[float, float], frame_seconds: float | None) -> None:
        if frame_seconds is None:
            rows, spans = vectors[None], np.array([span])
        else:
            rows, spans = _frames(vectors, span, self.told, frame_seconds)
        self.vectors.append(rows)
        self.spans.append(spans)
        self.told = span[1]


def run(
    sources: Iterable[Src],
    encode: Encode,
    rate: int,
    options: Options,
    frame_seconds: float | None = None,
    *,
    strict: bool = False,
    span: float = SPAN,
) -> Iterator[Embeddings]:
    """One `Embeddings` for each source, in order.

    Args:
        sources: Paths, file objects or (array, rate).
        encode: Vectors `[D]` of each wave, or `[t', D]` where `frame_seconds` is given.
        rate: The rate that `encode` wants.
        options: Window and hop in seconds.
        frame_seconds: Length of one frame; None for one vector per window.
        strict: Raise at the first source that cannot be read, instead of naming it in its `failed`.
        span: Seconds of a window where one vector stands for the whole file.

    Raises:
        AudioError: when `strict`.
    """
    listed = list(sources)
    length = options.window or span
    waiting: list[Window] = []
    over: list[End] = []
    opened: dict[int, _Open] = {}

    def flush() -> Iterator[Embeddings]:
        for w, vectors in zip(waiting, encode([w.wave for w in waiting]) if waiting else [], strict=True):
            opened.setdefault(w.source, _Open()).add(vectors, w.span, frame_seconds)
        for end in over:
            name = name_of(listed[end.source], end.source)
            yield _close(
                opened.pop(end.source, _Open()), name, end.reason, whole=not options.window and not frame_seconds
            )
        waiting.clear()
        over.clear()

    read = partial(windows, rate=rate, window=length, hop=options.hop or length, strict=strict)
    makers = [partial(read, src, i) for i, src in enumerate(listed)]
    held, room = 0, round(CHUNK * rate)
    for event in ahead(makers, _samples, room, _threads(listed)):
        if isinstance(event, Window):
            waiting.append(event)
            held += len(event.wave)
        else:
            over.append(event)
        if held >= room or len(over) >= 1024:
            yield from flush()
            held = 0
    yield from flush()


def _samples(event: Window | End) -> int:
    return len(event.wave) if isinstance(event, Window) else 0


def _threads(sources: Sequence[Src]) -> int:
    """Files read at once; a file object may stand in the list twice, and has one position."""
    return 1 if any(hasattr(src, "read") for src in sources) else min(cores(), READERS)


def _frames(rows: np.ndarray, span: tuple[float, float], told: float, seconds: float) -> tuple[np.ndarray, np.ndarray]:
    """The frames of a window after second `told`, and their spans: each moment of a file is told once.

    The last window of a file overlaps the one before it, when it was moved back to end with the file.
    """
    edges = np.minimum(span[0] + seconds * np.arange(len(rows) + 1), span[1])
    fresh = (edges[1:] > told + 1e-6) & (edges[1:] > edges[:-1])  # a short window was lengthened: nothing lies past it
    return rows[fresh], np.stack([np.maximum(edges[:-1], told), edges[1:]], 1)[fresh]


def _close(source: _Open, name: str, reason: str | None, *, whole: bool) -> Embeddings:
    failed = () if reason is None else ((name, reason.removeprefix(f"{name}: ")),)  # the reader names it too
    if not source.vectors:
        return Embeddings(np.zeros((0, 0), np.float32), np.zeros((0, 2)), name, failed)
    vectors, spans = np.concatenate(source.vectors), np.concatenate(source.spans)
    if whole:
        vectors, spans = weigh(vectors, spans)[None], np.array([[spans[0, 0], spans[-1, 1]]])
    return Embeddings(vectors, spans, name, failed)


def weigh(vectors: Float32[np.ndarray, "w D"], spans: Real[np.ndarray, "w 2"]) -> Float32[np.ndarray, " D"]:
    """The mean of the rows, each weighed by what its span adds to the spans before it: every moment counts once."""
    told = np.concatenate([spans[:1, 0], spans[:-1, 1]])
    weights = spans[:, 1] - np.maximum(spans[:, 0], told)
    return (weights @ vectors.astype(np.float64) / weights.sum()).astype(np.float32)
