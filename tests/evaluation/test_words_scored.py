"""The protocols on a real model: both towers, their untrained twins, and a text tower that cannot read."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from tokenizers.pre_tokenizers import ByteLevel
from words_for_tests import Scenes

from otic.apps.evaluate import evaluate
from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.errors import ConfigError
from otic.core.seeds import generator, rng
from otic.evaluation.baselines import untrained
from otic.inference.model import Model
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.two_tower import TwoTower, TwoTowerConfig, to_file
from otic.models.vit import ViT, ViTConfig
from otic.weights import store


def towers(tokenizer, **changes):
    text = TextConfig(vocab=0 if tokenizer else 300, positions=77, width=16, depth=1, heads=2)
    encoder = ViT(ViTConfig(width=16, depth=1, heads=2), generator("audio"))
    return TwoTower(encoder, TwoTowerConfig(text=replace(text, **changes), dim=8), tokenizer, generator("towers"))


def model(tokenizer, **changes):
    both = towers(tokenizer, **changes)
    return Model(both.encoder, Frontend(FrontendConfig()), {"name": "real"}, towers=both, device="cpu")


class Noises(Scenes):
    def read(self, i, rate, start=0.0, duration=None):
        self.reads += 1
        return (0.1 * rng(self.rows[i].id).standard_normal(rate // 4)).astype(np.float32)


@pytest.fixture(scope="module")
def results():
    return evaluate(model(Tokenizer.plain()), Noises(8), protocols=["zero-shot", "retrieval", "choice"])


def test_all_protocols_run_on_both_towers_and_their_twins(results):
    assert {(r.model, r.protocol) for r in results.rows} == {
        (m, p) for m in ("real", "untrained") for p in ("zero-shot", "retrieval", "choice")
    }
    assert all(np.isfinite(r.value) and r.config["dim"] == 8 for r in results.rows)


def test_the_same_call_gives_the_same_numbers(results):
    again = evaluate(model(Tokenizer.plain()), Noises(8), protocols=["zero-shot", "retrieval", "choice"])
    assert [(r.value, r.ci95) for r in again.rows] == [(r.value, r.ci95) for r in results.rows]


def test_the_twin_is_fresh_in_both_towers_and_reads_alike():
    own = model(Tokenizer.plain())
    with torch.no_grad():
        for weight in own.towers.parameters():
            weight.mul_(1.5)
    before = {name: weight.clone() for name, weight in own.towers.state_dict().items()}
    twin, same = untrained(own, 1), untrained(own, 1)
    assert twin.towers.encoder is twin.encoder and twin.towers.tokenizer is own.towers.tokenizer
    assert twin.towers.cfg == own.towers.cfg and not twin.towers.training
    assert all(torch.equal(weight, before[name]) for name, weight in own.towers.state_dict().items())
    ours, theirs = own.text(["a dog"]), twin.text(["a dog"])
    assert np.abs(ours - theirs).max() > 0.01 and np.array_equal(theirs, same.text(["a dog"]))
    wave = [rng("wave").standard_normal(8000).astype(np.float32)]
    assert np.abs(own.audio(wave) - twin.audio(wave)).max() > 0.01
    assert np.array_equal(twin.audio(wave), same.audio(wave))


def test_models_of_other_text_towers_have_twins_of_their_own():
    pair = {"narrow": model(Tokenizer.plain()), "wide": model(Tokenizer.plain(), width=32)}
    results = evaluate(pair, Noises(8), protocols=["choice"])
    assert {r.model for r in results.rows} == {"narrow", "wide", "untrained", "untrained wide"}


def test_a_tower_that_cannot_read_is_refused_before_anything_is_heard():
    source = Noises(8)
    with pytest.raises(ConfigError, match="--tokenizer FOLDER"):
        evaluate(model(None), source, protocols=["zero-shot"])
    assert source.reads == 0


def test_a_tokenizer_folder_lets_it_read(tmp_path):
    """Published weights come without their vocabulary: `tokenizer=` supplies one, and leaves other models alone."""
    alphabet = sorted(ByteLevel.alphabet())
    ids = {symbol: k for k, symbol in enumerate([*alphabet, "<|endoftext|>"])}
    (tmp_path / "gpt2").mkdir()
    (tmp_path / "gpt2" / "vocab.json").write_text(json.dumps(ids))
    (tmp_path / "gpt2" / "merges.txt").write_text("#version: 0.2\n")
    for name, own in (("mute", model(None, end=len(alphabet))), ("able", model(Tokenizer.plain()))):
        card = {"name": name, "labels_used": "none"}
        store.save(tmp_path / f"{name}.safetensors", own.encoder, FrontendConfig(), card, *to_file(own.towers))
    names = [tmp_path / "mute.safetensors", tmp_path / "able.safetensors"]
    results = evaluate(names, Noises(8), protocols=["choice"], tokenizer=tmp_path / "gpt2", baselines=False)
    alone = evaluate({"able": model(Tokenizer.plain())}, Noises(8), protocols=["choice"], baselines=False)
    assert {r.model for r in results.rows} == {"mute.safetensors", "able.safetensors"}
    assert [r.value for r in results.rows if r.model == "able.safetensors"] == [r.value for r in alone.rows]
    with pytest.raises(ConfigError, match="--tokenizer FOLDER"):
        evaluate(names, Noises(8), protocols=["choice"])
