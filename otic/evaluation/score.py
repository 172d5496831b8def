"""From what the probes said to rows of numbers: values, intervals, paired differences."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from otic.core.config import to_dict
from otic.evaluation import bootstrap, probe
from otic.evaluation.features import Features
from otic.evaluation.metrics import METRICS, lower_is_better
from otic.evaluation.results import Difference, Score
from otic.evaluation.splits import Task

SINGLE, MULTI = ("accuracy", "uar"), ("mAP", "d_prime", "accuracy")


@dataclass(frozen=True, kw_only=True)
class View:
    """One model's test scores and vectors on one data set, for pictures."""

    model: str
    data: str
    protocol: str
    task: Task
    ids: tuple[str, ...]  # of all clips
    scores: tuple[np.ndarray, ...]  # [m, c] for each split
    vectors: np.ndarray  # [n, D], of all clips


def compare(
    data: str, features: Mapping[str, Features], task: Task, protocol: str, *, ids: Sequence[str], seed: int
) -> tuple[list[Score], list[Difference], list[View]]:
    """All models under one protocol on one data set."""
    truth = _parts([task.truth[split.test] for split in task.splits], task)
    sizes = list(map(len, truth))
    draws = bootstrap.resample(sizes, seed)
    once = [np.ones((1, n)) for n in sizes]
    labels_used = max(len(split.train) for split in task.splits)
    scores, views = [], []
    resampled: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    for model, found in features.items():
        began = time.perf_counter()
        reader = probe.PROBES[protocol]()
        outcome = probe.run(reader, found.vectors, task)
        seconds = round(found.seconds + time.perf_counter() - began, 2)
        config = _config(reader, outcome, found)
        first = next(iter(found.vectors.values()))
        views.append(
            View(
                model=model, data=data, protocol=protocol, task=task, ids=tuple(ids), scores=outcome.scores,
                vectors=found.vectors.get(outcome.features[0], first),
            )
        )  # fmt: skip
        for name in MULTI if task.multi else SINGLE:
            said = _parts(outcome.scores, task)
            folds = bootstrap.fold_values(METRICS[name], said, truth, once)[:, 0]
            spread = bootstrap.fold_values(METRICS[name], said, truth, draws).mean(0)
            value = float(folds.mean())
            resampled[model, name] = value, spread
            scores.append(
                Score(
                    model=model, data=data, protocol=protocol, metric=name, value=value,
                    ci95=bootstrap.interval(spread), n_test=sum(sizes), folds=tuple(map(float, folds)), seed=seed,
                    config=config, labels_used=labels_used, seconds=seconds,
                )
            )  # fmt: skip
    return scores, differences(data, protocol, list(features), resampled), views


def _parts(folds: Sequence[np.ndarray], task: Task) -> list[np.ndarray]:
    """What is scored by itself: each fold, or all of them where they are small."""
    return [np.concatenate(folds)] if task.together else list(folds)


def _config(reader: probe.Probe, outcome: probe.Outcome, found: Features) -> dict[str, Any]:
    return {
        "chosen": list(outcome.settings),
        "features": list(outcome.features) if len(found.vectors) > 1 else outcome.features[0],
        "dim": next(iter(found.vectors.values())).shape[1],
        **to_dict(reader.cfg),
    }


def differences(
    data: str, protocol: str, models: list[str], resampled: Mapping[tuple[str, str], tuple[float, np.ndarray]]
) -> list[Difference]:
    """Every pair of models by every metric, the better one first.

    Args:
        resampled: By model and metric: the value, and its values under resamples which all models share.
    """
    out = []
    for (a, b), metric in itertools.product(itertools.combinations(models, 2), dict.fromkeys(m for _, m in resampled)):
        sign = -1 if lower_is_better(metric) else 1
        if sign * resampled[a, metric][0] < sign * resampled[b, metric][0]:
            a, b = b, a
        (high, ours), (low, theirs) = resampled[a, metric], resampled[b, metric]
        ci95 = bootstrap.interval(sign * (ours - theirs))
        out.append(
            Difference(
                model=a, other=b, data=data, protocol=protocol, metric=metric, value=sign * (high - low), ci95=ci95,
                beats=ci95[0] > 0,
            )
        )  # fmt: skip
    return out
