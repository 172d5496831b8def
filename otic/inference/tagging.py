"""Naming sounds: with words that a user gives, or with the classes that a model was trained on.

Where one label is right, scores are a softmax over the labels. Where several may be, a label's score says how much
better its sentence fits than "a sound" does: sigmoid(scale * (cosine - cosine of "a sound")). A cosine alone is no
confidence, since all of a model's cosines are low, and some sounds lie near every sentence.

Axes: w windows, m moments between the edges of windows, c labels, e joint width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Real

from otic.core.errors import ConfigError
from otic.core.registry import unknown
from otic.inference.classifier import Classifier
from otic.inference.encode import CLASSES, JOINT, TAGGER
from otic.inference.model import Model
from otic.inference.options import Options
from otic.inference.prompts import class_vectors, clean, templates, unit
from otic.inference.sources import Src

NEUTRAL = "a sound"
WINDOW = 2.0  # seconds of a window of a timeline, unless told otherwise
THRESHOLD = 0.5  # where several labels may hold

Scores = Callable[[Float32[np.ndarray, "w D"]], Float[np.ndarray, "w c"]]


class Tag(NamedTuple):
    """A label and its score, 0..1."""

    label: str
    score: float


@dataclass(frozen=True)
class Span:
    """A label from one second to another, and its mean score there."""

    label: str
    start: float
    end: float
    score: float


@dataclass(frozen=True)
class Tagged:
    """One source's answer: `tags` from the best down, or `spans` in the order of time; `failed`: what went wrong."""

    source: str
    seconds: float = 0.0
    tags: tuple[Tag, ...] = ()
    spans: tuple[Span, ...] = ()
    failed: str | None = None


@dataclass(frozen=True)
class Naming:
    """What names sounds.

    Attributes:
        labels: To choose from.
        multi: Whether several may hold at once.
        pool: How the model is read for it.
        scores: From what is read to scores, 0..1.
    """

    labels: tuple[str, ...]
    multi: bool
    pool: str
    scores: Scores


def naming(
    model: Model,
    labels: Sequence[str] | None = None,
    prompts: Sequence[str] = (),
    multi: bool | None = None,
    tagger: bool = False,
) -> Naming:
    """How a model names sounds; arguments as `Model.tag`.

    Raises:
        ConfigError: without labels, when the model has no classes of its own.
    """
    if tagger:
        head = getattr(model.encoder, "tagger", None)
        if head is None:
            raise ConfigError(f"{model.name}: its encoder has no tagging head. Name the labels instead.")
        return Naming(_numbered(int(head.bias.shape[0])), True, TAGGER, _as_they_are)
    if labels is None:
        return _own(model)
    labels = labels.split(",") if isinstance(labels, str) else labels
    named = tuple(dict.fromkeys(label.strip() for label in labels if label.strip()))
    if not named:
        raise ConfigError("labels: name at least one.")
    if model.towers is None and model.classifier is not None:
        return _among(model, model.classifier, named)
    return _by_words(model, _apart(named), prompts, bool(multi))


def tag(
    model: Model,
    sources: Iterable[Src],
    how: Naming,
    *,
    timeline: bool = False,
    window: float | int | None = None,
    hop: float | int | None = None,
    threshold: float | int | None = None,
    top: int | None = None,
    strict: bool = False,
) -> Iterator[Tagged]:
    """One `Tagged` for each source, in order; arguments as `Model.tag`.

    Raises:
        AudioError: at the first source that cannot be read, when `strict`.
        ConfigError: on a number that makes no sense, or that only a timeline has a use for.
    """
    _check(timeline, top, threshold=threshold, window=window, hop=hop)
    options = _options(model, how, timeline, window, hop)
    for e in model.stream(sources, "clip", options, strict=strict):
        assert isinstance(e.source, str)
        if not len(e) or e.failed:
            yield Tagged(e.source, failed=e.failed[0][1] if e.failed else "no sound")
            continue
        scores, seconds = how.scores(e.vectors), float(e.spans[-1, 1])
        if timeline:
            yield Tagged(e.source, seconds, spans=spans(how, scores, e.spans, threshold, top))
        else:
            yield Tagged(e.source, seconds, ranked(how.labels, scores[0], top))


def ranked(labels: Sequence[str], scores: Float[np.ndarray, " c"], top: int | None = None) -> tuple[Tag, ...]:
    """From the best down, equals in the order given."""
    order = np.argsort(-scores, kind="stable")[:top]
    return tuple(Tag(labels[i], float(scores[i])) for i in order)


def spans(
    how: Naming,
    scores: Float[np.ndarray, "w c"],
    windows: Real[np.ndarray, "w 2"],
    threshold: float | int | None = None,
    top: int | None = None,
) -> tuple[Span, ...]:
    """Moments with the same label, merged, in the order of time.

    A moment's scores are the mean of the windows over it. It has every label at or above the threshold (0.5); where
    only one can be right, the best one, if that reaches the threshold (0).
    """
    moments, edges = at_moments(scores, windows)
    least = (THRESHOLD if how.multi else 0.0) if threshold is None else threshold
    active = moments >= least
    if not how.multi:
        active &= np.arange(moments.shape[1]) == moments.argmax(1)[:, None]
    if top is not None:
        active[:, np.argsort(-moments.max(0), kind="stable")[top:]] = False
    found = [span for i, label in enumerate(how.labels) for span in _runs(label, active[:, i], moments[:, i], edges)]
    return tuple(sorted(found, key=lambda span: (span.start, span.end)))


def at_moments(
    scores: Float[np.ndarray, "w c"], windows: Real[np.ndarray, "w 2"]
) -> tuple[Float[np.ndarray, "m c"], Float[np.ndarray, " m1"]]:
    """The mean scores of the windows over each moment, and the moments' edges; time without a window scores 0."""
    windows = windows.round(6)
    edges = np.unique(windows)
    first, last = np.searchsorted(edges, windows.T)
    total, count = np.zeros((len(edges), scores.shape[1])), np.zeros(len(edges))
    for at, sign in ((first, 1), (last, -1)):
        np.add.at(total, at, sign * scores)
        np.add.at(count, at, sign)
    over = np.cumsum(count)[:-1, None]
    return np.where(over > 0, np.cumsum(total, 0)[:-1] / np.maximum(over, 1), 0.0).clip(0, 1), edges


def _runs(
    label: str, active: Bool[np.ndarray, " m"], scores: Float[np.ndarray, " m"], edges: Float[np.ndarray, " m1"]
) -> Iterator[Span]:
    change = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(int)))
    for a, b in change.reshape(-1, 2):
        score = np.average(scores[a:b], weights=np.diff(edges[a : b + 1]))
        yield Span(label, float(edges[a]), float(edges[b]), float(score))


def _check(timeline: bool, top: int | None, **of_timelines: float | int | None) -> None:
    if top is not None and top < 1:
        raise ConfigError(f"top={top}: ask for one label at least.")
    given = [name for name, value in of_timelines.items() if value is not None]
    if given and not timeline:
        raise ConfigError(f"{given[0]}: only timelines have one. Ask for a timeline (timeline=True, --timeline).")


def _options(model: Model, how: Naming, timeline: bool, window: Any, hop: Any) -> Options:
    if not timeline:
        return replace(model.choose(window=0), pool=how.pool, layers=())
    if model.options.compat:
        raise ConfigError(f'compat="{model.options.compat}" hears one crop of a file: no timeline comes of it.')
    length = min(WINDOW, model.native) if window is None else window
    return replace(model.choose(window=length, hop=length / 2 if hop is None else hop), pool=how.pool, layers=())


def _apart(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Without those that read like an earlier one (`Dog` after `dog`), and would share its score, or hold no words.

    Raises:
        ConfigError: when none is left.
    """
    first = {clean(label): label for label in reversed(labels)}
    kept = tuple(label for label in labels if clean(label) and first[clean(label)] == label)
    if not kept:
        raise ConfigError(f"labels: no words in {', '.join(labels):.80}.")
    return kept


def _by_words(model: Model, labels: tuple[str, ...], prompts: Sequence[str], multi: bool) -> Naming:
    sentences = templates([prompts] if isinstance(prompts, str) else prompts)
    named, scale = class_vectors(model, labels, sentences), model.scale
    neutral = model.text(NEUTRAL)[0] if multi else None
    bias = None if model.towers is None or model.towers.bias is None else model.towers.bias.item()

    def scores(vectors: Float32[np.ndarray, "w D"]) -> Float[np.ndarray, "w c"]:
        heard = unit(vectors)
        logits = scale * (heard @ named.T).astype(float)
        if neutral is None:
            return softmax(logits)
        # towers trained with a sigmoid have learned where a label begins to hold
        return sigmoid(logits - scale * (heard @ neutral)[:, None] if bias is None else logits + bias)

    return Naming(labels, multi, JOINT, scores)


def _own(model: Model) -> Naming:
    own = model.classifier
    if own is None:
        what = " (or ask for its encoder's tagging head: tagger=True, --tagger)" if _has_tagger(model) else ""
        raise ConfigError(f"{model.name}: it has no classes of its own. Name labels to choose from{what}.")
    return Naming(own.labels, own.multi, CLASSES, _as_they_are)


def _among(model: Model, own: Classifier, labels: tuple[str, ...]) -> Naming:
    """Some of a model's own classes."""
    place = {label: i for i, label in enumerate(own.labels)}
    for label in labels:
        if label not in place:
            raise ConfigError(
                f"{unknown('label', label, own.labels)[:300]} {model.name} knows its own classes alone, no words."
            )
    chosen = [place[label] for label in labels]
    return Naming(labels, own.multi, CLASSES, lambda vectors: vectors[:, chosen].astype(float))


def _has_tagger(model: Model) -> bool:
    return getattr(model.encoder, "tagger", None) is not None


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))


def _as_they_are(vectors: Float32[np.ndarray, "w D"]) -> Float[np.ndarray, "w c"]:
    return vectors.astype(float)


def softmax(x: Float[np.ndarray, "w c"]) -> Float[np.ndarray, "w c"]:
    grown = np.exp(x - x.max(1, keepdims=True))
    return grown / grown.sum(1, keepdims=True)


def sigmoid(x: Float[np.ndarray, "w c"]) -> Float[np.ndarray, "w c"]:
    return 0.5 * (1 + np.tanh(x / 2))
