"""Published text towers from folders: GPT-2, BERT, sentence encoders; and recipes that begin with them."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from published_text import BERT, GPT2, write_bert, write_gpt2
from safetensors.torch import load_file, save_file

from otic.core.errors import ConfigError, WeightsError
from otic.recipes import RECIPES
from otic.weights import sentence_cache
from otic.weights.language import load, load_tokenizer

TEXTS = ["a tone rises", "noise and then a quiet tone falls", "tone", ""]


@pytest.mark.parametrize("prefix", ["", "transformer."])
@pytest.mark.parametrize("pool", ["end", "mean"])
def test_gpt2(tmp_path, prefix, pool):
    tower = write_gpt2(tmp_path, prefix)
    found = load(tmp_path, replace(GPT2, pool=pool, dropout=0.0))
    assert found.tower.cfg == replace(GPT2, pool=pool, dropout=0.0) and not found.unit
    assert found.tokenizer(["tone"]).ids.tolist()[0][-1] == 260
    tower.cfg = found.tower.cfg
    alone = torch.cat([tower(*found.tokenizer([text])) for text in TEXTS])
    torch.testing.assert_close(found(TEXTS), alone, atol=1e-5, rtol=0)


def test_sentences(tmp_path):
    tower = write_bert(tmp_path)
    found = load(tmp_path, replace(GPT2, pool="mean", dropout=0.0))
    assert found.unit and found.tower.cfg == replace(BERT, dropout=0.0)
    alone = torch.cat([tower(*found.tokenizer([text])) for text in TEXTS])
    torch.testing.assert_close(found(TEXTS), F.normalize(alone, dim=-1), atol=1e-5, rtol=0)
    assert torch.equal(sentence_cache.vectors(found, TEXTS, tmp_path / "cache"), found(TEXTS))


def test_first_tokens(tmp_path):
    """What MS-CLAP 2022 reads of BERT, on request."""
    tower = write_bert(tmp_path)
    found = load(tmp_path, replace(BERT, pool="cls"))
    tokens = found.tokenizer(TEXTS[:1])
    torch.testing.assert_close(found(TEXTS[:1]), tower.states(*tokens)[:, 0], atol=1e-5, rtol=0)
    assert not found.unit


def test_every_tower_has_its_id(tmp_path):
    write_gpt2(tmp_path)
    first, again, other = (load(tmp_path, replace(GPT2, pool=pool)).id for pool in ("end", "end", "mean"))
    assert first == again != other


def test_torch_files(tmp_path):
    tower = write_gpt2(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    state = load(tmp_path, GPT2).tower.state_dict()
    assert all(torch.equal(t, state[n]) for n, t in tower.state_dict().items())


def test_a_recipe_begins_with_it(tmp_path):
    written = {"gpt2": write_gpt2(tmp_path / "gpt2"), "bert": write_bert(tmp_path / "bert")}
    for name, folder in (("caption_tiny", "gpt2"), ("clap_tiny", "gpt2"), ("clap_tiny", "bert")):
        recipe = RECIPES[name]()
        cfg = replace(recipe.objective, language=str(tmp_path / folder), freeze_text=True)
        _, objective = replace(recipe, objective=cfg).build()
        state = objective.language.state_dict()
        assert all(torch.equal(t, state[n]) for n, t in written[folder].state_dict().items())
        assert not any(p.requires_grad for p in objective.language.parameters())
    assert objective.towers.cfg.unit_text
    cfg = replace(RECIPES["caption_tiny"]().objective, language=str(tmp_path / "bert"))
    with pytest.raises(ConfigError, match="only a decoder can write"):
        replace(RECIPES["caption_tiny"](), objective=cfg).build()


def test_its_vocabulary_may_lie_elsewhere(tmp_path):
    write_gpt2(tmp_path / "whole")
    want = load(tmp_path / "whole", GPT2).tokenizer.to_dict()
    bare = tmp_path / "bare"
    write_gpt2(bare)
    (bare / "vocab.json").unlink()
    with pytest.raises(WeightsError, match=r"no gpt2 tokenizer there.*vocab\.json"):
        load(bare, GPT2)
    assert load(bare, GPT2, tmp_path / "whole").tokenizer.to_dict() == want
    assert load_tokenizer(tmp_path / "whole", "decoder").to_dict() == want


def test_what_does_not_fit_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"no such folder.*gpt2.*hub id"):
        load(tmp_path / "nowhere", GPT2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(WeightsError, match=r"config\.json, model\.safetensors or pytorch_model\.bin missing"):
        load(tmp_path / "empty", GPT2)
    write_gpt2(tmp_path)
    for said, message in (
        ({"model_type": "t5"}, "gpt2, bert and roberta"),
        ({"model_type": "gpt2", "activation_function": "relu"}, "changes GPT-2"),
        ({"model_type": "gpt2", "n_head": 5}, "do not fit"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(said))
        with pytest.raises(WeightsError, match=message):
            load(tmp_path, GPT2)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 3}')
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="did not map"):
        load(tmp_path, GPT2)
