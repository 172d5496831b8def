"""A language model that comes from a folder of GPT-2's layout."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from otic.core.errors import WeightsError
from otic.core.seeds import generator
from otic.models.text_block import TextConfig
from otic.models.text_decoder import Decoder
from otic.models.tokenizer import Tokenizer
from otic.recipes import RECIPES
from otic.weights.language import gpt2

CFG = TextConfig(vocab=300, positions=200, width=24, depth=2, heads=3, end=299)
NAMES = {"tokens": "wte", "positions": "wpe", "norm": "ln_f"}
INNER = {"norm1": "ln_1", "norm2": "ln_2", "attn.qkv": "attn.c_attn", "attn.out": "attn.c_proj",
         "mlp.0": "mlp.c_fc", "mlp.2": "mlp.c_proj"}  # fmt: skip


def published(state):
    """Our names and shapes as the file has them."""
    out = {}
    for name, tensor in state.items():
        *path, leaf = name.split(".")
        if path[0] == "blocks":
            inner = ".".join(path[2:])
            turned = leaf == "weight" and not inner.startswith("norm")
            out[f"h.{path[1]}.{INNER[inner]}.{leaf}"] = (tensor.T if turned else tensor).contiguous()
        else:
            out[f"{NAMES[path[0]]}.{leaf}"] = tensor
    return out


@pytest.fixture
def folder(tmp_path):
    model = Decoder(CFG, generator("gpt2"))
    tensors = {f"transformer.{n}": t for n, t in published(model.state_dict()).items()}
    tensors["lm_head.weight"] = model.tokens.weight.detach().clone()
    save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"n_head": 3, "layer_norm_epsilon": 1e-5}))
    return tmp_path, model


def test_it_says_what_the_file_says(folder):
    path, model = folder
    cfg, state = gpt2(path)
    assert cfg == replace(CFG, hidden=96)
    again = Decoder(cfg)
    again.load_state_dict(state)
    ids = torch.tensor([[3, 5, 299]])
    assert torch.equal(again.eval().states(ids), model.eval().states(ids))
    torch.save(published(model.state_dict()), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()
    assert all(torch.equal(t, state[n]) for n, t in gpt2(path)[1].items())


def test_a_recipe_writes_with_it(folder):
    path, model = folder
    recipe = RECIPES["caption_tiny"]()
    recipe = replace(recipe, objective=replace(recipe.objective, language=str(path), freeze_text=True))
    _, objective = recipe.build(tokenizer=Tokenizer.plain())
    decoder = objective.captioner.decoder
    assert all(torch.equal(t, model.state_dict()[n]) for n, t in decoder.state_dict().items())
    assert not any(p.requires_grad for p in decoder.parameters())
    assert objective.captioner.mapper.width == 24


def test_other_folders_are_refused(folder, tmp_path):
    with pytest.raises(WeightsError, match="holds neither"):
        gpt2(tmp_path / "nowhere")
    save_file({"x": torch.zeros(1)}, folder[0] / "model.safetensors")
    with pytest.raises(WeightsError, match="did not map"):
        gpt2(folder[0])
