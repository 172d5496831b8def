"""Who is trained on and who is tested on: read from the rows, never from the test labels.

k folds where a fold column says so, train / (valid) / test where a split column does, else five stratified folds.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from otic.core.errors import DataError
from otic.core.seeds import rng
from otic.data.rows import TRAIN, Row

VALID, TEST = {"valid", "val", "validation", "dev"}, {"test", "eval", "testing"}
GROUPS = (
    "speaker",
    "speaker_id",
    "group",
    "src_file",
    "kit",
    "recording",
)  # columns whose values share a voice or a source
INNER = 5


@dataclass(frozen=True, kw_only=True)
class Split:
    """One division of the clips, and inside its training part the divisions on which settings are chosen."""

    name: str  # the fold tested on, or "test"
    train: Int[np.ndarray, " n"]  # rows of the data set
    test: Int[np.ndarray, " m"]
    held: Bool[np.ndarray, "i n"]  # inner folds: which training clips each one holds out


@dataclass(frozen=True, kw_only=True)
class Task:
    """A data set as a question: one right class per clip, or several."""

    classes: tuple[str, ...]
    truth: Float[np.ndarray, "n c"]  # 1 where the clip has the label
    multi: bool  # several labels may be right at once
    splits: tuple[Split, ...]
    notes: tuple[str, ...] = ()


def task(rows: Sequence[Row], seed: int = 0) -> Task:
    """The classes and divisions of a labelled data set; clips without a label take no part.

    Raises:
        DataError: with fewer than two classes, or no way to train and test.
    """
    classes = sorted({label for row in rows for label in row.labels})
    if len(classes) < 2:
        raise DataError(f"{len(classes)} classes: a probe needs two or more. Is the label column the right one?")
    column = {name: k for k, name in enumerate(classes)}
    truth = np.zeros((len(rows), len(classes)))
    for i, row in enumerate(rows):
        truth[i, [column[label] for label in row.labels]] = 1
    splits, notes = _divide(rows, truth, seed)
    return Task(
        classes=tuple(classes),
        truth=truth,
        multi=any(len(row.labels) > 1 for row in rows),
        splits=splits,
        notes=notes,
    )


def _divide(rows: Sequence[Row], truth: np.ndarray, seed: int) -> tuple[tuple[Split, ...], tuple[str, ...]]:
    labelled = np.asarray(truth.any(1))
    folds, kinds = [row.fold for row in rows], [(row.split or "").lower() for row in rows]
    if set(kinds) & TRAIN and set(kinds) & TEST:
        return (_train_test(rows, truth, np.array(kinds), seed),), ()
    if len(_values(folds, labelled)) < 2 and len(_values(kinds, labelled)) > 1:
        folds = [row.split for row in rows]  # another column named as the split: one fold for each of its values
    names = _values(folds, labelled)
    if len(names) > 1:
        number = np.array([names.index(f) if f and ok else -1 for f, ok in zip(folds, labelled)])
        return _k_folds(number, names, truth), ()
    note = f"no fold or split column: {INNER} stratified folds drawn with seed {seed}"
    number = np.where(labelled, stratified(truth, INNER, seed), -1)
    return _k_folds(number, [str(k + 1) for k in range(INNER)], truth), (note,)


def _values(column: Sequence[str | None], labelled: np.ndarray) -> list[str]:
    """The distinct values, numbers in their order (fold 10 after fold 9)."""
    found = {v for v, ok in zip(column, labelled) if v and ok}
    return sorted(found, key=lambda v: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", v)])


def _train_test(rows: Sequence[Row], truth: np.ndarray, kinds: np.ndarray, seed: int) -> Split:
    """Settings are chosen on the validation part where there is one; the final fit uses both parts."""
    labelled = truth.any(1)
    valid = np.isin(kinds, list(VALID)) & labelled
    train = np.flatnonzero((np.isin(kinds, list(TRAIN)) & labelled) | valid)
    test = np.flatnonzero(np.isin(kinds, list(TEST)) & labelled)
    if not len(train) or not len(test):
        raise DataError(f"{len(train)} labelled training clips and {len(test)} test clips: both parts need some.")
    if valid.any() and not valid[train].all():
        return Split(name="test", train=train, test=test, held=valid[train][None])
    number = _grouped([row.extra for row in rows], train, test, seed)
    if number is None:
        number = stratified(truth[train], INNER, seed)
    return Split(name="test", train=train, test=test, held=_one_hot(number))


def _k_folds(number: np.ndarray, names: Sequence[str], truth: np.ndarray) -> tuple[Split, ...]:
    """Each fold is tested once; the others, in turn, are the inner folds. Rows numbered -1 take no part."""
    splits = []
    for k, name in enumerate(names):
        train, test = np.flatnonzero((number >= 0) & (number != k)), np.flatnonzero(number == k)
        inner = number[train] if len(names) > 2 else stratified(truth[train], INNER, 0)
        if len(train) and len(test):
            splits.append(Split(name=name, train=train, test=test, held=_one_hot(inner)))
    if len(splits) < 2:
        raise DataError(f"{int((number >= 0).sum())} labelled clips are too few to train and test on.")
    return tuple(splits)


def _grouped(
    extra: Sequence[dict[str, str]], train: np.ndarray, test: np.ndarray, seed: int
) -> Int[np.ndarray, " n"] | None:
    """Inner folds that keep groups whole, if the outer split does so too: choose as one will be tested."""
    for column in GROUPS:
        ours, theirs = ([extra[i].get(column, "") for i in part] for part in (train, test))
        names = sorted(set(ours))
        if all(names) and len(names) >= INNER and not set(names) & set(theirs):
            place = dict(zip(names, rng(seed, "groups").permutation(len(names)) % INNER))
            return np.array([place[name] for name in ours])
    return None


def stratified(truth: Float[np.ndarray, "n c"], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """A fold for each clip, its rarest label spread as evenly as it can be."""
    gen = rng(seed, "stratified")
    rarest = np.where(truth > 0, truth.sum(0), np.inf).argmin(1)
    order = gen.permutation(len(truth))
    order = order[np.argsort(rarest[order], kind="stable")]
    number = np.empty(len(truth), int)
    number[order] = np.arange(len(truth)) % folds  # counted on through the classes, so fold sizes differ by one at most
    return number


def _one_hot(number: Int[np.ndarray, " n"]) -> Bool[np.ndarray, "i n"]:
    return np.stack([number == k for k in np.unique(number)])
