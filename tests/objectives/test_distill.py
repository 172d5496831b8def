"""Several teachers, one student."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from otic.audio.frontend import FrontendConfig
from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.objectives import Distill, DistillConfig
from otic.objectives.distill import Standard
from otic.objectives.teacher import EncoderTeacher

ENCODER = ViTConfig(width=32, depth=1, heads=4, norm="pre")
SECONDS = 0.975  # 96 frames: 6 x 8 patches


def teachers(labels_used=False):
    """Of another width, grid and rate."""
    one = ViT(ViTConfig(width=12, depth=1, heads=2, norm="pre"), generator("one"))
    two = ViT(ViTConfig(width=8, depth=1, heads=2, norm="pre", patch=(8, 32), mels=64), generator("two"))
    slow = FrontendConfig(sample_rate=8000, high=4000.0, hop=80, window=200, fft=256, mels=64)
    return [EncoderTeacher(one, FrontendConfig(), "one"), EncoderTeacher(two, slow, "two", labels_used=labels_used)]


def batch(rows=4, real=SECONDS):
    gen = generator("sound")
    wave = 0.1 * torch.randn(rows, round(SECONDS * 16000), generator=gen)
    wave[:, round(real * 16000) :] = 0
    lengths = torch.full((rows,), round(real * 16000))
    return Batch(wave, lengths, spec=torch.randn(rows, 1, 96, 128, generator=gen))


def build(cfg=DistillConfig(), given=None):  # noqa: B008
    return Distill(ViT(ENCODER, generator("encoder")), cfg, generator("heads"), teachers() if given is None else given)


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_the_sum_again_teacher_by_teacher(keep):
    """First step: every channel standardised by the batch itself, over the patches that count."""
    cfg = DistillConfig(keep=keep, weights=(1.0, 0.25), cos=0.7, smooth_l1=0.2, tokens=2.0, pooled=0.5)
    objective, data = build(cfg), batch(real=0.5)  # three columns of sound, and an eighth of the fourth
    loss = objective(data, generator(3))
    visible = objective.draw(4, (6, 8), generator(3))
    visible = torch.ones(4, 48, dtype=torch.bool) if visible is None else visible
    seen = objective.net.encode(objective.net.tokens(data.spec)[0], visible)
    total = 0.0
    for k, (teacher, reader) in enumerate(zip(objective.staff, objective.readers, strict=True)):
        lesson = teacher(data, 16000)
        target, covered = lesson.on(student(objective))
        real = visible & covered & (torch.arange(48) < 24)
        assert covered.unflatten(1, (6, 8))[0, 0].sum() == (8 if k == 0 else 6)  # two rows lie above 4 kHz
        goal = standard(target[real])
        guess = torch.zeros(4, 48, reader.tokens.out_features)
        guess[visible] = reader.tokens(seen.patches).flatten(0, 1)
        tokens = away(guess[real], goal)
        pooled = away(reader.pooled(seen.cls), standard(lesson.pooled))
        assert loss.parts[f"tokens_{k}"].item() == pytest.approx(tokens, rel=1e-3)
        assert loss.parts[f"pooled_{k}"].item() == pytest.approx(pooled, rel=1e-3)
        total += cfg.weights[k] * (2.0 * tokens + 0.5 * pooled)
    assert loss.total.item() == pytest.approx(total, rel=1e-3)


def student(objective):
    from otic.objectives.teacher import student_cells

    return student_cells(objective.cfg.ruler, objective.net, 96)


def standard(x):
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-6).sqrt()


def away(guess, goal):
    gap = (guess - goal).abs()
    smooth = torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean(1)
    return (0.7 * (1 - F.cosine_similarity(guess, goal, dim=1)) + 0.2 * smooth).mean().item()


def test_running_moments():
    scale = Standard(3).train()
    ones, rows = torch.ones(5, 1, dtype=torch.bool), torch.randn(4, 5, 3, generator=generator("x")) * 3 + 2
    assert torch.allclose(scale(rows[0], ones).mean(0), torch.zeros(3), atol=1e-5)
    assert torch.equal(scale(rows[0], ones), scale(rows[0], ones))  # asking moves nothing
    scale = Standard(3).train()
    for row in rows:
        scale(row, ones)
        scale.settle()
    assert scale.steps == 4 and torch.allclose(scale.first, rows.mean((0, 1)), atol=1e-5)
    wanted = (rows[0] - rows.mean((0, 1))) / rows.var((0, 1), correction=0).sqrt()
    assert torch.allclose(scale.eval()(rows[0], ones), wanted, atol=1e-4)
    before = scale.first.clone()
    scale.settle()
    assert torch.equal(scale.first, before)


def test_it_learns_what_the_teachers_say():
    objective, data = build().train(), batch()
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    curve = []
    for step in range(25):
        loss = objective(data, generator(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        objective.after_step(step + 1)
        curve.append(loss.total.item())
    assert curve[-1] < 0.8 * curve[0], curve
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters() if p.requires_grad)
    assert not any("staff" in name for name in objective.state_dict())


def test_with_the_moving_average_among_them():
    objective = build(DistillConfig(teachers=("a", "self", "b"), keep=0.5))
    loss = objective(batch(), generator(0))
    assert {"tokens_0", "tokens_1", "tokens_2"} <= loss.parts.keys()
    assert objective.readers[1].tokens.out_features == 32 and objective.readers[2].tokens.out_features == 8
    shown = objective.preview(batch(), generator(0))
    assert shown["guess"].shape == shown["visible"].shape == (4, 6, 8)
    assert not shown["guess"][~shown["visible"]].any()


def test_the_moving_average_follows_the_student():
    objective = build(DistillConfig(teachers=("self",), ema=Ramp(0.5, 0.5)), given=[])
    before = objective.staff.own.encoder.proj.weight.clone()
    with torch.no_grad():
        objective.net.proj.weight.add_(1.0)
    objective.after_step(1)
    torch.testing.assert_close(objective.staff.own.encoder.proj.weight, before + 0.5)


def test_a_step_keeps_its_share_of_the_moments_however_late_it_comes():
    scale = Standard(2).train()
    scale.steps.fill_(10**6)
    scale(torch.ones(3, 2), torch.ones(3, 1, dtype=torch.bool))
    scale.settle()
    torch.testing.assert_close(scale.first, torch.full((2,), 1e-3))


def test_without_pooled_vectors():
    objective = build(DistillConfig(pooled=0.0, standardise=False))
    assert objective.readers[0].pooled is None
    assert set(objective(batch(), generator(0)).parts) == {"tokens_0", "tokens_1"}


def test_labels_of_a_teacher_are_labels():
    assert not build().labels_used
    assert build(given=teachers(labels_used=True)).labels_used


def test_what_is_missing_is_named():
    with pytest.raises(ConfigError, match="nobody to learn from"):
        build(given=[])(batch(), generator(0))
    with pytest.raises(ConfigError, match="2 teachers need as many"):
        build(replace(DistillConfig(), weights=(1.0,)))
