"""Audio-MAE's recipes: the base run has the paper's numbers."""

import pytest
import torch

from otic.engine.optim import parameter_groups
from otic.recipes import RECIPES


def test_the_base_recipe_is_the_paper():
    recipe = RECIPES["audiomae_base"]()
    train, schedule = recipe.train, recipe.train.rate
    assert (recipe.batch_size, train.betas, train.weight_decay) == (512, (0.9, 0.95), 1e-4)
    assert train.steps == 32 * (2_000_000 // 512) and train.steps * 3 == train.warmup * 32
    assert schedule(train.warmup) == 4e-4 and schedule(train.steps) == pytest.approx(0.0, abs=1e-12)
    with torch.device("meta"):
        encoder, objective = recipe.build()
    decoder = objective.decoder.shape
    assert (decoder.decoder, decoder.depth, decoder.width, decoder.heads) == ("local", 16, 512, 16)
    assert [block.shift for block in objective.decoder.blocks] == [(0, 0), (2, 0)] * 8
    assert encoder.cfg.norm == "pre" and encoder.grid(recipe.frames) == (64, 8)
    spared = parameter_groups(objective, train)[1]["params"]
    assert any(p is encoder.extra_tokens for p in spared) and all(p.squeeze().ndim < 2 for p in spared)


def test_first_weights_are_xavier_uniform():
    encoder, objective = RECIPES["audiomae_tiny"]().build()
    for net in (encoder.blocks, objective.decoder.blocks):
        weight = net[0].mlp.fc1.weight
        bound = (6 / sum(weight.shape)) ** 0.5
        assert weight.abs().max().item() == pytest.approx(bound, rel=1e-3) and weight.abs().max() <= bound
        assert not net[0].mlp.fc1.bias.any()
    assert encoder.extra_tokens.std().item() == pytest.approx(0.02, rel=0.3)
