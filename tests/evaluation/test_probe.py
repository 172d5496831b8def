"""Probes: they read what is there, choose on training clips only, and never look at the test labels."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from otic.core.seeds import rng
from otic.evaluation import probe
from otic.evaluation.metrics import accuracy
from otic.evaluation.splits import task


def vectors(question, noise: float, width: int = 10) -> np.ndarray:
    gen = rng("probe", str(noise))
    return question.truth @ gen.normal(size=(question.truth.shape[1], width)) + noise * gen.normal(
        size=(len(question.truth), width)
    )


def score(question, outcome) -> float:
    parts = zip(outcome.scores, question.splits)
    return float(np.mean([accuracy(s, question.truth[p.test], np.ones((1, len(s))))[0] for s, p in parts]))


@pytest.fixture
def question(rows):
    return task(rows(clips=120, classes=4, fold=lambda i: str(i // 4 % 5)))


@pytest.mark.parametrize("name", probe.PROBES)
def test_classes_that_lie_apart_are_told_apart(question, name):
    outcome = probe.run(probe.PROBES[name](), {"x": vectors(question, 0.1)}, question)
    assert score(question, outcome) > 0.98
    assert [s.shape for s in outcome.scores] == [(len(p.test), 4) for p in question.splits]
    assert all(np.allclose(s.sum(1), 1, atol=1e-5) for s in outcome.scores)


@pytest.mark.parametrize("name", probe.PROBES)
def test_noise_gives_chance(question, name):
    x = rng("noise").normal(size=(120, 10))
    assert 0.1 < score(question, probe.run(probe.PROBES[name](), {"x": x}, question)) < 0.42


@pytest.mark.parametrize("name", probe.PROBES)
def test_the_better_features_are_chosen(question, name):
    features = {
        "noise": vectors(question, 50.0),
        "signal": vectors(question, 0.3),
        "more noise": vectors(question, 40.0),
    }
    assert set(probe.run(probe.PROBES[name](), features, question).features) == {"signal"}


@pytest.mark.parametrize("name", probe.PROBES)
def test_labels_of_test_clips_change_nothing(rows, name):
    """The labels of the test part are shuffled: settings and scores stay what they were."""
    question = task(rows(clips=90, classes=4, split=lambda i: "test" if i % 3 == 0 else "train"))
    x = vectors(question, 1.5)
    test = question.splits[0].test
    truth = question.truth.copy()
    truth[test] = truth[rng(1).permutation(test)]
    first, second = (
        probe.run(probe.PROBES[name](), {"x": x, "y": x[:, :4]}, q) for q in (question, replace(question, truth=truth))
    )
    assert first.settings == second.settings and first.features == second.features
    assert np.array_equal(first.scores[0], second.scores[0])


@pytest.mark.parametrize("name", probe.PROBES)
def test_scale_and_offset_of_the_vectors_change_nothing(question, name):
    x = vectors(question, 2.0)
    plain, moved = (probe.run(probe.PROBES[name](), {"x": v}, question) for v in (x, 100 * x + 7))
    assert plain.settings == moved.settings
    assert all(np.allclose(a, b, atol=2e-2) for a, b in zip(plain.scores, moved.scores))


@pytest.mark.parametrize("name", probe.PROBES)
def test_several_labels_are_found_together(rows, name):
    question = task(rows(clips=160, labels=lambda i: tuple(f"k{k}" for k in range(4) if i >> k & 1) or ("k0",)))
    outcome = probe.run(probe.PROBES[name](), {"x": vectors(question, 0.1)}, question)
    guess, truth = (
        np.concatenate(parts) for parts in (outcome.scores, [question.truth[s.test] for s in question.splits])
    )
    assert ((guess > 0.5) == (truth > 0)).mean() > 0.97


@pytest.mark.parametrize("whitening", [0.0, 1.0])
def test_neighbours_vote_as_sklearns_do(question, whitening):
    x = vectors(question, 2.0).astype(np.float32)
    train, test = question.splits[0].train, question.splits[0].test
    steps = [StandardScaler()] + [PCA(whiten=True)] * (whitening == 1)
    scale = make_pipeline(*steps).fit(x[train])
    near, far = (normalize(scale.transform(x[part])) for part in (train, test))
    label = question.truth.argmax(1)
    theirs = KNeighborsClassifier(5, metric="cosine", weights=lambda d: np.exp(-d / 0.07)).fit(near, label[train])
    ours = probe.KNN(probe.KNNConfig(shrinkage=0.0)).outer(
        *map(torch.as_tensor, (x[train], question.truth[train].astype(np.float32), x[test])), (5.0, whitening), False
    )
    assert np.allclose(ours, theirs.predict_proba(far), atol=1e-4)


def test_whitening_helps_where_a_few_loud_axes_say_nothing(question):
    """Many features that repeat five useless numbers drown the others, until their axes are as quiet as the rest."""
    useless = np.repeat(rng("loud").normal(size=(len(question.truth), 5)), 200, 1)
    x = {"x": np.concatenate([vectors(question, 0.5), useless], 1)}
    right = {}
    for whitening in ((0.0,), (0.0, 1.0)):
        outcome = probe.run(probe.KNN(probe.KNNConfig(whitening=whitening)), x, question)
        truth = [question.truth[s.test].argmax(1) for s in question.splits]
        right[whitening] = np.mean([np.mean(o.argmax(1) == t) for o, t in zip(outcome.scores, truth, strict=True)])
    assert right[0.0, 1.0] > right[0.0,] + 0.2, right


def test_inner_scores_come_from_fits_that_held_the_clip_out(question):
    """Without the inner folds a nearest neighbour (k = 1) would find each training clip itself."""
    split = question.splits[0]
    x = torch.as_tensor(rng("self").normal(size=(len(split.train), 6)), dtype=torch.float32)
    truth = torch.as_tensor(question.truth[split.train], dtype=torch.float32)
    for reader in (probe.KNN(probe.KNNConfig(neighbours=(1,))), probe.Linear(probe.LinearConfig(strengths=(1e4,)))):
        guess = reader.inner(x, truth, torch.as_tensor(split.held), False)[0]
        assert (guess.argmax(1) == truth.argmax(1)).float().mean() < 0.5


def test_valid_part_alone_decides_where_there_is_one(rows):
    """Features that fit the training part but not the valid part lose, whatever the rest says."""
    kinds = ["train", "train", "valid", "test"]
    question = task(rows(clips=120, split=lambda i: kinds[i // 3 % 4]))
    valid = np.array([kinds[i // 3 % 4] == "valid" for i in range(120)])
    good = vectors(question, 0.1)
    spoiled = np.where(valid[:, None], rng("spoil").normal(size=good.shape), good)
    assert probe.run(probe.Linear(), {"spoiled": spoiled, "good": good}, question).features == ("good",)
