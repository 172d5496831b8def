"""M2D's views, targets and loss, written again clip by clip."""

from dataclasses import replace

import pytest
import torch

from otic import masking
from otic.core.batch import Batch
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.vit_decoder import DecoderShape
from otic.objectives import M2D, M2DConfig

CFG = M2DConfig(predictor=DecoderShape(width=16, depth=2, heads=2))
SPEC = torch.randn(2, 1, 96, 128, generator=generator("spec"))  # 6 x 8 patches
VISIBLE = masking.random(2, (6, 8), keep=0.3, gen=generator("mask"))


def build(cfg=CFG, **encoder):
    shape = {"width": 32, "depth": 3, "heads": 4, "norm": "pre", **encoder}
    return M2D(ViT(ViTConfig(**shape), generator("student")), cfg, generator("objective"))


def batch():
    return Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.long), spec=SPEC)


def standardised(x):
    x = x.double()
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("sees", ["hidden", "all"])
def test_targets_clip_by_clip(sees, norm):
    objective = build(replace(CFG, teacher_sees=sees), norm=norm)
    tokens = objective.student.tokens(SPEC)[0]
    targets = objective.targets(tokens, VISIBLE)
    for clip in range(2):
        hidden = ~VISIBLE[clip]
        shown = tokens[clip, hidden] if sees == "hidden" else tokens[clip]
        encoded = objective.teacher.encode(shown[None]).patches[0]
        want = standardised(encoded if sees == "hidden" else encoded[hidden])
        torch.testing.assert_close(targets[clip].double(), want, atol=2e-5, rtol=0)


@torch.no_grad()
def test_teacher_sees_the_hidden_patches_and_the_student_the_others():
    objective, other = build(), SPEC.clone()
    pixels = VISIBLE.unflatten(1, (6, 8)).repeat_interleave(16, 1).repeat_interleave(16, 2)[:, None]
    other[pixels] = torch.randn(int(pixels.sum()), generator=generator("other"))  # other visible patches
    first, second = objective.views(SPEC, VISIBLE), objective.views(other, VISIBLE)
    assert torch.equal(first.targets, second.targets) and not torch.allclose(first.guess, second.guess)
    other = torch.where(pixels, SPEC, other + torch.randn(SPEC.shape, generator=generator("hidden")))  # other hidden
    second = objective.views(other, VISIBLE)
    assert torch.equal(first.guess, second.guess) and not torch.allclose(first.targets, second.targets)


@torch.no_grad()
@pytest.mark.parametrize("loss", ["cosine", "mse"])
def test_loss_patch_by_patch(loss):
    objective = build(replace(CFG, loss=loss))
    views, errors, place = objective.views(SPEC, VISIBLE), [], [0, 0]
    for clip in range(2):
        for patch in range(48):
            if VISIBLE[clip, patch]:
                continue
            guess, target = views.guess[clip, patch].double(), views.targets[clip, place[clip]].double()
            place[clip] += 1
            both = guess / guess.norm() - target / target.norm()
            errors.append(both.square().sum() if loss == "cosine" else (guess - target).square().mean())
    assert place == [34, 34]
    torch.testing.assert_close(objective.losses(SPEC, VISIBLE, views).total.double(), torch.stack(errors).mean())


@pytest.mark.parametrize("start", ["fresh", "copy"])
def test_teacher_has_blocks_of_its_own_and_shares_the_embedding(start):
    objective = build(replace(CFG, teacher_start=start, ema=Ramp(0.5, 0.9, steps=4)))
    student, teacher = dict(objective.student.named_parameters()), dict(objective.teacher.named_parameters())
    same = torch.equal(student["blocks.0.attn.qkv.weight"], teacher["blocks.0.attn.qkv.weight"])
    assert same == (start == "copy")
    assert not any(p.requires_grad for p in teacher.values())
    with torch.no_grad():
        for p in student.values():
            p.add_(0.1)
    before = {name: p.clone() for name, p in teacher.items()}
    objective.after_step(2)
    for name, p in teacher.items():
        own = name.startswith(("blocks", "norm"))
        torch.testing.assert_close(p, 0.7 * before[name] + 0.3 * student[name] if own else student[name])


def test_only_the_student_learns():
    objective = build(replace(CFG, export="teacher"))
    objective(batch(), generator(0)).total.backward()
    assert all(p.grad is None for p in objective.teacher.parameters())
    assert all(p.grad is not None for p in objective.student.parameters())
    assert objective.encoder is objective.teacher and build().encoder is not objective.teacher


@torch.no_grad()
def test_teacher_is_calm_while_the_student_drops_paths():
    objective = build(drop_path=0.5)
    tokens = objective.student.tokens(SPEC)[0]
    calm = objective.eval().targets(tokens, VISIBLE)
    assert torch.equal(objective.train().targets(tokens, VISIBLE), calm)
    assert objective.student.blocks[-1].drop_path == 0.5


def test_works_without_a_cls_token():
    objective = build(cls=False)
    loss = objective(batch(), generator(0))
    assert loss.total.isfinite() and 0 < loss.total < 4


def test_defaults_are_the_published_base_run():
    cfg = M2DConfig()
    assert int(190 * cfg.keep) == 57  # of the 38 x 5 patches of six seconds
    assert (cfg.predictor.width, cfg.predictor.depth, cfg.predictor.heads) == (512, 8, 16)
    assert (cfg.ema(0), cfg.ema(280_000)) == pytest.approx((0.99995, 0.99999))


@torch.no_grad()
def test_reconstruction_is_added():
    objective = build(replace(CFG, reconstruction=0.3))
    views = objective.views(SPEC, VISIBLE)
    with_pixels = objective.losses(SPEC, VISIBLE, views)
    pixels = objective.pixels.loss(views.guess, SPEC, VISIBLE)
    objective.pixels = None
    alone = objective.losses(SPEC, VISIBLE, views)
    torch.testing.assert_close(with_pixels.total, alone.total + 0.3 * pixels)
    assert with_pixels.parts["pixels"] == pixels


@torch.no_grad()
def test_targets_that_no_patch_shares():
    objective = build(replace(CFG, standardise="channel"))
    tokens = objective.student.tokens(SPEC)[0]
    for clip in range(2):
        x = objective.teacher.encode(tokens[clip, ~VISIBLE[clip]][None]).patches[0].double()
        x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        want = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        targets = objective.targets(tokens, VISIBLE)[clip].double()
        torch.testing.assert_close(targets, want, atol=2e-5, rtol=0)
    plain = build(replace(CFG, standardise="no"))
    torch.testing.assert_close(plain.targets(tokens, VISIBLE)[0], plain.teacher.encode(tokens, ~VISIBLE).patches[0])


@pytest.mark.parametrize("reconstruction", [0.0, 1.0])
def test_preview_draws_from_its_generator_alone(reconstruction):
    objective = build(replace(CFG, reconstruction=reconstruction))
    first, again = (objective.preview(batch(), generator("preview")) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in ("spec", "visible", "guess"))
    assert first["visible"].shape == (2, 6, 8)
    assert first["guess"].shape == ((2, 96, 128) if reconstruction else (2, 6, 8))
