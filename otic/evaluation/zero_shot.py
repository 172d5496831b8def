"""Naming sounds by words alone: the class whose sentence lies nearest to the clip.

No clip and no label is learned from, so a class which training never saw is asked for like any other. With one right
class per clip the scores are softmax(scale * cosine). With several they are scale * cosine, whose order is that of its
sigmoids, and only the order counts (mAP): sigmoids themselves would round to 1, all alike, where the scale is near 100.
Cosines are low and no confidences; what can be read off them are ranks.

Axes: n clips, c classes, e joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int

from otic.core.errors import DataError
from otic.data.rows import Row
from otic.evaluation.metrics import METRICS
from otic.evaluation.retrieval import Statistic, Weights
from otic.evaluation.splits import FEW, Split, Task


def question(rows: Sequence[Row], classes: Sequence[str]) -> Task:
    """Which of these classes is each clip of? Folds are scored one by one, small ones together, as probes' are; clips
    without a label take no part.

    Args:
        classes: All that may be named, those without a clip included.

    Raises:
        DataError: with fewer than two classes, or without a labelled clip.
    """
    column = {name: k for k, name in enumerate(classes)}
    truth = np.zeros((len(rows), len(classes)))
    for i, row in enumerate(rows):
        truth[i, [column[label] for label in row.labels]] = 1
    labelled = np.asarray(truth.any(1))
    if len(classes) < 2 or not labelled.any():
        raise DataError(
            f"{len(classes)} classes, {labelled.sum()} labelled clips: zero-shot needs two classes or more."
        )
    folds = [row.fold if ok else None for row, ok in zip(rows, labelled)]
    names = sorted({fold for fold in folds if fold})
    if len(names) < 2 or None in np.array(folds)[labelled] or labelled.sum() < FEW * len(names):
        folds, names = ["all" if ok else None for ok in labelled], ["all"]
    none = np.zeros(0, int)
    return Task(
        classes=tuple(classes),
        truth=truth,
        multi=any(len(row.labels) > 1 for row in rows),
        splits=tuple(
            Split(name=f, train=none, test=np.flatnonzero([g == f for g in folds]), held=np.zeros((0, 0), bool))
            for f in names
        ),
    )


def scores(
    scale: float, audio: Float32[np.ndarray, "n e"], named: Float32[np.ndarray, "c e"], multi: bool
) -> Float[np.ndarray, "n c"]:
    """Softmax over the classes; where several may be right, what each one's sigmoid is taken of."""
    logits = scale * (audio @ named.T).astype(float)
    if multi:
        return logits
    grown = np.exp(logits - logits.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def statistics(said: Float[np.ndarray, "n c"], task: Task, metrics: Sequence[str]) -> dict[str, Statistic]:
    """The metrics as functions of how often each clip is taken."""

    def of(metric: Callable[..., Float[np.ndarray, " r"]]) -> Statistic:
        def value(weights: Weights) -> Float[np.ndarray, " r"]:
            return metric(said, task.truth, weights)

        return value

    return {name: of(METRICS[name]) for name in metrics}


def chance(task: Task, metrics: Sequence[str]) -> dict[str, float]:
    """What guessing gives: accuracy and UAR 1/c (shares of positives, where several are right), mAP their mean."""
    there = task.truth[task.truth.any(1)].mean(0)
    known: Mapping[str, float] = {
        "accuracy": float(there.mean()),
        "uar": 1 / len(task.classes),
        "mAP": float(there[there > 0].mean()),
        "d_prime": 0.0,
    }
    return {name: known[name] for name in metrics if name in known}


def ranks(said: Float[np.ndarray, "n c"], truth: Float[np.ndarray, "n c"]) -> Int[np.ndarray, " n"]:
    """From 1, where the best-placed right class of each clip stands; wrong ones stand first among equals."""
    best = np.where(truth > 0, said, -np.inf).max(1, keepdims=True)
    return 1 + ((truth <= 0) & (said >= best)).sum(1)
