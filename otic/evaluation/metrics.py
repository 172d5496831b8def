"""Scores of a classifier, each over many weightings of the same clips at once.

A weighting counts how often each clip is taken, so a bootstrap of thousands of resamples is one matrix product,
and the plain value is the weighting of all ones. Higher is better for all but `eer`.

Axes: r weightings, n clips, c classes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Num

from otic.core.registry import Registry

Scores = Float[np.ndarray, "n c"]
Weights = Num[np.ndarray, "r n"]
Values = Float[np.ndarray, " r"]


def accuracy(scores: Scores, truth: Num[np.ndarray, "n c"], weights: Weights) -> Values:
    """Share of clips whose best-scored class is their own; `truth` is one-hot (any of several counts as a hit)."""
    hit = truth[np.arange(len(scores)), scores.argmax(1)] > 0
    return weights @ hit.astype(float) / weights.sum(1)


def uar(scores: Scores, truth: Num[np.ndarray, "n c"], weights: Weights) -> Values:
    """Unweighted average recall: the mean over the classes present of the share of their clips found."""
    hit = (scores.argmax(1)[:, None] == np.arange(scores.shape[1])) & (truth > 0)
    found, there = weights @ hit.astype(float), weights @ (truth > 0).astype(float)  # [r, c]
    return _mean_present(np.divide(found, there, out=np.full_like(found, np.nan), where=there > 0))


def mean_average_precision(scores: Scores, truth: Num[np.ndarray, "n c"], weights: Weights) -> Values:
    """The mean over the classes present of the average precision (`average_precision`)."""
    return _mean_present(np.stack([average_precision(s, t, weights) for s, t in zip(scores.T, truth.T)], axis=1))


def d_prime(scores: Scores, truth: Num[np.ndarray, "n c"], weights: Weights) -> Values:
    """Sensitivity index sqrt(2) * probit(AUC), the AUC being the mean over the classes present.

    As reported for AudioSet (Gemmeke et al. 2017); a perfect AUC is clipped to one half pair away from 1.
    """
    from scipy.special import ndtri

    areas = _mean_present(np.stack([roc_area(s, t, weights) for s, t in zip(scores.T, truth.T)], axis=1))
    pairs = max(1.0, float(((truth > 0).sum(0) * (truth <= 0).sum(0)).max(initial=1)))
    return np.sqrt(2) * ndtri(np.clip(areas, 0.5 / pairs, 1 - 0.5 / pairs))


def f1(scores: Scores, truth: Num[np.ndarray, "n c"], weights: Weights) -> Values:
    """2 hits / (guesses + labels) over all classes together, the best-scored class of each clip being its one guess."""
    hit = (truth[np.arange(len(scores)), scores.argmax(1)] > 0).astype(float)
    return 2 * (weights @ hit) / np.maximum(weights.sum(1) + weights @ (truth > 0).sum(1), 1e-12)


METRICS: Registry = Registry("metric")
METRICS.update({"accuracy": accuracy, "uar": uar, "mAP": mean_average_precision, "d_prime": d_prime, "f1": f1})


def lower_is_better(metric: str) -> bool:
    """Error rates and ranks."""
    return metric == "eer" or metric.endswith("_rank")


def scale(metric: str) -> int:
    """What a value is multiplied with in tables: 100 for shares, 1 for what is no share."""
    return 1 if metric == "d_prime" or metric.endswith("_rank") else 100


def average_precision(
    scores: Float[np.ndarray, " n"], truth: Num[np.ndarray, " n"], weights: Weights
) -> Float[np.ndarray, " r"]:
    """Area under the precision-recall steps, tied scores entering together; NaN where no positive is taken.

    Sum over thresholds of (recall gained) * (precision there), no interpolation, as scikit-learn defines it.
    """
    hits, taken = _by_threshold(scores, truth, weights)
    gained = np.diff(hits, axis=1, prepend=0.0)
    precision = np.divide(hits, taken, out=np.zeros_like(hits), where=taken > 0)
    total = hits[:, -1]
    return np.divide((gained * precision).sum(1), total, out=np.full(len(total), np.nan), where=total > 0)


def roc_area(
    scores: Float[np.ndarray, " n"], truth: Num[np.ndarray, " n"], weights: Weights
) -> Float[np.ndarray, " r"]:
    """Chance that a positive outscores a negative, ties counting half; NaN where one kind is missing."""
    hits, taken = _by_threshold(scores, truth, weights)
    false = taken - hits
    area = (np.diff(false, axis=1, prepend=0.0) * (hits + np.pad(hits[:, :-1], ((0, 0), (1, 0)))) / 2).sum(1)
    pairs = hits[:, -1] * false[:, -1]
    return np.divide(area, pairs, out=np.full(len(pairs), np.nan), where=pairs > 0)


def eer(scores: Float[np.ndarray, " n"], same: Num[np.ndarray, " n"]) -> float:
    """Equal error rate of a verifier: where misses and false alarms are equally frequent, by linear interpolation.

    Args:
        scores: One score per trial, higher means "the same".
        same: 1 for a target trial, 0 for an impostor; both kinds must occur.
    """
    hits, taken = (x[0] for x in _by_threshold(scores, same, np.ones((1, len(scores)))))
    false = np.concatenate([[0.0], (taken - hits) / (taken - hits)[-1]])
    miss = 1 - np.concatenate([[0.0], hits / hits[-1]])
    after = int(np.argmax(false >= miss))  # miss falls from 1 to 0 while false climbs from 0 to 1
    gap0, gap1 = miss[after - 1] - false[after - 1], false[after] - miss[after]
    return float(false[after - 1] + (false[after] - false[after - 1]) * gap0 / (gap0 + gap1))


def confusion(guess: Int[np.ndarray, " n"], truth: Int[np.ndarray, " n"], classes: int) -> Int[np.ndarray, "c c"]:
    """Counts with the true class in rows and the guessed one in columns."""
    return np.bincount(truth * classes + guess, minlength=classes * classes).reshape(classes, classes)


def _by_threshold(
    scores: Float[np.ndarray, " n"], truth: Num[np.ndarray, " n"], weights: Weights
) -> tuple[Float[np.ndarray, "r m"], Float[np.ndarray, "r m"]]:
    """At each distinct score, from high to low: positives and clips at or above it."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # the end of each run of ties
    drawn = weights[:, order].astype(float)
    return np.cumsum(drawn * (truth[order] > 0), axis=1)[:, last], np.cumsum(drawn, axis=1)[:, last]


def _mean_present(values: Float[np.ndarray, "r c"]) -> Values:
    """The mean over classes, those without a clip (NaN) left out; 0 when there is none at all."""
    there = ~np.isnan(values)
    return np.where(there, values, 0.0).sum(1) / np.maximum(there.sum(1), 1)
