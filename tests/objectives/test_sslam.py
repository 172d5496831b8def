"""SSLAM's mixtures, targets and losses, written again clip by clip."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.models import DecoderConfig, ViT, ViTConfig
from otic.objectives import SSLAM, EATConfig, SSLAMConfig
from otic.objectives.sslam import mixed_steps

EAT = EATConfig(clones=2, block=2, decoder=DecoderConfig(layers=2, groups=4))
CFG = SSLAMConfig(eat=EAT)
SPEC = torch.randn(3, 1, 128, 128, generator=generator("spec"))  # 8 x 8 patches
MIXED = torch.tensor([1, 0, 0, 1, 1, 0, 0, 1]).bool()


def build(cfg=CFG, **encoder):
    shape = {"width": 32, "depth": 3, "heads": 4, **encoder}
    objective = SSLAM(ViT(ViTConfig(**shape), generator("student")), cfg, generator("decoder"))
    other = ViT(ViTConfig(**shape), generator("teacher")).state_dict()
    objective.eat.teacher.load_state_dict({name: t + 0.02 for name, t in other.items()})
    return objective


def answer(objective, spec, patches=slice(None), layers=3):
    """The teacher's target for one clip of which it hears some patches, in double precision."""
    teacher = objective.eat.teacher
    outputs = teacher.encode(teacher.tokens(spec[None])[0][:, patches], taps=True).ffn
    total = 0
    for out in outputs[-layers:]:
        x = out[0, 1:].double()
        total = total + (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
    mean = total / layers
    return (mean - mean.mean(1, keepdim=True)) / (mean.var(1, keepdim=True, correction=0) + 1e-5).sqrt()


def test_a_mixture_is_the_louder_of_two_clips_outside_its_gaps():
    mixtures = build().mixtures(SPEC, MIXED)
    for clip in range(3):
        for frame in range(128):
            alone, other = SPEC[clip, 0, frame], SPEC[clip - 1, 0, frame]
            want = torch.maximum(alone, other) if MIXED[frame // 16] else alone
            assert torch.equal(mixtures[clip, 0, frame], want)


@torch.no_grad()
def test_targets_clip_by_clip():
    objective = build()
    both = torch.cat((SPEC, objective.mixtures(SPEC, MIXED)))
    targets, utterance, retained = objective.targets(both, MIXED)
    heard = MIXED[:, None].expand(8, 8).flatten().nonzero()[:, 0]
    for row in range(6):
        torch.testing.assert_close(targets[row].double(), answer(objective, both[row]), atol=2e-5, rtol=0)
        last = answer(objective, both[row], layers=1).mean(0)
        torch.testing.assert_close(utterance[row].double(), last, atol=2e-5, rtol=0)
    for clip in range(3):
        own, other = answer(objective, SPEC[clip]), answer(objective, SPEC[clip - 1], heard)
        want = own.clone()  # in the gaps the first clip is heard alone
        for place, patch in enumerate(heard):
            want[patch] = (own[patch] + other[place]) / 2
        torch.testing.assert_close(retained[clip].double(), want, atol=2e-5, rtol=0)


@torch.no_grad()
def test_without_gaps_the_target_is_the_mean_of_both_teachers():
    objective = build()
    everywhere = torch.ones(8, dtype=torch.bool)
    both = torch.cat((SPEC, objective.mixtures(SPEC, everywhere)))
    targets, _, retained = objective.targets(both, everywhere)
    torch.testing.assert_close(retained, (targets[:3] + targets[:3].roll(1, 0)) / 2, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("utterance", ["mean", "sum"])
def test_losses_row_by_row(utterance):
    eat = replace(EAT, utterance=utterance, utterance_weight=0.7, reconstruction=0.3)
    objective = build(SSLAMConfig(eat=eat, retention=0.5))
    visible, noise, mixed = objective.draw(3, (8, 8), generator("draw"))
    views = objective.views(SPEC, visible, noise, mixed)
    frame, retention, cls = [], [], []
    for row in range(12):
        hidden = (~visible[row]).nonzero()[:, 0]
        target = views.targets[row // 2]
        frame += [((views.guess[row, p] - target[p]) ** 2).sum() for p in hidden]
        cls.append(((views.seen.cls[row] - views.utterance[row // 2]) ** 2).sum())
        if row >= 6:
            kept = views.retained[row // 2 - 3]
            retention += [((views.guess[row, p] - kept[p]) ** 2).sum() for p in hidden]
    frame, retention, cls = (torch.stack(x) for x in (frame, retention, cls))
    # as published: sums over sqrt(d), the retention term twice (half the rows), over the number of hidden patches
    utter = 0.7 * (len(frame) * cls.sum() / len(frame) if utterance == "sum" else cls.mean())
    want = (frame.sum() / len(frame) + utter + 0.5 * 2 * retention.sum() / len(frame)) / 32**0.5
    loss = objective.losses(visible, views)
    pixels = objective.eat.pixels.loss(views.guess, views.both, visible)
    torch.testing.assert_close(loss.total, want + 0.3 * pixels)
    torch.testing.assert_close(loss.parts["retention"], retention.mean() / 32)


@torch.no_grad()
def test_a_mixture_is_masked_as_its_first_clip_and_the_student_sees_no_more():
    objective = build()
    visible, noise, mixed = objective.draw(3, (8, 8), generator("draw"))
    assert torch.equal(visible[:6], visible[6:]) and noise.shape == (12, 64, 32)
    views = objective.views(SPEC, visible, noise, mixed)
    tokens = objective.eat.student.tokens(objective.mixtures(SPEC, mixed))[0]
    for row in range(6, 12):
        alone = objective.eat.student.encode(tokens[row // 2 - 3, visible[row]][None])
        torch.testing.assert_close(views.seen.patches[row], alone.patches[0], atol=1e-5, rtol=0)


@given(st.integers(1, 80), st.floats(0, 0.25), st.integers(0, 9))
def test_two_gaps_apart_and_never_the_last_step(steps, gap, seed):
    mixed = mixed_steps(steps, gap, generator(seed))
    width = int(steps * gap)
    assert mixed.shape == (steps,) and mixed[-1] and (~mixed).sum() == 2 * width
    if width:
        gaps = (~mixed).nonzero()[:, 0]
        assert gaps[0] < steps // 2
        assert gaps[width - 1] - gaps[0] == gaps[-1] - gaps[width] == width - 1


def test_gaps_lie_where_the_published_ones_do():
    starts = [(~mixed_steps(64, 15 / 64, generator(seed))).nonzero()[:, 0][[0, 15]].tolist() for seed in range(400)]
    assert min(first for first, _ in starts) == 0 and max(first for first, _ in starts) == 31
    assert max(second for _, second in starts) == 48 and all(b - a >= 15 for a, b in starts)


def test_teacher_follows_and_never_learns():
    objective = build(SSLAMConfig(eat=replace(EAT, ema=Ramp(0.5, 0.5), export="teacher")))
    before = {name: p.clone() for name, p in objective.eat.teacher.named_parameters()}
    objective(Batch(torch.zeros(3, 1), torch.ones(3, dtype=torch.long), spec=SPEC), generator(0)).total.backward()
    assert all(p.grad is None for p in objective.eat.teacher.parameters())
    objective.after_step(1)
    student = dict(objective.eat.student.named_parameters())
    for name, p in objective.eat.teacher.named_parameters():
        torch.testing.assert_close(p, 0.5 * before[name] + 0.5 * student[name])
    assert objective.encoder is objective.eat.teacher and objective.cfg.export == "teacher"


def test_preview_shows_a_mixture():
    objective, batch = build(), Batch(torch.zeros(3, 1), torch.ones(3, dtype=torch.long), spec=SPEC)
    first, again = (objective.preview(batch, generator("preview")) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in ("spec", "visible", "guess"))
    assert (first["spec"] >= SPEC[:, 0]).all() and not torch.equal(first["spec"], SPEC[:, 0])
    assert first["visible"].shape == first["guess"].shape == (3, 8, 8)


def test_a_wide_gap_is_refused():
    with pytest.raises(ConfigError, match=r"0 to 0\.25"):
        SSLAMConfig(gap=0.3)
