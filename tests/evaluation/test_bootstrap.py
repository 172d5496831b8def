"""The intervals: right in the simple case, the same for the same seed, paired between models."""

import numpy as np
import pytest

from otic.core.seeds import rng
from otic.evaluation import bootstrap
from otic.evaluation.features import Features
from otic.evaluation.metrics import accuracy, uar
from otic.evaluation.score import compare
from otic.evaluation.splits import task


def outcome(right: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    truth = np.eye(2)[np.zeros(right + wrong, int)]
    scores = truth.copy()
    scores[:wrong] = scores[:wrong, ::-1]
    return scores, truth


def spread(scores, truth, seed=0, resamples=2000):
    draws = bootstrap.resample([len(s) for s in scores], seed, resamples)
    return bootstrap.fold_values(accuracy, scores, truth, draws).mean(0)


def test_each_fold_is_drawn_as_often_as_it_has_clips():
    draws = bootstrap.resample([7, 30], 0, 50)
    assert [d.shape for d in draws] == [(50, 7), (50, 30)]
    assert all((d.sum(1) == n).all() for d, n in zip(draws, [7, 30]))


def test_same_seed_same_draws():
    assert all(np.array_equal(a, b) for a, b in zip(bootstrap.resample([9, 9], 4), bootstrap.resample([9, 9], 4)))
    assert not np.array_equal(*bootstrap.resample([9, 9], 4))


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    scores, truth = outcome(160, 40)
    low, high = bootstrap.interval(spread([scores], [truth]))
    half = 1.96 * np.sqrt(0.8 * 0.2 / 200)
    assert (low, high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.008)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """200 experiments of 60 clips at a true accuracy of 0.7: 95 % intervals cover in 90 to 98 % of them."""
    covered = 0
    for k in range(200):
        right = int(rng(k, "coverage").binomial(60, 0.7))
        low, high = bootstrap.interval(spread(*([x] for x in outcome(right, 60 - right)), seed=k, resamples=400))
        covered += low <= 0.7 <= high
    assert 180 <= covered <= 197


def test_paired_intervals_are_narrower_than_independent_ones():
    """Two models that differ on 10 of 200 clips: paired, the difference is clear."""
    (worse, truth), (better, _) = outcome(150, 50), outcome(160, 40)
    paired = spread([better], [truth]) - spread([worse], [truth])
    apart = spread([better], [truth], seed=1) - spread([worse], [truth], seed=2)
    assert bootstrap.interval(paired)[0] > 0 > bootstrap.interval(apart)[0]


def test_blocks_do_not_change_the_values(monkeypatch):
    gen = rng(0, "blocks")
    scores, truth = gen.random((50, 3)), np.eye(3)[gen.integers(3, size=50)]
    draws = bootstrap.resample([50], 0, 40)
    whole = bootstrap.fold_values(uar, [scores], [truth], draws)
    monkeypatch.setattr(bootstrap, "CELLS", 300)
    assert np.allclose(bootstrap.fold_values(uar, [scores], [truth], draws), whole, atol=1e-12)


def test_a_models_interval_is_that_of_its_mean_over_folds(rows):
    question = task(rows(clips=90, fold=lambda i: str(i // 3 % 3)))
    x = (question.truth + rng("folds").normal(size=question.truth.shape)).astype(np.float32)
    found = {"m": Features({"default": x})}
    (row, _), _, (view,) = compare("tones", found, question, "knn", ids=[str(i) for i in range(90)], seed=3)
    truth = [question.truth[split.test] for split in question.splits]
    folds = [float((s.argmax(1) == t.argmax(1)).mean()) for s, t in zip(view.scores, truth)]
    assert row.metric == "accuracy" and row.folds == pytest.approx(folds) and len(set(folds)) > 1
    assert row.value == pytest.approx(np.mean(folds)) and row.labels_used == 60
    assert row.ci95 == bootstrap.interval(spread(list(view.scores), truth, seed=3))
