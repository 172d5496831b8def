"""Vectors of a data set: every clip is decoded once for all models of one sample rate."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from otic.core.errors import DataError
from otic.data.crops import clips
from otic.data.rows import Source

BLOCK = 30_000_000  # samples decoded before they are encoded: enough to group by length, 120 MB


@runtime_checkable
class Encoder(Protocol):
    """What a model must have to be scored."""

    card: dict[str, Any]

    @property
    def sample_rate(self) -> int: ...

    def encode(
        self, waves: Sequence[np.ndarray], layers: Sequence[int] | None = None, pool: str | None = None
    ) -> np.ndarray: ...


@dataclass(frozen=True, kw_only=True)
class Reading:
    """One way to read a model out; None leaves it to the model's card."""

    layers: tuple[int, ...] | None = None
    pool: str | None = None

    def __str__(self) -> str:
        layers = "" if self.layers is None else "layers " + ",".join(map(str, self.layers))
        return " ".join(filter(None, [layers, self.pool])) or "default"


@dataclass
class Features:
    """The vectors of one model, by reading, and the time they took."""

    vectors: dict[str, np.ndarray] = field(default_factory=dict)  # [n, D] each
    seconds: float = 0.0


def extract(
    models: Mapping[str, Encoder],
    source: Source,
    readings: Mapping[str, Sequence[Reading]],
    progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Features], list[int], dict[str, str]]:
    """Vectors of all clips by all models.

    Returns:
        The features by model, the indices of the rows that could be read (those of the vectors), and the bad ones.

    Raises:
        DataError: when no clip can be read.
    """
    rates = sorted({m.sample_rate for m in models.values()})
    bad: dict[str, str] = {}
    done: dict[str, Features] = {}
    rows: dict[str, list[int]] = {}
    for k, rate in enumerate(rates):
        group = {name: m for name, m in models.items() if m.sample_rate == rate}

        def step(count: int, k: int = k) -> None:
            if progress:
                progress(k * len(source) + count, len(rates) * len(source))

        found, kept = _extract(group, source, rate, readings, bad, step)
        done |= found
        rows |= dict.fromkeys(group, kept)
    good = sorted(set.intersection(*map(set, rows.values())))
    if not good:
        raise DataError(f"{source.name}: none of its {len(source)} clips can be read.")
    for name, features in done.items():
        place = {row: i for i, row in enumerate(rows[name])}
        keep = [place[row] for row in good]
        features.vectors = {reading: x[keep] for reading, x in features.vectors.items()}
    return {name: done[name] for name in models}, good, bad


def _extract(
    models: Mapping[str, Encoder],
    source: Source,
    rate: int,
    readings: Mapping[str, Sequence[Reading]],
    bad: dict[str, str],
    step: Callable[[int], None],
) -> tuple[dict[str, Features], list[int]]:
    parts: dict[tuple[str, str], list[np.ndarray]] = {}
    seconds = dict.fromkeys(models, 0.0)
    kept: list[int] = []
    block: list[np.ndarray] = []

    def flush() -> None:
        for name, model in models.items():
            began = time.perf_counter()
            for reading in readings[name]:
                vectors = model.encode(block, layers=reading.layers, pool=reading.pool)
                parts.setdefault((name, str(reading)), []).append(np.asarray(vectors, dtype=np.float32))
            seconds[name] += time.perf_counter() - began
        block.clear()

    for i, wave in clips(source, rate, bad=bad):
        kept.append(i)
        block.append(wave)
        if sum(map(len, block)) >= BLOCK:
            flush()
        step(i + 1)
    if block:
        flush()
    features = {
        name: Features({str(r): np.concatenate(parts[name, str(r)]) for r in readings[name]}, seconds[name])
        for name in models
    }
    return features, kept
