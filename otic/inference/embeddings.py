"""The record that inference returns: vectors, and where in time and in which file each one lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32


@dataclass(frozen=True)
class Embeddings:
    """Vectors of one source or of several, in the order of the inputs.

    Attributes:
        vectors: `[w, D]` float32, one row for each window (or frame).
        spans: `[w, 2]` start and end in seconds from the beginning of the row's file.
        source: The name of the one source, or (for a list) the name of each row's.
        failed: (source, reason) for each input that could not be read to its end.
    """

    vectors: Float32[np.ndarray, "w D"]
    spans: Float[np.ndarray, "w 2"]
    source: str | tuple[str, ...]
    failed: tuple[tuple[str, str], ...] = ()

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def files(self) -> tuple[str, ...]:
        """The source of each row."""
        return (self.source,) * len(self) if isinstance(self.source, str) else self.source


def failure(name: str, reason: str) -> Embeddings:
    """A source that gave nothing."""
    told = reason.removeprefix(f"{name}: ")  # the reader names it too
    return Embeddings(np.zeros((0, 0), np.float32), np.zeros((0, 2)), name, ((name, told),))


def join(parts: Sequence[Embeddings], dim: int) -> Embeddings:
    """Several as one, row after row; `dim` is the width where there are no rows."""
    full = [p for p in parts if len(p)]
    return Embeddings(
        np.concatenate([p.vectors for p in full] or [np.zeros((0, dim), np.float32)]),
        np.concatenate([p.spans for p in full] or [np.zeros((0, 2))]),
        tuple(name for p in full for name in p.files),
        tuple(f for p in parts for f in p.failed),
    )
