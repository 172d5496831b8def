"""Naming sounds: scores are what they say, and spans lie where the windows that gave them lie."""

from itertools import pairwise

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.errors import AudioError, ConfigError
from otic.core.seeds import generator, rng
from otic.inference import tagging
from otic.inference.classifier import classifier_of
from otic.inference.model import Model
from otic.inference.tagging import Naming, at_moments
from otic.models.heads import Head, HeadConfig
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.two_tower import TwoTower, TwoTowerConfig
from otic.models.vit import ViT, ViTConfig
from otic.weights.store import Loaded

RATE = 16000


def noise(seconds, key=0):
    return rng("tagging", key).standard_normal(round(seconds * RATE)).astype(np.float32) * 0.1


def lively(module, gen):
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=gen))
    return module.eval()


def worded(**cfg):
    gen = generator("tagging tests")
    encoder = ViT(ViTConfig(width=32, depth=1, heads=2, mels=64), gen)
    text = TextConfig(vocab=0, positions=80, width=32, depth=1, heads=2)
    towers = lively(TwoTower(encoder, TwoTowerConfig(text=text, dim=16, **cfg), Tokenizer.plain(), gen), gen)
    return Model(encoder, Frontend(FrontendConfig(mels=64)), {"name": "w"}, towers=towers, device="cpu")


@pytest.fixture(scope="module")
def model():
    return worded()


@pytest.fixture(scope="module")
def tuned():
    gen = generator("tuned")
    encoder = lively(ViT(ViTConfig(width=32, depth=1, heads=2, mels=64), gen), gen)
    head = lively(Head(32, HeadConfig(classes=3), gen), gen)
    extra = {f"head.{n}": t for n, t in head.state_dict().items()}
    said = {"head": {"classes": 3}, "classes": ["dog", "rain", "siren"]}
    loaded = Loaded(encoder, FrontendConfig(mels=64), {"name": "t"}, extra, said)
    return Model(encoder, Frontend(loaded.frontend), loaded.card, classifier=classifier_of(loaded), device="cpu")


def test_one_of_many_is_a_softmax_of_scaled_cosines(model):
    wave, labels = noise(1.5), ["Dog", "sea_waves", "rain"]
    logits = (
        model.scale
        * model.audio(wave)[0]
        @ model.text([f"this is a sound of {x}" for x in ("dog", "sea waves", "rain")]).T
    )
    expected = dict(zip(labels, np.exp(logits) / np.exp(logits).sum(), strict=True))
    found = model.tag(wave, labels)
    assert [label for label, _ in found] == sorted(labels, key=lambda x: -expected[x])
    assert all(score == pytest.approx(expected[label], abs=1e-5) for label, score in found)
    assert model.tag(wave, labels, top=1) == found[:1] and model.tag(wave, "Dog,sea_waves,rain") == found


def test_labels_that_read_the_same_do_not_share_a_score(model):
    wave = noise(1.5)
    found = model.tag(wave, ["Dog", "sea_waves"])
    assert model.tag(wave, ["Dog", "sea_waves", "dog", " Sea waves", "_", "dog_"]) == found
    with pytest.raises(ConfigError, match="no words in __, _"):
        model.tag(wave, ["__", "_"])


def test_several_at_once_are_measured_against_a_sound(model):
    wave = noise(1.5)
    cosines = model.similarity(wave, ["can hear dog", "can hear rain", "a sound"])[0]
    expected = 1 / (1 + np.exp(-model.scale * (cosines[:2] - cosines[2])))
    found = dict(model.tag(wave, ["dog", "rain"], multi=True, prompts="can hear {}"))
    assert found == pytest.approx({"dog": expected[0], "rain": expected[1]}, abs=1e-5)


def test_towers_with_a_bias_know_their_own_threshold():
    model, wave = worded(bias=-2.0), noise(1.0)
    cosine = model.similarity(wave, "dog")[0, 0]
    expected = 1 / (1 + np.exp(-(model.scale * cosine + model.towers.bias.item())))
    assert model.tag(wave, ["dog"], multi=True, prompts="bare")[0].score == pytest.approx(expected, abs=1e-5)


def test_several_prompts_are_an_ensemble(model):
    wave = noise(1.0)
    said = np.stack([model.text([f"{x}", f"{x} can be heard"]).mean(0) for x in ("dog", "rain")])
    logits = model.scale * model.audio(wave)[0] @ (said / np.linalg.norm(said, axis=1, keepdims=True)).T
    found = dict(model.tag(wave, ["dog", "rain"], prompts=["bare", "heard"]))
    assert found["dog"] == pytest.approx(1 / (1 + np.exp(logits[1] - logits[0])), abs=1e-5)


def test_own_classes(tuned):
    wave = noise(1.6)
    with torch.no_grad():
        encoded = tuned.encoder(tuned.frontend(torch.from_numpy(wave)[None], None, 160))
        expected = tuned.classifier.head(encoded).softmax(-1)[0].numpy()
    found = dict(tuned.tag(wave))
    assert found == pytest.approx(dict(zip(["dog", "rain", "siren"], expected, strict=True)), abs=1e-5)
    assert dict(tuned.tag(wave, ["siren", "dog"])) == pytest.approx({k: found[k] for k in ("siren", "dog")})
    with pytest.raises(ConfigError, match=r"'sirn' is unknown. Did you mean 'siren'"):
        tuned.tag(wave, ["sirn"])


def test_without_words_or_classes_it_says_so(model, make_model):
    with pytest.raises(ConfigError, match=r"no classes of its own. Name labels"):
        model.tag(noise(1.0))
    with pytest.raises(ConfigError, match="sound alone"):
        make_model().tag(noise(1.0), ["dog"])
    with pytest.raises(ConfigError, match="no tagging head"):
        model.tag(noise(1.0), tagger=True)
    with pytest.raises(ConfigError, match="name at least one"):
        model.tag(noise(1.0), [" "])


def test_a_timeline_tells_every_moment_once(model):
    found = model.tag(noise(7.3), ["dog", "rain", "siren"], timeline=True)
    assert found[0].start == 0 and found[-1].end == pytest.approx(7.3)
    assert all(a.end == b.start and a.label != b.label for a, b in pairwise(found))
    many = model.tag(noise(7.3), ["dog", "rain"], timeline=True, multi=True, threshold=0)
    assert {(s.label, s.start, s.end) for s in many} == {("dog", 0, 7.3), ("rain", 0, 7.3)}
    assert model.tag(noise(7.3), ["dog"], timeline=True, multi=True, threshold=1.1) == []


def test_the_scores_of_a_timeline_are_those_of_its_windows(tuned):
    wave = np.concatenate([noise(2.0, 1), np.zeros(2 * RATE, np.float32)])
    wave[2 * RATE :] = 0.01 * noise(2.0, 2)
    for span in tuned.tag(wave, timeline=True, window=2, hop=2, threshold=0):
        piece = wave[round(span.start * RATE) : round(span.end * RATE)]
        if span.end - span.start == 2:
            assert dict(tuned.tag(piece))[span.label] == pytest.approx(span.score, abs=1e-5)


NAMING = Naming(("a", "b"), True, "", lambda x: x)


def test_spans_merge_what_lies_side_by_side():
    windows = np.array([[0, 2], [1, 3], [2, 4], [3, 5]], float)
    scores = np.array([[0.9, 0.0], [0.7, 0.2], [0.1, 0.0], [0.0, 0.9]])
    found = tagging.spans(NAMING, scores, windows)  # a at 0..3: .9, .8, .4, .05, 0; b: 0, .1, .1, .45, .9
    assert [(s.label, s.start, s.end) for s in found] == [("a", 0, 2), ("b", 4, 5)]
    assert [s.score for s in found] == pytest.approx([0.85, 0.9])
    one = Naming(("a", "b"), False, "", lambda x: x)
    assert [(s.label, s.start, s.end) for s in tagging.spans(one, scores, windows)] == [("a", 0, 3), ("b", 3, 5)]
    assert [s.label for s in tagging.spans(NAMING, scores, windows, top=1)] == ["a"]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_moments_are_the_mean_of_the_windows_over_them(count, size, hop, seed):
    windows = np.array([[i * hop, i * hop + size] for i in range(count)], float)
    scores = rng("moments", seed).random((count, 2))
    moments, edges = at_moments(scores, windows)
    for k, (a, b) in enumerate(pairwise(edges)):
        over = [s for s, (x, y) in zip(scores, windows, strict=True) if x <= a and b <= y]
        assert moments[k] == pytest.approx(np.mean(over, 0) if over else 0, abs=1e-9)


def test_lists_give_lists_and_bad_files_are_named(model, tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(1.0), RATE)
    together, alone = model.tag([path, noise(1.0)], ["dog", "rain"])[0], model.tag(path, ["dog", "rain"])
    assert dict(together) == pytest.approx(dict(alone), abs=1e-5)
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"b\.wav"):
        model.tag([path, tmp_path / "b.wav"], ["dog"])
    how = tagging.naming(model, ["dog"])
    good, bad = tagging.tag(model, [path, tmp_path / "b.wav"], how)
    assert good.failed is None and good.seconds == 1 and bad.failed and not bad.tags
