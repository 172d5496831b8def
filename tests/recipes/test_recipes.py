"""Every recipe can be built; the published ones have the published numbers."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest
import torch

from otic.apps.pretrain import parts
from otic.audio.frontend import Frontend
from otic.core.batch import Batch
from otic.core.config import from_dict, override, to_dict
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.data.source import open_source
from otic.engine.config import TrainConfig
from otic.engine.loop import train
from otic.engine.optim import make_optimizer
from otic.models.vit import ViT
from otic.recipes import RECIPES, lengthen
from otic.recipes.base import stretch


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_builds(name):
    recipe = RECIPES[name]()
    assert recipe.name == name
    assert "otic" in (RECIPES[name].__doc__ or ""), "a recipe says how it is run"
    with torch.device("meta"):
        encoder, objective = recipe.build()
    assert any(p.requires_grad for p in objective.parameters())
    assert encoder is objective.encoder or recipe.objective.export == "teacher"
    assert not isinstance(encoder, ViT) or recipe.frames % encoder.patch[0] == 0
    samples = round(recipe.crop_seconds * recipe.frontend.sample_rate)
    spare = recipe.frames - Frontend(recipe.frontend).frames(samples)
    assert not recipe.frames or 0 <= spare < 32, "a crop fills its spectrogram"
    assert all(-encoder.depth <= layer < encoder.depth for layer in recipe.inference.layers)
    assert recipe.train.warmup < recipe.train.steps
    assert from_dict(type(recipe.objective), to_dict(recipe.objective)) == recipe.objective


FEWER = {"depth": 2, "vocab": 0, "unfold": 4, "clones": 2}  # vocab 0: the words of the test


def shallow(cfg):
    """Two blocks (or one in each stage) and a few views, all the way down."""
    changes = {}
    for field in fields(cfg):
        value = getattr(cfg, field.name)
        if is_dataclass(value):
            changes[field.name] = shallow(value)
        elif field.name == "depths":
            changes[field.name] = (1,) * len(value)
        elif field.name in FEWER:
            changes[field.name] = min(value, FEWER[field.name])
    return replace(cfg, **changes)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_a_step(name):
    """At its own width, front-end and optimiser; only a few blocks of its networks, and two short clips."""
    recipe = RECIPES[name]()
    cfg = shallow(recipe.objective)
    if hasattr(cfg, "teachers") and not cfg.teachers and getattr(cfg, "recon", "") != "spectrogram":
        cfg = replace(cfg, teachers=("self",))
    if hasattr(cfg, "classes") and not cfg.classes:
        cfg = replace(cfg, classes=2)
    once = replace(recipe.train, steps=1, warmup=0, accumulate=1)
    whole = recipe.frames < 300 or recipe.method == "mspm"  # whose 400 hidden patches must be there
    shorter = {} if whole else {"frames": recipe.frames // 4, "crop_seconds": recipe.crop_seconds / 4}
    recipe = replace(recipe, encoder=shallow(recipe.encoder), objective=cfg, train=once, **shorter)
    _, objective = recipe.build()
    before = {name: p.detach().clone() for name, p in objective.named_parameters() if p.requires_grad}
    frontend, losses = Frontend(recipe.frontend), []
    samples = round(recipe.crop_seconds * recipe.frontend.sample_rate)
    wave = 0.1 * torch.randn(2, samples, generator=generator("step"))
    words = {"text": ("a dog", "rain"), "prompts": ("what is heard?",) * 2}
    batch = Batch(wave, torch.full((2,), samples), labels=torch.tensor([0, 1]), ids=("a", "b"), **words)
    optimizer = make_optimizer(objective, once)
    hooks = (lambda e: losses.append(e.loss),)
    train(objective, lambda b: frontend.fill(b, recipe.frames or None), [batch], optimizer, once, hooks=hooks)
    assert len(losses) == 1 and np.isfinite(losses[0])
    moved = [not torch.equal(p, before[name]) for name, p in objective.named_parameters() if p.requires_grad]
    assert np.mean(moved) > 0.9


@pytest.mark.parametrize(
    "name, encoder_size, trained", [("eat_base", 85_254_144, 87_840_000), ("eat_large", 302_575_616, 308_543_488)]
)
def test_published_sizes(name, encoder_size, trained):
    with torch.device("meta"):
        encoder, objective = RECIPES[name]().build()
    assert sum(p.numel() for p in encoder.parameters() if p.requires_grad) == encoder_size
    assert sum(p.numel() for p in objective.parameters() if p.requires_grad) == trained


def test_msclap_is_the_papers_size():
    """Towers and heads of the published weights, less STFT, filters and the taggers of 527 classes."""
    with torch.device("meta"):
        towers = RECIPES["msclap_2023"]().build()[1].towers
    unused = 527 * 768 * 2 * 3 + 527 + 527 * 528
    assert sum(p.numel() for p in towers.parameters()) == 159_439_064 - 1_083_456 - unused
    with torch.device("meta"):
        towers = RECIPES["laion_clap"]().build()[1].towers
    assert [sum(p.numel() for p in part.parameters()) for part in (towers.text, towers.audio_head)] == [
        124_645_632,
        656_384,
    ]


def test_the_base_recipe_is_the_paper():
    recipe = RECIPES["eat_base"]()
    schedule = recipe.train.rate
    assert (recipe.batch_size, recipe.objective.clones, recipe.train.steps) == (48, 16, 400_000)
    assert schedule(0) == 0.0 and schedule(53_333) == 5e-4 and schedule(400_000) == pytest.approx(0.0, abs=1e-12)
    assert schedule(100_000) == pytest.approx(0.5 * 5e-4 * (1 + torch.tensor(torch.pi * 46_667 / 346_667).cos().item()))
    assert recipe.objective.ema(50_000) == pytest.approx(0.999895)


def test_the_published_runs_begin_their_patch_embedding_as_their_papers_do():
    asked = {name: getattr(RECIPES[name]().encoder, "patch_init", "xavier") for name in RECIPES}
    assert {name: rule for name, rule in asked.items() if rule != "xavier"} == {
        "ssast_patch_base": "default",
        "ssast_frame_base": "default",
        "a_jepa_base": "normal",
    }


def test_crops_go_round_where_the_papers_do_and_no_teacher_is_kept():
    assert {name for name in RECIPES if RECIPES[name]().cyclic} == {"a_jepa_base", "audiomae_base", "supmam_base"}
    for name in ("audiomae_base", "eat_base"):
        recipe = RECIPES[name]()
        assert parts(recipe, open_source("synth:corpus?clips=2"), 0.0)[0].cyclic is recipe.cyclic
    recipe = RECIPES["supmam_base"]()
    with pytest.raises(ConfigError, match=r"cyclic=true: a\.model, its teacher.*Set cyclic=false"):
        override(recipe, ["objective.teachers=[a.model]", "objective.recon=both"])
    taught = override(recipe, ["cyclic=false", "objective.teachers=[a.model]"])
    assert taught.objective.teachers == ("a.model",)
    assert override(recipe, ["objective.teachers=[self]"]).cyclic, "itself it hears beside the student"


def test_first_weights_follow_from_the_seed():
    recipe = RECIPES["eat_tiny"]()
    first, again, other = (replace(recipe, seed=s).build()[1].state_dict() for s in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert any(not torch.equal(first[k], other[k]) for k in first)


def test_another_length_stretches_the_ramps():
    recipe = RECIPES["eat_base"]()
    short = lengthen(recipe, 4000)
    assert (short.train.steps, short.train.warmup) == (4000, 533)
    assert short.objective.ema == Ramp(0.9998, 0.99999, steps=1000)
    assert replace(short, train=recipe.train, objective=recipe.objective) == recipe
    assert lengthen(recipe, 400_000) == recipe
    assert stretch(TrainConfig(), 0.1) == TrainConfig()  # nothing but ramps


def test_an_unknown_recipe_names_the_nearest():
    with pytest.raises(ConfigError, match="Did you mean 'eat_tiny'"):
        RECIPES["eat_tinny"]


def test_any_field_can_be_set():
    recipe = override(RECIPES["eat_tiny"](), ["objective.ema.start=0.5", "train.lr=1e-4", "inference.layers=[2,-1]"])
    assert (recipe.objective.ema.start, recipe.train.lr, recipe.inference.layers) == (0.5, 1e-4, (2, -1))
    with pytest.raises(ConfigError, match=r"Did you mean 'objective\.clones'"):
        override(recipe, ["objective.clone=3"])
