"""Who is trained on and who is tested on: read from the rows, never from the test labels.

k folds where a fold column says so, train / (valid) / test where a split column does, else five folds: speakers and
other groups stay whole where that leaves each class to train on, else stratified.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from otic.core.errors import DataError
from otic.core.seeds import rng
from otic.data.rows import TEST, TRAIN, VALID, Row, split_of

GROUPS = (
    "speaker",
    "speaker_id",
    "group",
    "src_file",
    "kit",
    "recording",
)  # columns whose values share a voice or a source
INNER = 5
FEW = 10  # clips: smaller folds are scored together, as a bootstrap inside of each can hardly vary


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

    @property
    def together(self) -> bool:
        """Are the folds so small that they are scored as one?"""
        return len(self.splits) > 1 and sum(len(s.test) for s in self.splits) < FEW * len(self.splits)


def task(rows: Sequence[Row], seed: int = 0) -> Task:
    """The classes and divisions of a labelled data set; clips without a label take no part.

    Raises:
        DataError: with fewer than two classes, no way to train and test, or no class in both parts.
    """
    classes = sorted({label for row in rows for label in row.labels})
    if len(classes) == 1:
        raise DataError(f"one class, {classes[0]!r}: a probe needs two or more. Is the label column the right one?")
    if not classes:
        raise DataError(
            "no labels, and a probe needs two or more. They stand in the column `label` of a metadata.csv beside the "
            "files, or of a manifest, or in the column that --label-column names."
        )
    column = {name: k for k, name in enumerate(classes)}
    truth = np.zeros((len(rows), len(classes)))
    for i, row in enumerate(rows):
        truth[i, [column[label] for label in row.labels]] = 1
    splits, notes = _divide(rows, truth, seed)
    notes = (*notes, *_unheard(truth, classes, splits), *_twice(rows, splits))
    multi = any(len(row.labels) > 1 for row in rows)
    question = Task(classes=tuple(classes), truth=truth, multi=multi, splits=splits, notes=notes)
    if not question.together:
        return question
    return replace(question, notes=(*notes, f"{len(splits)} folds of fewer than {FEW} clips: scored together, as one"))


def _unheard(truth: np.ndarray, classes: Sequence[str], splits: Sequence[Split]) -> list[str]:
    """What cannot be found: labels of test clips that no clip has which their probe trains on."""
    lost, whole, tested = np.zeros(len(classes), bool), 0, 0
    for split in splits:
        new = truth[split.train].sum(0) == 0
        lost |= new & truth[split.test].any(0)
        whole += int((truth[split.test][:, ~new] == 0).all(1).sum())
        tested += len(split.test)
    names = [name for name, gone in zip(classes, lost) if gone]
    if whole == tested:
        raise DataError(
            f"no test clip has a label that its training clips have ({len(classes)} classes, {tested} test clips). "
            "A probe needs clips of each class in both parts; numbers to be estimated are no classes."
        )
    some = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
    why = f"{len(names)} of {len(classes)} classes ({some}) are tested where no training clip has them"
    return [f"{why}: {whole} of {tested} test clips cannot be found"] if names else []


def _twice(rows: Sequence[Row], splits: Sequence[Split]) -> list[str]:
    """Files listed more than once, on both sides of a split."""
    files = [re.sub(r"#\d+$", "", row.id) for row in rows]
    both = tested = 0
    for split in splits:
        known = {files[i] for i in split.train}
        both += sum(files[i] in known for i in split.test)
        tested += len(split.test)
    return [f"{both} of {tested} test clips are trained on too: the same files are listed twice"] if both else []


def _divide(rows: Sequence[Row], truth: np.ndarray, seed: int) -> tuple[tuple[Split, ...], tuple[str, ...]]:
    labelled = np.asarray(truth.any(1))
    folds, kinds = [row.fold for row in rows], [split_of(row) for row in rows]
    if set(kinds) & TRAIN and set(kinds) & TEST:
        return (_train_test(rows, truth, np.array(kinds), seed),), ()
    if len(_values(folds, labelled)) < 2 and len(_values(kinds, labelled)) > 1:
        folds = [row.split for row in rows]  # another column named as the split: one fold for each of its values
    names = _values(folds, labelled)
    if len(names) > 1:
        number = np.array([names.index(f) if f and ok else -1 for f, ok in zip(folds, labelled)])
        return _k_folds(number, names, truth), ()
    number, how = np.full(len(rows), -1), f"{INNER} stratified folds"
    number[labelled], column = _drawn([row.extra for row in rows], np.flatnonzero(labelled), truth, seed)
    if column:
        how = f"{INNER} folds, each {column} whole in one,"
    note = f"no folds, no train and test part: {how} drawn with seed {seed}"
    return _k_folds(number, [str(k + 1) for k in range(INNER)], truth), (note,)


def _drawn(
    extra: Sequence[dict[str, str]], ours: np.ndarray, truth: np.ndarray, seed: int
) -> tuple[Int[np.ndarray, " n"], str]:
    """A fold for each of these clips, and the column whose groups they keep whole."""
    column, number = _grouped(extra, ours, ours[:0], seed)
    repeated = bool(column) and len({extra[i][column] for i in ours}) < len(ours)
    if repeated and all(len(set(number[has > 0])) > 1 for has in truth[ours].T):
        return number, column
    return stratified(truth, INNER, seed)[ours], ""


def _values(column: Sequence[str | None], labelled: np.ndarray) -> list[str]:
    """The distinct values, numbers in their order (fold 10 after fold 9)."""
    found = {v for v, ok in zip(column, labelled) if v and ok}
    return sorted(found, key=lambda v: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", v)])


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
    column, number = _grouped([row.extra for row in rows], train, test, seed)
    if not column:
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
) -> tuple[str, Int[np.ndarray, " n"]]:
    """The first column of `GROUPS` that splits train from test, and folds of the training clips that keep its groups
    whole; "" where none does. Inner folds are like the outer ones: choose as one will be tested."""
    for column in GROUPS:
        ours, theirs = ([extra[i].get(column, "") for i in part] for part in (train, test))
        names = sorted(set(ours))
        if all(names) and len(names) >= INNER and not set(names) & set(theirs):
            place = dict(zip(names, rng(seed, "groups").permutation(len(names)) % INNER))
            return column, np.array([place[name] for name in ours])
    return "", np.zeros(0, int)


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
