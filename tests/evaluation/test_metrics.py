"""Every metric against scikit-learn, and as a bootstrap weighs it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from otic.core.seeds import rng
from otic.evaluation import metrics


def case(seed: int, n: int, c: int, levels: int | None = None, multi: bool = False):
    """Scores (on `levels` distinct values: ties), truth with every class, weights with zeros."""
    gen = rng(seed, "case")
    scores = gen.normal(size=(n, c)) if levels is None else gen.integers(levels, size=(n, c)) / levels
    label = np.concatenate([np.arange(c), gen.integers(c, size=n - c)])
    truth = np.eye(c)[label]
    if multi:
        truth = np.maximum(truth, gen.random((n, c)) < 0.2)
        truth[0] = np.eye(c)[0]
    weights = np.concatenate([np.ones((1, n)), gen.multinomial(n, np.full(n, 1 / n), size=3)])
    return scores, truth, weights


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(8, 60), st.sampled_from([2, 5, None]))
def test_average_precision_is_sklearns_ties_and_weights_included(seed, c, n, levels):
    scores, truth, weights = case(seed, n, c, levels)
    ours = metrics.average_precision(scores[:, 0], truth[:, 0], weights)
    for value, w in zip(ours, weights):
        if (w * truth[:, 0]).sum() == 0:
            assert np.isnan(value)
        else:
            expected = oracle.average_precision_score(truth[:, 0], scores[:, 0], sample_weight=w)
            assert value == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10**6), st.integers(8, 60), st.sampled_from([2, 5, None]))
def test_roc_area_is_sklearns_ties_and_weights_included(seed, n, levels):
    scores, truth, weights = case(seed, n, 2, levels)
    for value, w in zip(metrics.roc_area(scores[:, 0], truth[:, 0], weights), weights):
        taken = w > 0
        if len(set(truth[taken, 0])) < 2:
            assert np.isnan(value)
        else:
            expected = oracle.roc_auc_score(truth[taken, 0], scores[taken, 0], sample_weight=w[taken])
            assert value == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 10**6), st.integers(2, 5), st.integers(8, 60))
def test_accuracy_and_uar_are_sklearns(seed, c, n):
    scores, truth, weights = case(seed, n, c)
    guess, label = scores.argmax(1), truth.argmax(1)
    for k, w in enumerate(weights):
        taken = np.repeat(np.arange(n), w.astype(int))  # the resample written out
        assert metrics.accuracy(scores, truth, weights)[k] == pytest.approx(
            oracle.accuracy_score(label[taken], guess[taken])
        )
        recalls = [np.mean(guess[taken][label[taken] == m] == m) for m in set(label[taken])]
        assert metrics.uar(scores, truth, weights)[k] == pytest.approx(np.mean(recalls))


def test_mean_average_precision_is_sklearns_macro_average():
    scores, truth, _ = case(3, 300, 9, multi=True)
    ours = metrics.mean_average_precision(scores, truth, np.ones((1, 300)))[0]
    assert ours == pytest.approx(oracle.average_precision_score(truth, scores, average="macro"), abs=1e-12)


def test_f1_is_sklearns_micro_average_of_one_guess_a_clip():
    scores, truth, weights = case(5, 80, 4, multi=True)
    guess = np.eye(4)[scores.argmax(1)]
    for value, w in zip(metrics.f1(scores, truth, weights), weights):
        expected = oracle.f1_score(truth, guess, average="micro", sample_weight=w)
        assert value == pytest.approx(expected)


def test_a_class_without_clips_is_left_out_of_the_means():
    scores, truth, weights = case(1, 50, 4)
    more = np.pad(truth, ((0, 0), (0, 1))), np.pad(scores, ((0, 0), (0, 1)), constant_values=-9.0)
    for metric in (metrics.uar, metrics.mean_average_precision):
        assert metric(more[1], more[0], weights) == pytest.approx(metric(scores, truth, weights))


def test_d_prime_of_two_gaussians_is_their_distance():
    """For unit normals a distance d apart, AUC = Phi(d / sqrt 2), so d' is d itself."""
    gen = rng(0, "gaussians")
    truth = np.repeat([[1.0], [0.0]], 200_000, axis=0)
    scores = gen.normal(size=(400_000, 1)) + 1.5 * truth
    assert metrics.d_prime(scores, truth, np.ones((1, 400_000)))[0] == pytest.approx(1.5, abs=0.01)


def test_d_prime_of_a_perfect_ranking_is_finite():
    truth = np.eye(2)[[0, 0, 1, 1]]
    assert 1 < metrics.d_prime(truth.astype(float), truth, np.ones((1, 4)))[0] < 10


@given(st.integers(0, 10**6), st.integers(20, 200))
def test_eer_lies_where_the_two_error_rates_cross(seed, n):
    gen = rng(seed, "eer")
    same = np.concatenate([[0, 1], gen.integers(2, size=n)])
    scores = gen.normal(size=n + 2) + same
    far, tpr, _ = oracle.roc_curve(same, scores, drop_intermediate=False)
    # the ROC curve as a polyline, then its crossing with miss = false alarm, found by brute force
    points = np.concatenate([np.linspace((a, b), (c, d), 200) for a, b, c, d in zip(far, tpr, far[1:], tpr[1:])])
    expected = points[np.abs(1 - points[:, 1] - points[:, 0]).argmin(), 0]
    assert metrics.eer(scores, same) == pytest.approx(expected, abs=2e-3)
    assert 0 <= metrics.eer(scores, same) <= 1


@pytest.mark.parametrize(
    "scores, same, rate",
    [([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0], 0.0), ([0.1, 0.9], [1, 0], 1.0), ([0.5, 0.5], [1, 0], 0.5)],
)
def test_eer_of_the_simplest_cases(scores, same, rate):
    assert metrics.eer(np.array(scores), np.array(same)) == pytest.approx(rate)


def test_confusion_counts_truth_in_rows():
    table = metrics.confusion(np.array([0, 1, 1, 2]), np.array([0, 1, 2, 2]), 3)
    assert table.tolist() == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]


def test_every_metric_gives_one_value_per_weighting():
    scores, truth, weights = case(2, 40, 3, multi=True)
    for name, metric in metrics.METRICS.items():
        values = metric(scores, truth, weights)
        assert values.shape == (4,), name
        assert metric(scores, truth, weights[2:3])[0] == pytest.approx(values[2]), name
