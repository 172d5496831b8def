"""EAT against its formulas, written again clip by clip; the published numbers are in tests/parity."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from otic import masking
from otic.core.batch import Batch
from otic.core.errors import OticWarning
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.models import DecoderConfig, ViT, ViTConfig
from otic.models.heads import normalised_patches
from otic.objectives import EAT, EATConfig

CFG = EATConfig(clones=3, block=3, decoder=DecoderConfig(layers=2, groups=4))
SPEC = torch.randn(2, 1, 96, 128, generator=generator("spec"))


def build(cfg=CFG, **encoder):
    shape = {"width": 32, "depth": 3, "heads": 4, **encoder}
    objective = EAT(ViT(ViTConfig(**shape), generator("student")), cfg)
    other = ViT(ViTConfig(**shape), generator("teacher")).state_dict()
    objective.teacher.load_state_dict({name: t + 0.02 for name, t in other.items()})
    return objective


def draw(rows=6, grid=(6, 8)):
    visible = masking.random(rows, grid, keep=0.3, gen=generator("mask"))
    return visible, 0.01 * torch.randn(rows, grid[0] * grid[1], 32, generator=generator("noise"))


@torch.no_grad()
@pytest.mark.parametrize("layers", [None, 2])
@pytest.mark.parametrize("what", ["ffn", "block"])
def test_targets_clip_by_clip(what, layers):
    objective = build(replace(CFG, target=what, target_layers=layers))
    encoded = objective.teacher(SPEC, taps=True)
    outputs = encoded.ffn if what == "ffn" else encoded.layers
    for clip in range(2):
        total = 0
        for out in outputs[-(layers or 3) :]:
            x = out[clip, 1:].double()
            total = total + (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        mean = total / (layers or 3)
        want = (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(objective.targets(SPEC)[clip].double(), want, atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("utterance", ["mean", "sum"])
def test_losses_row_by_row(utterance):
    objective = build(replace(CFG, utterance=utterance, utterance_weight=0.7, reconstruction=0.3))
    visible, noise = draw()
    views = objective.views(SPEC, visible, noise)
    frame, cls, pixels, hidden = [], [], [], (~visible).sum()
    for row in range(6):
        targets, pixel = views.targets[row // 3], normalised_patches(SPEC, (16, 16))[row // 3]
        rebuilt = objective.pixels.linear(views.guess[row])
        frame += [((views.guess[row, p] - targets[p]) ** 2).sum() for p in range(48) if not visible[row, p]]
        pixels += [((rebuilt[p] - pixel[p]) ** 2).mean() for p in range(48) if not visible[row, p]]
        cls.append(((views.seen.cls[row] - targets.mean(0)) ** 2).sum())
    loss = objective.losses(SPEC, visible, views)
    # eat.md section 5.1: sums over sqrt(d), the utterance term times the number of hidden patches; over that number
    summed = torch.stack(frame).sum() / 32**0.5 + 0.7 * hidden * torch.stack(cls).sum() / 32**0.5
    want = summed / hidden
    if utterance == "mean":
        want = 32**0.5 * (torch.stack(frame).mean() / 32 + 0.7 * torch.stack(cls).mean() / 32)
    torch.testing.assert_close(loss.total, want + 0.3 * torch.stack(pixels).mean())
    torch.testing.assert_close(loss.parts["pixels"], torch.stack(pixels).mean())


@torch.no_grad()
def test_student_sees_only_the_visible_patches_and_the_decoder_noise_elsewhere():
    objective = build()
    visible, noise = draw()
    views = objective.views(SPEC, visible, noise)
    tokens = objective.student.tokens(SPEC)[0]
    for row in range(6):
        alone = objective.student.encode(tokens[row // 3, visible[row]][None])
        torch.testing.assert_close(views.seen.patches[row], alone.patches[0], atol=1e-5, rtol=0)
        assert torch.equal(views.filled[row, visible[row]], views.seen.patches[row])
        assert torch.equal(views.filled[row, ~visible[row]], noise[row, ~visible[row]])


@torch.no_grad()
def test_collapse_monitors():
    objective = build()
    visible, noise = draw()
    views = objective.views(SPEC, visible, noise)
    parts = objective.losses(SPEC, visible, views).parts
    guess = views.guess[~visible]
    targets = views.targets.repeat_interleave(3, 0)[~visible]
    for name, x in (("pred_std", guess), ("target_std", targets)):
        assert parts[name].item() == pytest.approx((x.var(0) + 1e-6).sqrt().mean().item(), rel=1e-4)


def test_teacher_follows_and_never_learns():
    objective = build(replace(CFG, ema=Ramp(0.5, 0.9, steps=4)))
    before = {name: p.clone() for name, p in objective.teacher.named_parameters()}
    loss = objective(Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.long), spec=SPEC), generator(0))
    loss.total.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.parameters())
    objective.after_step(2)
    student = dict(objective.student.named_parameters())
    for name, p in objective.teacher.named_parameters():
        torch.testing.assert_close(p, 0.7 * before[name] + 0.3 * student[name], atol=1e-6, rtol=0)
    assert objective.encoder is objective.student
    assert build(replace(CFG, export="teacher")).encoder is not objective.student


@torch.no_grad()
def test_teacher_is_calm_while_the_student_drops_paths():
    objective = build(drop_path=0.5)
    calm = objective.eval().targets(SPEC)
    assert torch.equal(objective.train().targets(SPEC), calm)
    assert objective.student.blocks[-1].drop_path == 0.5


def test_masks_follow_the_settings():
    shown = []
    objective = build(replace(CFG, keep=0.25, clones=5))
    views, objective.views = (
        objective.views,
        lambda spec, visible, *rest: (shown.append(visible), views(spec, visible, *rest))[1],
    )
    objective(Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.long), spec=SPEC), generator(0))
    assert shown[0].shape == (10, 48) and (shown[0].sum(1) == 12).all()
    assert not torch.equal(shown[0][0], shown[0][1])


def test_too_short_for_a_block_warns_or_mends():
    batch = Batch(torch.zeros(2, 1), torch.ones(2, dtype=torch.long), spec=SPEC[:, :, :64])
    with pytest.warns(OticWarning, match="uniformly random"):
        build(replace(CFG, block=5))(batch, generator(0))
    build(replace(CFG, block=5, at_least=1))(batch, generator(0))


def test_defaults_are_the_papers_base_run():
    cfg = EATConfig()
    assert (cfg.clones, cfg.block, cfg.adjust, int(512 * cfg.keep)) == (16, 5, 0.07, 102)
    assert cfg.utterance_weight == 12 * 16  # lambda 1, summed over 12 clips' 16 clones
    assert (cfg.ema(1), cfg.ema(50_000)) == pytest.approx((0.9998000019, 0.999895))
    with torch.device("meta"):
        encoder = ViT(ViTConfig())
    assert (encoder.width, cfg.decoder.layers, cfg.decoder.kernel, cfg.decoder.groups) == (768, 6, 3, 16)


def test_half_precision_targets_stay_float32():
    objective = build()
    with torch.autocast("cpu", torch.bfloat16):
        targets = objective.targets(SPEC)
    assert targets.dtype == torch.float32
    assert torch.allclose(targets.mean(-1), torch.zeros(2, 48), atol=1e-5)
    assert F.mse_loss(targets, objective.targets(SPEC)) < 1e-3


@pytest.mark.parametrize("reconstruction", [0.0, 1.0])
def test_preview_draws_from_its_generator_alone(reconstruction):
    encoder = ViT(ViTConfig(width=32, depth=1, heads=2), generator("encoder"))
    cfg = EATConfig(block=2, decoder=DecoderConfig(layers=1, groups=4), reconstruction=reconstruction)
    objective = EAT(encoder, cfg, generator("objective")).eval()
    spec = torch.randn(3, 1, 64, 128, generator=generator("clips"))
    batch = Batch(torch.zeros(3, 8), torch.full((3,), 8), spec=spec)
    before = torch.get_rng_state()
    first, again = (objective.preview(batch, generator("preview")) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in ("spec", "visible", "guess"))
    assert first["visible"].shape == (3, 4, 8)
    assert first["guess"].shape == ((3, 64, 128) if reconstruction else (3, 4, 8))
