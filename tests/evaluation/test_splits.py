"""Who is trained on and who is tested on."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otic.core.errors import DataError
from otic.core.seeds import rng
from otic.evaluation.splits import stratified, task


def test_each_fold_is_tested_once_and_its_clips_never_train(rows):
    question = task(rows(clips=41, fold=lambda i: str(i % 4 + 1)))
    assert [s.name for s in question.splits] == ["1", "2", "3", "4"]
    assert sorted(np.concatenate([s.test for s in question.splits])) == list(range(41))
    for split in question.splits:
        assert sorted([*split.train, *split.test]) == list(range(41))
        assert split.held.shape == (3, len(split.train))  # the other folds, in turn
        assert (split.held.sum(0) == 1).all()
        assert all(len({i % 4 for i in split.train[part]}) == 1 for part in split.held)


def test_of_two_folds_the_other_is_divided_anew(rows):
    for split in task(rows(clips=60, classes=2, fold=lambda i: str(i // 2 % 2))).splits:
        assert split.held.shape == (5, 30) and (split.held.sum(0) == 1).all() and (split.held.sum(1) == 6).all()


def test_fold_10_comes_after_fold_9(rows):
    assert [s.name for s in task(rows(fold=lambda i: str(i % 12 + 1))).splits][-3:] == ["10", "11", "12"]


def test_train_valid_test_chooses_on_valid_and_trains_on_both(rows):
    kinds = ["train", "train", "valid", "test", "unused"]
    (split,) = task(rows(split=lambda i: kinds[i % 5])).splits
    assert {i % 5 for i in split.train} == {0, 1, 2} and {i % 5 for i in split.test} == {3}
    assert split.held.shape[0] == 1
    assert {i % 5 for i in split.train[split.held[0]]} == {2}


def test_train_test_without_valid_gets_stratified_inner_folds(rows):
    (split,) = task(rows(clips=100, split=lambda i: "test" if i < 20 else "train")).splits
    assert split.held.shape == (5, 80) and (split.held.sum(0) == 1).all()


@pytest.mark.parametrize("disjoint", [True, False])
def test_inner_folds_keep_speakers_whole_only_where_the_test_does(rows, disjoint):
    speaker = (lambda i: f"s{i % 10}") if disjoint else (lambda i: f"s{i // 2 % 7}")
    (split,) = task(
        rows(split=lambda i: "test" if i % 10 < 2 else "train", extra=lambda i: {"speaker": speaker(i)})
    ).splits
    number = split.held.argmax(0)
    whole = all(
        len({int(number[k]) for k, i in enumerate(split.train) if speaker(i) == s}) <= 1
        for s in map(speaker, split.train)
    )
    assert whole == disjoint


def test_a_column_of_other_values_named_as_split_gives_folds(rows):
    question = task(rows(classes=2, split=lambda i: ["ann", "bob", "cat"][i % 3]))
    assert [s.name for s in question.splits] == ["ann", "bob", "cat"]


def test_without_columns_five_folds_are_drawn_and_noted(rows):
    question = task(rows(), seed=7)
    assert len(question.splits) == 5 and "seed 7" in question.notes[0]
    again, other = task(rows(), seed=7), task(rows(), seed=8)
    assert all(np.array_equal(a.test, b.test) for a, b in zip(question.splits, again.splits))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(question.splits, other.splits))


def test_drawn_folds_keep_speakers_whole_where_each_class_has_several(rows):
    speaker = [f"s{(i * 7) % 11}" for i in range(60)]
    question = task(rows(extra=lambda i: {"speaker": speaker[i]}))
    assert "each speaker whole" in question.notes[0]
    for split in question.splits:
        assert not {speaker[i] for i in split.train} & {speaker[i] for i in split.test}


@pytest.mark.parametrize("speaker", [lambda i: f"s{i % 6}", lambda i: f"s{i}"])
def test_drawn_folds_are_stratified_where_groups_are_classes_or_single_clips(rows, speaker):
    question = task(rows(classes=6, extra=lambda i: {"speaker": speaker(i)}))
    assert "stratified" in question.notes[0]
    assert all(np.array_equal(a.test, b.test) for a, b in zip(question.splits, task(rows(classes=6)).splits))


def test_classes_that_are_never_trained_on_are_noted(rows):
    question = task(rows(split=lambda i: "train" if i % 3 != 2 and i % 2 else "test"))
    assert question.notes == (
        "1 of 3 classes (k2) are tested where no training clip has them: 20 of 40 test clips cannot be found",
    )


def test_files_on_both_sides_of_a_split_are_noted(rows):
    listed = rows(clips=60, split=lambda i: "test" if i >= 40 else "train")
    listed[45:48] = [replace(row, id=f"{listed[k].id}#2") for k, row in enumerate(listed[45:48])]
    assert task(listed).notes == ("3 of 20 test clips are trained on too: the same files are listed twice",)
    assert not task(rows(classes=2, split=half)).notes


def test_small_folds_count_together(rows):
    one_out = task(rows(clips=30, fold=str))
    assert one_out.together and "scored together" in one_out.notes[-1]
    assert not task(rows(clips=60, fold=lambda i: str(i % 4))).together
    assert not task(rows(clips=12, classes=2, split=half)).together  # one part only


def test_fold_names_may_hold_any_digit(rows):
    assert len(task(rows(classes=2, fold=lambda i: "1²٣"[i % 3])).splits) == 3


def test_clips_without_a_label_take_no_part(rows):
    question = task(rows(clips=40, labels=lambda i: () if i % 8 == 0 else (f"k{i % 2}",)))
    assert not {0, 8, 16, 24, 32} & {int(i) for s in question.splits for i in (*s.train, *s.test)}


def test_several_labels_make_the_question_multi_label(rows):
    question = task(rows(labels=lambda i: ("a", "b") if i == 3 else ("a",) if i % 2 else ("b",)))
    assert question.multi and question.truth[3].tolist() == [1, 1]
    assert not task(rows()).multi


@given(st.integers(10, 90), st.integers(2, 6), st.integers(2, 5), st.integers(0, 99))
def test_stratified_folds_differ_by_one_clip_at_most(n, classes, folds, seed):
    label = rng(seed, "labels").integers(classes, size=n)
    number = stratified(np.eye(classes)[label], folds, seed)
    for part in (label >= 0, *(label == k for k in range(classes))):
        sizes = np.bincount(number[part], minlength=folds)
        assert sizes.max() - sizes.min() <= 1


def half(i: int) -> str:
    return "train" if i % 3 else "test"


@pytest.mark.parametrize(
    "columns, words",
    [
        ({"classes": 1}, "two or more"),
        ({"labels": lambda i: ()}, "no labels.*metadata.csv.*--label-column"),
        ({"labels": lambda i: (f"{i / 7:.2f}",)}, "are no classes"),
        ({"fold": lambda i: str(i % 3)}, "no test clip has a label"),
        ({"split": half, "labels": lambda i: () if half(i) == "train" else (f"k{i % 2}",)}, "0 labelled"),
    ],
)
def test_data_that_cannot_be_probed_is_refused(rows, columns, words):
    with pytest.raises(DataError, match=words):
        task(rows(**columns))
