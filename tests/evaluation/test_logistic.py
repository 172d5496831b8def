"""The batched solver against scikit-learn's, at every strength and for every subset at once."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from otic.core.seeds import generator
from otic.evaluation import logistic

STRENGTHS = (1e-4, 1e-2, 1.0, 10.0)


def data(n: int, d: int, c: int, noise: float = 1.0):
    gen = generator(0, n, d)
    label = torch.randint(c, (n,), generator=gen)
    centres = torch.randn(c, d, generator=gen)
    scale = torch.logspace(-2, 2, d)  # features of very different size, correlated
    mix = torch.eye(d) + 0.3 * torch.randn(d, d, generator=gen)
    return (centres[label] + noise * 3 * torch.randn(n, d, generator=gen)) @ mix * scale + 5, label


def solve(x, truth, use, strengths, multi=False):
    axes = logistic.Axes.of(x)
    weights = logistic.fit(axes(x), axes.power, truth, use, torch.tensor(strengths), multi=multi, tolerance=1e-5)
    return axes, weights


@pytest.mark.parametrize("n, d", [(300, 20), (60, 200)])
def test_probabilities_are_sklearns(n, d):
    x, label = data(n, d, 4)
    axes, weights = solve(x, torch.nn.functional.one_hot(label).float(), torch.ones(4, n), STRENGTHS)
    z = StandardScaler().fit_transform(x.double().numpy())
    for strength, w in zip(STRENGTHS, weights):
        theirs = LogisticRegression(C=strength, max_iter=20000, tol=1e-9).fit(z, label).predict_proba(z)
        ours = (axes(x) @ w).softmax(-1).numpy()
        assert np.abs(ours - theirs).max() < 2e-3


def test_one_per_class_is_sklearns_binary_fit():
    x, label = data(200, 15, 3)
    truth = torch.nn.functional.one_hot(label).float()
    truth[:50, 0] = 1  # some clips have two labels
    axes, weights = solve(x, truth, torch.ones(2, 200), (0.01, 1.0), multi=True)
    z = StandardScaler().fit_transform(x.double().numpy())
    for strength, w in zip((0.01, 1.0), weights):
        ours = (axes(x) @ w).sigmoid().numpy()
        for k in range(3):
            theirs = LogisticRegression(C=strength, max_iter=20000, tol=1e-9).fit(z, truth[:, k].numpy())
            assert np.abs(ours[:, k] - theirs.predict_proba(z)[:, 1]).max() < 2e-3


def test_a_problem_that_leaves_clips_out_is_the_fit_to_the_rest():
    x, label = data(200, 10, 3)
    use = torch.ones(2, 200)
    use[1, :80] = 0
    axes, weights = solve(x, torch.nn.functional.one_hot(label).float(), use, (0.1, 0.1))
    z = axes(x)[:, :-1].double().numpy()
    theirs = LogisticRegression(C=0.1, max_iter=20000, tol=1e-9).fit(z[80:], label[80:]).predict_proba(z)
    assert np.abs((axes(x) @ weights[1]).softmax(-1).numpy() - theirs).max() < 2e-3


def test_constant_and_repeated_features_change_nothing():
    x, label = data(120, 8, 3)
    truth, use = torch.nn.functional.one_hot(label).float(), torch.ones(1, 120)
    axes, weights = solve(x, truth, use, (1.0,))
    padded = torch.cat([x, torch.full((120, 3), 7.0)], dim=1)
    wide, more = solve(padded, truth, use, (1.0,))
    assert torch.allclose((axes(x) @ weights[0]).softmax(-1), (wide(padded) @ more[0]).softmax(-1), atol=1e-3)


def test_a_class_never_seen_gets_a_finite_and_negligible_share():
    x, label = data(100, 5, 3)
    truth = torch.nn.functional.one_hot(label, 4).float()
    axes, weights = solve(x, truth, torch.ones(1, 100), (1.0,))
    chances = (axes(x) @ weights[0]).softmax(-1)
    assert weights.isfinite().all() and chances[:, 3].max() < 0.02


def test_separable_data_stays_finite():
    x, label = data(100, 5, 2, noise=0.0)
    axes, weights = solve(x, torch.nn.functional.one_hot(label).float(), torch.ones(2, 100), (1.0, 1e4))
    assert weights.isfinite().all()
    assert ((axes(x) @ weights[1]).argmax(-1) == label).all()
