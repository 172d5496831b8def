"""A caption against one that is nearly right."""

import numpy as np
import pytest
from words_for_tests import Scenes, WordModel

from otic.apps.evaluate import evaluate
from otic.core.errors import DataError
from otic.core.seeds import rng
from otic.data.rows import Row
from otic.evaluation import choice


def row(i, captions=2, **extra):
    return Row(id=str(i), captions=tuple(f"c{i}{k}" for k in range(captions)), extra=extra)


def test_pairs_of_clips_that_have_a_wrong_caption():
    rows = [
        row(0, hard_negative="x", negative_kind="order"),
        row(1),
        row(2, 3, hard_negative="y", negative_kind="class"),
    ]
    asked = choice.pairs(rows)
    assert asked.captions == ("c00", "c01", "c20", "c21", "c22") and asked.owner.tolist() == [0, 0, 2, 2, 2]
    assert asked.wrong == ("x", "", "y") and asked.kinds == ("order", "", "class")
    with pytest.raises(DataError, match="hard_negative"):
        choice.pairs([row(0)])


def test_right_by_a_plain_loop_and_a_tie_is_half():
    gen = rng("choice")
    audio, said, wrong = (gen.normal(size=(n, 4)).astype(np.float32) for n in (3, 5, 3))
    owner = np.array([0, 0, 1, 2, 2])
    said[4] = wrong[2]
    got = choice.right(audio, said, wrong, owner)
    for m, i in enumerate(owner):
        if m < 4:
            assert got[m] == float((said[m] * audio[i]).sum() > (wrong[i] * audio[i]).sum())
    assert got[4] == 0.5


def test_kinds_are_scored_apart():
    rows = [row(i, hard_negative="x", negative_kind=("order", "class")[i % 2]) for i in range(4)]
    good = np.array([1, 1, 0, 1, 0.5, 0.5, 0, 0])
    statistics, counts = choice.statistics(good, choice.pairs(rows))
    assert list(statistics) == ["choice_order", "choice_class"] and counts == {"choice_order": 2, "choice_class": 2}
    once, twice = np.ones((1, 4)), np.array([[2, 0, 1, 0]])
    assert statistics["choice_order"](once)[0] == pytest.approx(0.75)
    assert statistics["choice_class"](once)[0] == pytest.approx(0.25)
    assert statistics["choice_order"](twice)[0] == pytest.approx(5 / 6)
    plain, _ = choice.statistics(np.ones(2), choice.pairs([row(0, hard_negative="x")]))
    assert list(plain) == ["choice"]


def test_who_hears_no_order_is_right_half_of_the_time():
    deaf = evaluate({"deaf": WordModel(order=False), "sharp": WordModel()}, Scenes(), protocols=["choice"])
    assert deaf.value("sharp", "scenes", "choice", "choice_order") == 1.0
    assert deaf.value("deaf", "scenes", "choice", "choice_order") == pytest.approx(0.5, abs=0.25)
    assert deaf.value("deaf", "scenes", "choice", "choice_class") > 0.9
    for r in deaf.rows:
        assert r.config["chance"] == 0.5 and r.n_test == 9
    assert {r.model for r in deaf.rows} == {"deaf", "sharp", "untrained"}  # the same architecture: one twin
