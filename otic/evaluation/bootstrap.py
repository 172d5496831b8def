"""How sure a score is: percentile bootstrap over the test clips, paired between models.

Every resample draws the clips of each fold anew (with replacement, as many as there are). A resample is the same for
all models, so the interval of a difference is that of the paired differences.

Axes: r resamples, n clips.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Num

from otic.core.seeds import rng

RESAMPLES = 2000
CELLS = 2**24  # resamples are scored in blocks of about this many numbers, to bound the memory


def resample(folds: list[int], seed: int, resamples: int = RESAMPLES) -> list[Int[np.ndarray, "r n"]]:
    """For each fold, given its number of clips: how often each clip is drawn in each resample."""
    gens = (rng(seed, "bootstrap", i) for i in range(len(folds)))
    return [gen.multinomial(n, np.full(n, 1 / n), size=resamples) for gen, n in zip(gens, folds)]


def fold_values(
    metric: Callable[..., Float[np.ndarray, " r"]],
    scores: list[Float[np.ndarray, "_ c"]],
    truth: list[Num[np.ndarray, "_ c"]],
    weights: list[Num[np.ndarray, "r _"]],
) -> Float[np.ndarray, "folds r"]:
    """The metric of each fold under each of its weightings."""
    return np.stack([_in_blocks(metric, s, t, w) for s, t, w in zip(scores, truth, weights)])


def interval(values: Float[np.ndarray, " r"], level: float = 0.95) -> tuple[float, float]:
    """The middle `level` of the resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _in_blocks(
    metric: Callable[..., Float[np.ndarray, " r"]],
    scores: Float[np.ndarray, "n c"],
    truth: Num[np.ndarray, "n c"],
    weights: Num[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    rows = max(1, CELLS // max(1, weights.shape[1]))
    return np.concatenate([metric(scores, truth, weights[i : i + rows]) for i in range(0, len(weights), rows)])
