"""Waves to vectors: grouped by length so that nobody's result depends on who shares the batch.

A transformer without a padding mask sees the padding. So only clips which fill the same number of patch columns go
through it together: then a clip is padded to the end of its own last column, alone or in company. What other kinds of
encoders take is in `kinds`.

Axes: b clips, c channels, n patches, d width, D length of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from otic.core.errors import AudioError, ConfigError
from otic.core.registry import unknown
from otic.models.pooling import POOLINGS, frames
from otic.models.readout import layers_of, vector

Wave = np.ndarray  # float32 mono [s]
JOINT = "joint"  # the pooling that is a model's place in the space it shares with words
CLASSES, TAGGER = "own classes", "tagger"  # readings that name sounds: the model's classifier, its encoder's head


def groups(counts: Sequence[int], cost: Callable[[int], int], budget: int, beside: int = 1) -> Iterator[list[int]]:
    """Indices in batches of equal `counts`, each of which costs at most `budget` (or is one item).

    A count's batches are of one size, give or take one, and their number is a multiple of `beside`, members allowing.

    >>> list(groups([3, 1, 3, 3], cost=lambda count: count, budget=6))
    [[0], [2, 3], [1]]
    """
    by_count: dict[int, list[int]] = {}
    for i, count in enumerate(counts):
        by_count.setdefault(count, []).append(i)
    for count, members in sorted(by_count.items(), reverse=True):  # the longest first: too much memory shows at once
        size = beside * max(1, budget // max(1, cost(count)))
        batches = min(len(members), beside * ceil(len(members) / size))
        edges = [len(members) * k // batches for k in range(batches + 1)]
        yield from (members[a:b] for a, b in pairwise(edges))


def check_waves(waves: Sequence[Wave]) -> None:
    """Whether each is something to hear.

    Raises:
        AudioError: on a clip without samples, with another shape than `[s]`, or with values that are not finite.
    """
    for i, wave in enumerate(waves):
        if wave.ndim != 1:
            raise AudioError(f"clip {i}: shape {wave.shape}; expected mono samples [s].", "bad_shape")
        if not len(wave):
            raise AudioError(f"clip {i}: no samples.", "empty_file")
        if not np.isfinite(wave).all():
            raise AudioError(f"clip {i}: contains values that are not finite.", "non_finite")


def stack(waves: Sequence[Wave]) -> tuple[Float[Tensor, "b s"], Int[Tensor, " b"]]:
    """One tensor, zero-padded at the end, and the real lengths."""
    lengths = [len(w) for w in waves]
    out = torch.zeros(len(waves), max(lengths))
    for row, wave in zip(out, waves, strict=True):
        row[: len(wave)] = torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32))
    return out, torch.tensor(lengths)


def check_pool(how: str) -> None:
    for name in how.split("+"):
        if name != "cls" and name not in POOLINGS:
            raise ConfigError(unknown("pooling", name, [*POOLINGS, "cls"]))


def check_layers(layers: Sequence[int], depth: int) -> None:
    for layer in layers:
        if not -depth <= layer < depth:
            raise ConfigError(
                f"layer {layer}: this encoder has {depth}, 0 to {depth - 1} (or -1 to -{depth} from the end)."
            )


def read_out(
    encoder: Any, spec: Float[Tensor, "b c t f"], layers: Sequence[int], how: Any, *, by_frame: bool, **more: Any
) -> Tensor:
    """Vectors `[b, D]`, or `[b, t', D]` by frame: chosen layers and poolings side by side; `more` goes to the encoder.

    Raises:
        ConfigError: when `cls` is asked of an encoder that has none.
    """
    found, grid = layers_of(encoder, spec, layers, **more)
    if by_frame:
        parts = [frames(patches, grid, how) for _, patches in found]
    else:
        parts = [vector(cls, patches, grid, how) for cls, patches in found]
    return torch.cat([p.float() for p in parts], dim=-1)
