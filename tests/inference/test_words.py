"""Sound and words in one space: vectors depend on the item alone, and what is a file and what a text is never guessed
silently."""

import numpy as np
import pytest
import soundfile
import torch

from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.errors import AudioError, ConfigError, OticWarning
from otic.core.seeds import generator, rng
from otic.inference.model import Model
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.two_tower import TwoTower, TwoTowerConfig
from otic.models.vit import ViT, ViTConfig

RATE = 16000
TEXTS = ["a dog barks", "rain", "a dog barks and then it rains for a long time", "rain", ""]


def noise(seconds, key=0):
    return rng("words", key).standard_normal(round(seconds * RATE)).astype(np.float32) * 0.1


def build(tokenizer=True, card=None, **cfg):
    gen = generator("words tests")
    encoder = ViT(ViTConfig(width=32, depth=2, heads=2, mels=64), gen)
    text = TextConfig(vocab=0 if tokenizer else 300, positions=80, width=32, depth=2, heads=2)
    towers = TwoTower(encoder, TwoTowerConfig(text=text, dim=24, **cfg), Tokenizer.plain() if tokenizer else None, gen)
    with torch.no_grad():
        for p in towers.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=gen))
    return Model(encoder, Frontend(FrontendConfig(mels=64)), card, towers=towers, device="cpu")


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def files(tmp_path):
    out = []
    for i, seconds in enumerate((1.0, 2.3)):
        out.append(tmp_path / f"{i}.wav")
        soundfile.write(out[-1], noise(seconds, i), RATE)
    return out


def test_vectors_have_length_one_and_one_width(model):
    said, heard = model.text(TEXTS), model.audio([noise(1.0), noise(12.0)])
    assert said.shape == (5, 24) and heard.shape == (2, 24) and said.dtype == heard.dtype == np.float32
    assert np.allclose(np.linalg.norm(np.concatenate([said, heard]), axis=1), 1, atol=1e-5)
    assert model.text("rain").shape == (1, 24) and np.array_equal(said[1], said[3])
    assert model.audio([]).shape == (0, 24) and model.text([]).shape == (0, 24)


def test_what_is_no_text_is_refused(model):
    with pytest.raises(ConfigError, match=r"text: expected words, not 1\. Give a string"):
        model.text(["rain", 1])


def test_a_cut_text_is_named_once():
    model, long = build(), "a dog barks, " * 12
    with pytest.warns(OticWarning, match=r"more than 77 tokens.*a dog barks, a dog barks, .* \.\.\.$") as caught:
        said = model.text(["rain", long, long + "and it rains"])
    assert len(caught) == 1 and np.array_equal(said[1], said[2])
    model.text([long])  # not again


def test_company_changes_no_text(model):
    alone = np.concatenate([model.text([t]) for t in TEXTS])
    assert np.abs(model.text(TEXTS) - alone).max() <= 1e-6
    assert np.array_equal(model.text(TEXTS), model.text(TEXTS))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_words_of_a_caption_decide_alone(model, precision):
    """Texts of every length, in any order, beside others or not."""
    same = Model(model.encoder, model.frontend, towers=model.towers, device="cpu", precision=precision)
    said = ["rain " * n + "x" * (n % 3) for n in range(14)]
    together, turned = same.text(said), same.text(said[::-1])[::-1]
    assert np.abs(together - turned).max() <= 1e-6
    assert np.abs(together - np.concatenate([same.text(t) for t in said])).max() <= 1e-6


def test_each_distinct_text_is_read_once(model, monkeypatch):
    seen = []
    monkeypatch.setattr(model.towers, "words", lambda tokens: (seen.append(len(tokens.ids)), words(tokens))[1])
    words = TwoTower.words.__get__(model.towers)
    model.text(["rain"] * 50 + ["a dog"])
    assert sum(seen) == 2


@pytest.mark.parametrize("pool", ["mean", "cls", "series"])
def test_company_changes_no_sound(pool):
    model = build(pool=pool)
    waves = [noise(s, i) for i, s in enumerate([1.0, 0.4, 12.0, 1.0, 2.5])]
    together = model.audio(waves)
    assert np.abs(together - np.concatenate([model.audio(w) for w in waves])).max() <= 1e-5
    assert np.array_equal(together, model.audio(waves))


def test_a_long_sound_is_the_mean_of_its_windows(model):
    wave = noise(25.0)
    parts = model.audio([wave[: 10 * RATE], wave[10 * RATE : 20 * RATE], wave[15 * RATE :]])
    mean = (10 * parts[0] + 10 * parts[1] + 5 * parts[2]) / 25
    assert np.abs(model.audio(wave)[0] - mean / np.linalg.norm(mean)).max() <= 1e-5


def test_towers_called_by_hand(model):
    wave = noise(1.6)
    with torch.no_grad():
        joint = model.towers.audio(model.frontend(torch.from_numpy(wave)[None], None, 160))
        words = model.towers.words(model.towers.tokenizer(["rain"]))
    cosine = torch.cosine_similarity(joint, words).item()
    assert model.similarity(wave, "rain")[0, 0] == pytest.approx(cosine, abs=1e-5)
    assert model.scale == pytest.approx(model.towers.scale.item())


def test_similarity_takes_everything(model, files):
    items = [files[0], "rain", str(files[1]), noise(1.0), (noise(1.0), RATE), "a dog"]
    found = model.similarity(items, items)
    assert found.shape == (6, 6) and np.allclose(np.diag(found), 1, atol=1e-5) and np.allclose(found, found.T)
    assert np.allclose(found[3], found[4])
    assert np.allclose(found[1, 5], model.text(["rain"])[0] @ model.text(["a dog"])[0], atol=1e-6)
    assert np.allclose(found[0, 2], model.audio(files)[0] @ model.audio(files)[1], atol=1e-6)


def test_stereo_is_mixed_down(model, tmp_path):
    left, right = noise(1.0, 1), noise(1.0, 2)
    soundfile.write(tmp_path / "s.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    assert np.abs(model.audio(tmp_path / "s.wav") - model.audio((left + right) / 2)).max() <= 1e-5


def test_a_missing_file_is_never_words(model, tmp_path):
    for item in ("nowhere/dog.wav", "dog.FLAC", tmp_path / "no-suffix"):
        with pytest.raises(AudioError, match=r"nowhere/dog\.wav|dog\.FLAC|no-suffix"):
            model.similarity(item, "rain")
    assert model.similarity("no. 5.1", "x" * 70).shape == (1, 1)


def test_without_words_sounds_are_still_compared(model, files):
    bare = Model(model.encoder, model.frontend, {"name": "bare"}, device="cpu")
    found = bare.similarity(files, files)
    e = bare.embed(files, window=0).vectors
    expected = (e @ e.T) / np.outer(*[np.linalg.norm(e, axis=1)] * 2)
    assert np.allclose(found, expected, atol=1e-5)
    for call in (lambda: bare.text(["x"]), lambda: bare.similarity(files[0], "rain"), lambda: bare.audio(files)):
        with pytest.raises(ConfigError, match=r"bare: this model knows sound alone.*clap_tiny"):
            call()


def test_without_a_tokenizer_it_hears_and_says_what_it_needs_to_read(files):
    deaf = build(tokenizer=False, card={"name": "msclap"})
    assert deaf.audio(files).shape == (2, 24) and deaf.similarity(files[0], files[1]).shape == (1, 1)
    with pytest.raises(ConfigError, match=r"vocab\.json and merges\.txt\): otic\.load\(MODEL, tokenizer=FOLDER\)"):
        deaf.text(["rain"])


def test_embed_gives_joint_vectors_on_request(model, files):
    e = model.embed(files, window=0.5, pool="joint")
    assert e.vectors.shape == (7, 24) and np.allclose(np.linalg.norm(e.vectors, axis=1), 1, atol=1e-5)
