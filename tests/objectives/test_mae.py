"""Audio-MAE's objective: its loss written again as a loop, what is seen and what is not, both masks and decoders."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import DecoderShape, ViT, ViTConfig
from otic.models.heads import paint
from otic.objectives import MAE, MAEConfig
from otic.objectives.mae import Guess

LOCAL = DecoderShape(decoder="local", width=16, depth=2, heads=2, bias_hidden=8)
GLOBAL = DecoderShape(width=16, depth=1, heads=2)
SPEC = torch.randn(3, 1, 13 * 16, 128, generator=generator("clips"))


def build(encoder=None, **cfg):
    shape = ViTConfig(**{"width": 32, "depth": 1, "heads": 2, "norm": "pre", **(encoder or {})})
    cfg = MAEConfig(**{"decoder": LOCAL, **cfg})
    return MAE(ViT(shape, generator("encoder")), cfg, generator("objective")).eval()


def batch(spec=SPEC):
    return Batch(torch.zeros(len(spec), 8), torch.full((len(spec),), 8), spec=spec)


def by_hand(guess, spec, visible, normalise):
    """Mean over hidden patches of the mean squared error of their pixels; the spread divides by pixels - 1."""
    total, count = 0.0, 0
    spec = spec.double().numpy()
    for b, row in enumerate(visible):
        for n, seen in enumerate(row):
            if seen:
                continue
            t, f = divmod(n, 8)
            patch = spec[b, 0, 16 * t : 16 * t + 16, 16 * f : 16 * f + 16].reshape(-1)
            if normalise:
                patch = (patch - patch.mean()) / np.sqrt(patch.var() * 256 / 255 + 1e-6)
            total += np.mean((guess[b, n].double().numpy() - patch) ** 2)
            count += 1
    return total / count


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("mask", ["random", "strips"])
@pytest.mark.parametrize("decoder", [LOCAL, GLOBAL])
def test_loss_is_the_formula(normalise, mask, decoder):
    objective = build(normalise=normalise, mask=mask, decoder=decoder)
    spec = 3 * SPEC + 1
    visible = objective.draw(3, (13, 8), generator("mask"))
    guess = objective.guess(spec, visible)
    loss = objective.loss(spec, visible, guess)
    assert loss.total.item() == pytest.approx(by_hand(guess.pixels, spec, visible, normalise), rel=1e-5)
    assert objective(batch(spec), generator("mask")).total.item() == pytest.approx(loss.total.item(), rel=1e-6)
    hidden, target = guess.pixels[~visible], objective.targets(spec)[~visible]
    assert loss.parts["guess_std"].item() == pytest.approx(hidden.std(correction=0).item(), rel=1e-4)
    explained = 1 - loss.total.item() / target.var(correction=0).item()
    assert loss.parts["explained"].item() == pytest.approx(explained, abs=1e-4)


def test_only_hidden_patches_are_learned_from_and_only_visible_ones_are_seen():
    objective = build()
    visible = objective.draw(3, (13, 8), generator("mask"))
    guess = objective.guess(SPEC, visible)
    pixels = guess.pixels.detach().requires_grad_()
    objective.loss(SPEC, visible, Guess(guess.seen, pixels)).total.backward()
    assert not pixels.grad[visible].any() and (pixels.grad[~visible].abs().amax(1) > 0).all()
    cells = (~visible).view(3, 1, 13, 8).float()
    other = SPEC + cells.repeat_interleave(16, 2).repeat_interleave(16, 3)
    assert torch.equal(objective.guess(other, visible).pixels, guess.pixels)


@pytest.mark.parametrize("grid", [(13, 8), (24, 8), (64, 8)])
def test_masks_hide_what_was_asked(grid):
    n = grid[0] * grid[1]
    assert (build().draw(4, grid, generator(0)).sum(1) == int(n * (1 - 0.8))).all()
    strips = build(mask="strips", hide_time=0.6, hide_freq=0.5).draw(4, grid, generator(0)).view(4, *grid)
    rows, columns = strips.any(2).sum(1), strips.any(1).sum(1)
    assert (rows == int(grid[0] * (1 - 0.6))).all() and (columns == 4).all()
    assert torch.equal(strips, strips.any(2)[:, :, None] & strips.any(1)[:, None])


@pytest.mark.parametrize("decoder", [LOCAL, GLOBAL])
@pytest.mark.parametrize("mask", ["random", "strips"])
def test_every_tensor_learns(decoder, mask):
    objective = build(decoder=decoder, mask=mask).train()
    objective(batch(), generator(0)).total.backward()
    for name, p in objective.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all() and p.grad.any(), name


def test_dropout_of_the_relative_bias_is_the_generators():
    objective = build().train()
    losses = [objective(batch(), generator(seed)).total for seed in (1, 1)]
    assert torch.equal(*losses)
    objective.eval()
    assert not torch.equal(objective(batch(), generator(1)).total, losses[0])


@torch.no_grad()
@pytest.mark.parametrize("normalise", [True, False])
def test_a_perfect_guess_explains_and_paints_the_clip(normalise):
    objective = build(normalise=normalise)
    visible = objective.draw(3, (13, 8), generator("mask"))
    targets = objective.targets(SPEC)
    loss = objective.loss(SPEC, visible, Guess(objective.guess(SPEC, visible).seen, targets))
    assert loss.total == 0 and loss.parts["explained"] == 1
    assert torch.allclose(paint(targets, SPEC, (13, 8), (16, 16), normalise), SPEC[:, 0], atol=1e-5)


def test_preview():
    objective = build()
    first, again = (objective.preview(batch(), generator(0)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert first["guess"].shape == first["spec"].shape == (3, 208, 128) and first["visible"].shape == (3, 13, 8)
    assert torch.equal(first["visible"].flatten(1), objective.draw(3, (13, 8), generator(0)))


def test_defaults_are_the_published_base_run():
    cfg = MAEConfig()
    assert (cfg.mask, cfg.hide, cfg.hide_time, cfg.hide_freq, cfg.normalise) == ("random", 0.8, 0.7, 0.3, True)
    assert (cfg.decoder.decoder, cfg.decoder.depth, cfg.decoder.width, cfg.decoder.heads) == ("local", 16, 512, 16)


def test_overlapping_patches():
    """The paper's stride of ten frames and bins: targets overlap, and are not painted."""
    objective = build({"stride": (10, 10)}, mask="strips")
    spec = SPEC[:, :, :96]
    targets = objective.targets(spec)
    assert targets.shape == (3, 9 * 12, 256)
    objective.cfg = replace(objective.cfg, normalise=False)
    assert torch.equal(objective.targets(spec)[1, 12 * 2 + 3], spec[1, 0, 20:36, 30:46].flatten())
    assert objective(batch(spec), generator(0)).total.isfinite()
    assert set(objective.preview(batch(spec), generator(0))) == {"spec", "visible"}


@pytest.mark.parametrize(
    "wrong", [{"hide": 0.0}, {"hide": 1.0}, {"mask": "strips", "hide_time": 0.0, "hide_freq": 0.0}]
)
def test_masks_that_hide_nothing_or_all(wrong):
    with pytest.raises(ConfigError, match="hide"):
        build(**wrong)
    with pytest.raises(ConfigError, match="leaves 0"):
        build(hide=0.999).draw(1, (13, 8), generator(0))
