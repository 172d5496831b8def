"""The protocols that need words, each scored alike for all models: `zero-shot`, `retrieval`, `choice`.

Only test clips are heard (else those of another split than `train`; all where there is none), and nothing is fitted.
Intervals come from the same resamples of the clips for all models, so differences are paired; a clip brings all its
captions along, and what is searched through stays whole.

Axes: n clips, e joint width, r resamples.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Int, Num

from otic.core.errors import ConfigError
from otic.core.registry import Registry
from otic.data.rows import TEST, TRAIN, VALID, Row, split_of
from otic.evaluation import bootstrap, choice, retrieval, zero_shot
from otic.evaluation.features import Features
from otic.evaluation.results import Difference, Score
from otic.evaluation.retrieval import Statistic
from otic.evaluation.score import MULTI, SINGLE, View, differences
from otic.inference.prompts import class_vectors, clean, templates, unit


@dataclass(frozen=True, kw_only=True)
class Wording:
    """How classes are asked for."""

    prompts: tuple[str, ...] = ()  # templates, or names of `inference.prompts.PROMPTS`; () = the default
    word: Callable[[str], str] = clean  # a label as it stands in a sentence
    metrics: tuple[str, ...] = ()  # beside accuracy and UAR, or mAP, d' and accuracy


@dataclass(frozen=True, kw_only=True)
class Found:
    """One model's retrieval on one data set, for pictures."""

    model: str
    data: str
    protocol: str
    ids: tuple[str, ...]  # of the clips
    asked: retrieval.Captioned
    found: Mapping[str, retrieval.Ranked]  # by direction


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one model answered."""

    statistics: Mapping[str, Statistic]  # by metric
    counts: Mapping[str, int]  # clips that each metric rests on
    chance: Mapping[str, float]  # what guessing gives, where that is known
    seen: Callable[[str, str, str], Any]  # (model, data, protocol) -> a view for the report, or None


class Protocol(ABC):
    """A question about some clips, the same for all models.

    Attributes:
        parts: The clips of each fold.
        config: What a reader of the numbers has to know.
    """

    parts: tuple[Int[np.ndarray, " n"], ...]
    config: dict[str, Any]

    @abstractmethod
    def answer(self, model: Any, audio: Float32[np.ndarray, "n e"]) -> Outcome:
        """What a model says, given its vectors of the clips."""


class ZeroShot(Protocol):
    """Classes by their names."""

    def __init__(self, rows: Sequence[Row], classes: Sequence[str], wording: Wording):
        self.task = zero_shot.question(rows, classes)
        self.parts = tuple(split.test for split in self.task.splits)
        self.wording, self.templates = wording, templates(wording.prompts)
        self.metrics = tuple(dict.fromkeys((*(MULTI if self.task.multi else SINGLE), *wording.metrics)))
        self.ids = tuple(row.id for row in rows)
        self.config = {"prompts": list(self.templates), "classes": len(classes)}

    def answer(self, model: Any, audio: Float32[np.ndarray, "n e"]) -> Outcome:
        named = class_vectors(model, self.task.classes, self.templates, self.wording.word)
        said = zero_shot.scores(float(model.scale), audio, named, self.task.multi)

        def seen(name: str, data: str, protocol: str) -> View:
            return View(
                model=name, data=data, protocol=protocol, task=self.task, ids=self.ids, vectors=audio,
                scores=tuple(said[part] for part in self.parts),
            )  # fmt: skip

        return Outcome(
            statistics=zero_shot.statistics(said, self.task, self.metrics),
            counts=dict.fromkeys(self.metrics, sum(map(len, self.parts))),
            chance=zero_shot.chance(self.task, self.metrics),
            seen=seen,
        )


class Retrieval(Protocol):
    """Captions ask for clips, clips for captions. Clips without a caption take no part."""

    def __init__(self, rows: Sequence[Row], classes: Sequence[str], wording: Wording):
        self.some = np.flatnonzero([bool(row.captions) for row in rows])
        asking = [rows[i] for i in self.some.tolist()]
        self.asked = retrieval.captioned(asking if len(asking) > 1 else rows)
        self.parts = (self.some,)
        self.ids = tuple(row.id for row in asking)
        self.config = {
            "match": self.asked.by, "clips": len(asking), "captions": len(self.asked.captions),
            "without_captions": len(rows) - len(asking),
        }  # fmt: skip

    def answer(self, model: Any, audio: Float32[np.ndarray, "n e"]) -> Outcome:
        found = retrieval.both_ways(audio[self.some], unit(model.text(list(self.asked.captions))), self.asked)
        statistics = retrieval.statistics(found, self.asked.owner)

        def seen(name: str, data: str, protocol: str) -> Found:
            return Found(model=name, data=data, protocol=protocol, ids=self.ids, asked=self.asked, found=found)

        def among(statistic: Statistic) -> Statistic:
            return lambda weights: statistic(weights[:, self.some])

        return Outcome(
            statistics={name: among(statistic) for name, statistic in statistics.items()},
            counts=dict.fromkeys(statistics, len(self.some)),
            chance={f"{way}_{name}": v for way, one in found.items() for name, v in retrieval.chance(one).items()},
            seen=seen,
        )


class Choice(Protocol):
    """A caption against one that is nearly right."""

    def __init__(self, rows: Sequence[Row], classes: Sequence[str], wording: Wording):
        self.asked = choice.pairs(rows)
        self.parts = (np.unique(self.asked.owner),)
        self.config = {"captions": len(self.asked.captions)}

    def answer(self, model: Any, audio: Float32[np.ndarray, "n e"]) -> Outcome:
        said = unit(model.text([*self.asked.captions, *self.asked.wrong]))
        m = len(self.asked.captions)
        good = choice.right(audio, said[:m], said[m:], self.asked.owner)
        statistics, counts = choice.statistics(good, self.asked)
        chance = dict.fromkeys(statistics, choice.CHANCE)
        return Outcome(statistics=statistics, counts=counts, chance=chance, seen=lambda *_: None)


WORDS: Registry[Callable[[Sequence[Row], Sequence[str], Wording], Protocol]] = Registry("protocol")
WORDS.update({"zero-shot": ZeroShot, "retrieval": Retrieval, "choice": Choice})


@dataclass
class Joint:
    """A model read out in the joint space, as `features.extract` reads an encoder."""

    model: Any
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def sample_rate(self) -> int:
        return int(self.model.sample_rate)

    def encode(
        self, waves: Sequence[np.ndarray], layers: Sequence[int] | None = None, pool: str | None = None
    ) -> Float32[np.ndarray, "n e"]:
        return unit(np.asarray(self.model.audio(waves), dtype=np.float32))


def need_words(name: str, model: Any, protocol: str) -> None:
    """Refuse a model without a text tower, or whose tower has no tokenizer, and say how it gets one.

    Raises:
        ConfigError: before anything was heard.
    """
    if getattr(model, "towers", None) is None:
        raise ConfigError(
            f"{name}: has no text tower, and {protocol} asks in words. Align it with captions first: "
            "otic pretrain clap_tiny --init MODEL --data SRC-with-captions --out RUN."
        )
    model.text(["sound"])


def heard(rows: Sequence[Row]) -> list[int]:
    """The clips that are asked about: of split `test` where there is one, else of `valid`, else of any that is not
    `train`; all where no row is of such a split."""
    kinds = [split_of(row) for row in rows]
    for wanted in (TEST, VALID, set(kinds) - TRAIN - {""}):
        if found := [i for i, kind in enumerate(kinds) if kind in wanted]:
            return found
    return list(range(len(rows)))


def compare(
    data: str,
    models: Mapping[str, Any],
    features: Mapping[str, Features],
    asked: Protocol,
    protocol: str,
    *,
    seed: int,
) -> tuple[list[Score], list[Difference], list[Any]]:
    """All models under one protocol on one data set.

    Args:
        features: Vectors of the clips by model, as `extract` gives them for `Joint`.
    """
    draws = bootstrap.resample([len(part) for part in asked.parts], seed)
    once = [np.ones((1, len(part)), int) for part in asked.parts]
    rows, views = [], []
    resampled: dict[tuple[str, str], tuple[float, np.ndarray]] = {}
    for name, model in models.items():
        began = time.perf_counter()
        (audio,) = features[name].vectors.values()
        said = asked.answer(model, audio)
        seconds = round(features[name].seconds + time.perf_counter() - began, 2)
        views.append(said.seen(name, data, protocol))
        for metric, statistic in said.statistics.items():
            folds = _values(statistic, asked.parts, once, len(audio))[:, 0]
            spread = _values(statistic, asked.parts, draws, len(audio)).mean(0)
            resampled[name, metric] = float(folds.mean()), spread
            known = {"chance": said.chance[metric]} if metric in said.chance else {}
            rows.append(
                Score(
                    model=name, data=data, protocol=protocol, metric=metric, value=float(folds.mean()),
                    ci95=bootstrap.interval(spread), n_test=said.counts[metric], folds=tuple(map(float, folds)),
                    seed=seed, config={**asked.config, "dim": audio.shape[1], **known}, labels_used=0, seconds=seconds,
                )
            )  # fmt: skip
    return rows, differences(data, protocol, list(models), resampled), [view for view in views if view is not None]


def _values(
    statistic: Statistic,
    parts: Sequence[Int[np.ndarray, " _"]],
    weights: Sequence[Num[np.ndarray, "r _"]],
    clips: int,
) -> Float[np.ndarray, "folds r"]:
    """The number of each fold under its weightings, the other folds' clips weighing nothing; in blocks, for memory."""
    rows = max(1, bootstrap.CELLS // max(1, clips))
    out = []
    for part, drawn in zip(parts, weights):
        blocks = []
        for i in range(0, len(drawn), rows):
            block = np.zeros((len(drawn[i : i + rows]), clips), dtype=drawn.dtype)
            block[:, part] = drawn[i : i + rows]
            blocks.append(statistic(block))
        out.append(np.concatenate(blocks))
    return np.stack(out)
