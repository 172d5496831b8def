"""MAM-CLAP and SupMAM: both sets of patches, the label branch, and what they have in common with Audio-MAE."""

import copy
import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.cells import Ruler
from otic.models.vit_decoder import DecoderShape
from otic.objectives import MAE, MAMCLAP, MAEConfig, MAMCLAPConfig
from otic.objectives.distances import distance
from otic.objectives.teacher import Lesson, Teacher, sounding, student_cells

ENCODER = ViTConfig(width=32, depth=2, heads=4, norm="pre")
DECODER = DecoderShape(decoder="local", width=16, depth=2, heads=2, bias_hidden=8)
CFG = MAMCLAPConfig(decoder=DECODER, keep=0.25, hidden=24)
FRAMES = 96
GRID, RATE = (6, 8), 16000


class Fixed(Teacher):
    """Says what it was told to say, on the student's grid unless it has cells of its own."""

    name, rate = "fixed", RATE

    def __init__(self, tokens, pooled=None, cells=None):
        super().__init__()
        self.lesson = Lesson(tokens, cells or student_cells(Ruler(), ViT(ENCODER), FRAMES), pooled)
        self.width, self.pooled_width = tokens.shape[2], None if pooled is None else pooled.shape[1]

    def forward(self, batch, rate):
        return self.lesson


class Normed(Teacher):
    """A teacher with parameters and BatchNorm."""

    name, rate, width, pooled_width = "normed", RATE, 12, None

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(8, 12), nn.BatchNorm1d(12)).eval()

    def forward(self, batch, rate):
        tokens = self.net(batch.spec[:, 0, :48, :8].flatten(0, 1)).unflatten(0, (len(batch), 48))
        return Lesson(tokens, student_cells(Ruler(), ViT(ENCODER), FRAMES))


def batch(rows=4, seed="clips", seconds=0.98, labels=None):
    gen = generator(seed)
    spec = torch.randn(rows, 1, FRAMES, 128, generator=gen)
    length = round(seconds * RATE)
    lengths = torch.full((rows,), length)
    return Batch(torch.zeros(rows, length), lengths, spec=spec, labels=labels)


def random_teacher(rows=4, width=12, pooled=True):
    gen = generator("says")
    tokens = torch.randn(rows, 48, width, generator=gen)
    return Fixed(tokens, torch.randn(rows, 10, generator=gen) if pooled else None)


def build(cfg=CFG, teacher=None):
    teachers = [] if teacher is None else [teacher]
    return MAMCLAP(ViT(ENCODER, generator("encoder")), cfg, generator("objective"), teachers)


def test_the_distances():
    guess, target = torch.randn(2, 5, 7, generator=generator("d")).unbind(0)
    plain = [1 - float(g @ t) / (float(g @ g) * float(t @ t)) ** 0.5 for g, t in zip(guess, target, strict=True)]
    assert distance(guess, target).tolist() == pytest.approx(plain, abs=1e-6)
    assert distance(guess, 1e4 * target).tolist() == pytest.approx(plain, abs=1e-5)
    assert distance(target, target).tolist() == pytest.approx([0] * 5, abs=1e-6)
    assert distance(target, -0.1 * target).tolist() == pytest.approx([2] * 5, abs=1e-6)
    normal = (target - target.mean(1, keepdim=True)) / (target.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
    assert torch.allclose(distance(guess, 3 * target + 2, "mse"), (guess - normal).square().mean(1), atol=1e-4)
    gap = (guess - normal).abs()
    smooth = torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean(1)
    assert torch.allclose(distance(guess, target, "smooth_l1"), smooth, atol=1e-6)
    assert torch.equal(distance(guess, target, "mse", normalise=False), (guess - target).square().mean(1))


@pytest.mark.parametrize("weighting", ["tokens", "per_set"])
def test_a_perfect_guess_costs_nothing_and_its_opposite_two(weighting):
    cfg = replace(CFG, weighting=weighting)
    objective, data = build(cfg, random_teacher()), batch()
    visible = objective.draw(4, GRID, generator(0))
    objective.eval()
    views = objective.views(data.spec, visible, generator(1))
    tokens = objective.guess(visible, views).detach()
    pooled = objective.cls_head(views.seen.cls).detach()
    for scale, loss in ((1, 0), (-1, 2), (7.5, 0), (-0.01, 2)):
        objective.staff.held[0].lesson = Fixed(scale * tokens, scale * pooled).lesson
        total = objective.losses(data, visible, generator(1)).total.item()
        assert total == pytest.approx(loss * (1 if weighting == "tokens" else 2), abs=1e-5)


def test_the_sum_again_token_by_token_in_any_order():
    """Visible and hidden patches together are all that hold sound; the order in which they are visited is no matter."""
    teacher, data = random_teacher(), batch(seconds=0.7)
    told = sounding(student_cells(Ruler(), ViT(ENCODER), FRAMES), data, RATE)
    assert told.sum() == 4 * 4 * 8  # 0.7 s: four columns, and less than half of the fifth
    for weighting, w_v, w_m in (("tokens", 1.0, 1.0), ("per_set", 0.3, 2.0)):
        objective = build(replace(CFG, weighting=weighting, w_v=w_v, w_m=w_m), teacher).eval()
        visible = objective.draw(4, GRID, generator(0))
        views = objective.views(data.spec, visible, None)
        guess, loss = objective.guess(visible, views), objective.losses(data, visible)
        sums, counts = {True: 0.0, False: 0.0}, {True: 0, False: 0}
        for at in torch.randperm(4 * 48, generator=generator("order")).tolist():
            row, patch = divmod(at, 48)
            if told[row, patch]:
                away = 1 - F.cosine_similarity(guess[row, patch], teacher.lesson.tokens[row, patch], 0)
                sums[bool(visible[row, patch])] += away.item()
                counts[bool(visible[row, patch])] += 1
        pooled = distance(objective.cls_head(views.seen.cls), teacher.lesson.pooled).sum().item()
        assert sum(counts.values()) == told.sum()
        assert loss.parts["visible"].item() == pytest.approx(sums[True] / counts[True], rel=1e-4)
        assert loss.parts["masked"].item() == pytest.approx(sums[False] / counts[False], rel=1e-4)
        assert loss.parts["pooled"].item() == pytest.approx(pooled / 4, rel=1e-4)
        if weighting == "tokens":
            total = (sums[True] + sums[False] + pooled) / (told.sum().item() + 4)
        else:
            total = w_v * (sums[True] + pooled) / (counts[True] + 4) + w_m * sums[False] / counts[False]
        assert loss.total.item() == pytest.approx(total, rel=1e-4)


def test_what_is_visible_comes_from_the_encoder_and_what_is_hidden_from_the_decoder():
    objective, data = build(CFG, random_teacher()).eval(), batch()
    visible = objective.draw(4, GRID, generator(0))
    views = objective.views(data.spec, visible, None)
    guess = objective.guess(visible, views)
    assert torch.allclose(guess[visible], objective.head(views.seen.patches).flatten(0, 1), atol=1e-6)
    assert torch.equal(guess[~visible], views.answer[~visible])
    both = build(replace(CFG, visible_from="decoder"), random_teacher()).eval()
    assert both.head is None
    views = both.views(data.spec, visible, None)
    assert torch.equal(both.guess(visible, views), views.answer)


GRIDS = list(itertools.product(["both", "visible", "masked"], ["encoder", "decoder"], [False, True], ["none", "both"]))


@pytest.mark.parametrize("supervise, visible_from, share_head, recon", GRIDS)
def test_every_combination_trains_all_that_it_has(supervise, visible_from, share_head, recon):
    cfg = replace(CFG, supervise=supervise, visible_from=visible_from, share_head=share_head, recon=recon)
    objective = build(replace(cfg, lambda_cls=2.0, classes=3), random_teacher())
    loss = objective(batch(labels=torch.tensor([0, 1, 2, 0])), generator(0))
    loss.total.backward()
    assert {"visible", "masked"} & loss.parts.keys() == ({"visible", "masked"} if supervise == "both" else {supervise})
    assert ("pixels" in loss.parts) == (recon == "both") and "cls" in loss.parts
    for name, p in objective.named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


def test_pixels_are_added_to_what_the_teacher_says():
    objective = build(replace(CFG, recon="both", alpha=0.3), random_teacher())
    loss = objective(batch(), generator(0))
    away = (12 * loss.parts["visible"] + 36 * loss.parts["masked"] + loss.parts["pooled"]) / 49
    assert loss.total.item() == pytest.approx((away + 0.3 * loss.parts["pixels"]).item(), rel=1e-5)


def test_no_gradient_reaches_a_teacher_and_its_statistics_stay():
    teacher = Normed()
    before = copy.deepcopy(teacher.state_dict())
    objective = build(CFG, teacher).train()
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=1e-3)
    for step in range(2):
        objective(batch(), generator(step)).total.backward()
        optimizer.step()
        objective.after_step(step + 1)
    assert not teacher.training and not teacher.net[1].training
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    ours = {id(p) for p in objective.parameters()}
    assert not any(id(p) in ours for p in teacher.parameters())


@pytest.mark.parametrize("norm_pixels", [True, False])
@pytest.mark.parametrize("mode", ["local", "global"])
def test_without_labels_and_teacher_it_is_audio_mae(norm_pixels, mode):
    """Bit for bit: weights, masks, loss, gradients."""
    shape, data = replace(DECODER, decoder=mode), batch()
    mae = MAE(
        ViT(ENCODER, generator("encoder")), MAEConfig(decoder=shape, normalise=norm_pixels), generator("objective")
    )
    ours = build(MAMCLAPConfig(decoder=shape, recon="spectrogram", norm_pixels=norm_pixels))
    assert torch.equal(ours.draw(4, GRID, generator(3)), mae.draw(4, GRID, generator(3)))
    theirs, loss = mae(data, generator(3)), ours(data, generator(3))
    assert torch.equal(theirs.total, loss.total)
    theirs.total.backward()
    loss.total.backward()
    wanted = dict(mae.named_parameters())
    assert wanted.keys() == dict(ours.named_parameters()).keys()
    for name, p in ours.named_parameters():
        assert torch.equal(p, wanted[name]) and torch.equal(p.grad, wanted[name].grad), name


def labelled(**changes):
    return replace(CFG, recon="spectrogram", lambda_cls=2.0, classes=5, **changes)


def test_the_label_branch_by_hand():
    rows = torch.tensor([[1, 0, 0, 1, 0], [0, 0, 0, 0, 1], [0, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).float()
    data = batch(labels=rows)
    for changes in ({}, {"bce_reduction": "sum_over_classes"}, {"cls_loss": "ce", "temperature": 10.0}):
        objective = build(labelled(**changes)).eval()
        visible = objective.draw(4, GRID, generator(0))
        seen = objective.views(data.spec, visible, None).seen
        head = objective.classifier
        z = seen.patches.mean(1)
        hidden = F.relu(F.layer_norm(head.hidden[0](z), (24,), eps=1e-6))
        logits = head.linear(hidden)
        if "cls_loss" in changes:
            wanted = -(rows / rows.sum(1, keepdim=True) * (logits / 10).log_softmax(1)).sum(1).mean()
        else:
            p = logits.double().sigmoid()
            cells = -(rows * p.log() + (1 - rows) * (1 - p).log())
            wanted = cells.mean() if not changes else cells.sum(1).mean()
        loss = objective.losses(data, visible)
        assert loss.parts["cls"].item() == pytest.approx(wanted.item(), rel=1e-5)
        assert loss.total.item() == pytest.approx((loss.parts["pixels"] + 2 * loss.parts["cls"]).item(), rel=1e-6)


def test_it_starts_at_the_prior():
    """527 classes of which two hold: about 0.03, as the weight of 2 supposes."""
    rows = torch.zeros(4, 527)
    rows[:, [3, 400]] = 1
    objective = build(replace(labelled(), classes=527))
    start = objective(batch(labels=rows), generator(0)).parts["cls"].item()
    prior = -(2 * math.log(5e-3) + 525 * math.log(1 - 5e-3)) / 527
    assert start == pytest.approx(prior, rel=0.1) and 0.02 < start < 0.04


@pytest.mark.parametrize("changes", [{"norm": "bn"}, {"hidden": 0}, {"pool": "cls"}])
def test_other_label_branches(changes):
    objective = build(labelled(**changes))
    objective(batch(labels=torch.tensor([0, 1, 2, 4])), generator(0)).total.backward()
    assert all(p.grad is not None for p in objective.classifier.parameters())


def test_what_the_label_branch_reads_and_how_it_is_normed():
    data = batch(labels=torch.tensor([0, 1, 2, 4]))
    for changes in ({"pool": "cls", "hidden": 0}, {"hidden": 0}, {"norm": "bn"}):
        objective = build(labelled(**changes)).eval()
        seen = objective.views(data.spec, objective.draw(4, GRID, generator(0)), None).seen
        head = objective.classifier.train()  # BatchNorm by this batch
        x = seen.cls if "pool" in changes else seen.patches.mean(1)
        if "norm" in changes:
            x = head.hidden[0](x)
            x = F.relu((x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt())
        torch.testing.assert_close(head(seen), head.linear(x), atol=1e-5, rtol=1e-4)


def test_the_label_branch_warms_up_and_remembers_where_it_is():
    cfg = labelled(cls_warmup=Ramp(0.0, 1.0, steps=10))
    objective, data = build(cfg), batch(labels=torch.tensor([0, 1, 2, 4]))
    start = objective(data, generator(0))
    assert start.total.item() == pytest.approx(start.parts["pixels"].item(), rel=1e-6)
    objective.after_step(5)
    other = build(cfg)
    other.load_state_dict(objective.state_dict())
    for each in (objective, other):
        loss = each(data, generator(0))
        assert loss.total.item() == pytest.approx((loss.parts["pixels"] + loss.parts["cls"]).item(), rel=1e-5)


def test_who_saw_labels():
    assert not build(CFG, random_teacher()).labels_used
    assert build(labelled()).labels_used
    teacher = random_teacher()
    teacher.labels_used = True
    assert build(CFG, teacher).labels_used


def test_what_is_missing_is_named():
    data = batch(labels=torch.tensor([0, 1, 2, 4]))
    with pytest.raises(ConfigError, match=r"objective\.teachers=\[MODEL\]"):
        build(CFG)(data, generator(0))
    with pytest.raises(ConfigError, match="needs the number of classes"):
        build(replace(labelled(), classes=0))(data, generator(0))
    with pytest.raises(ConfigError, match="not every clip has one"):
        build(labelled())(replace(data, labels=None), generator(0))
    with pytest.raises(ConfigError, match="have 3 classes, but objective"):
        build(labelled())(replace(data, labels=torch.zeros(4, 3)), generator(0))
    with pytest.raises(ConfigError, match=r"have at least 5 classes, but objective\.classes is 4"):
        build(replace(labelled(), classes=4))(data, generator(0))
    with pytest.raises(ConfigError, match="two clips or more at once"):
        build(labelled(norm="bn"))(batch(1, labels=torch.tensor([0])), generator(0))
    with pytest.raises(ConfigError, match='recon="spectrogram" predicts pixels alone'):
        MAMCLAP(ViT(ENCODER), replace(CFG, recon="spectrogram"), None, [random_teacher()])
    with pytest.raises(ConfigError, match="all is visible"):
        MAMCLAP(ViT(ENCODER), replace(CFG, recon="both", keep=1.0), None, [random_teacher()])
    with pytest.raises(ConfigError, match="prior=0"):
        build(labelled(prior=0.0))
    with pytest.raises(ConfigError, match="mam_clap has one"):
        MAMCLAP(ViT(ENCODER), CFG, None, [random_teacher(), random_teacher()])
    with pytest.raises(ConfigError, match="no CLS token"):
        MAMCLAP(ViT(replace(ENCODER, cls=False)), labelled(pool="cls"))


def test_the_self_teacher_follows_the_student():
    objective = build(replace(CFG, teachers=("self",), ema=Ramp(0.5, 0.5)))
    before = objective.staff.own.encoder.proj.weight.clone()
    with torch.no_grad():
        objective.net.proj.weight.add_(1.0)
    objective.after_step(1)
    assert torch.allclose(objective.staff.own.encoder.proj.weight, before + 0.5, atol=1e-6)
    assert objective(batch(), generator(0)).total.isfinite()


def test_preview():
    painted = build(replace(CFG, recon="both"), random_teacher()).preview(batch(), generator(0))
    assert painted["guess"].shape == (4, FRAMES, 128) and painted["visible"].shape == (4, *GRID)
    assert build(CFG, random_teacher()).preview(batch(), generator(0))["guess"].shape == (4, *GRID)


def toy(rows, seed):
    """Four kinds of clips: a faint pattern of every patch tells them apart; four loud ones come and go."""
    gen = generator(seed)
    patterns = torch.linalg.qr(torch.randn(256, 8, generator=generator("patterns"))).Q.T.unflatten(1, (16, 16))
    kind = torch.arange(rows) % 4
    loud = torch.randn(rows, 4, generator=gen)
    tile = 4 * patterns[kind] + torch.einsum("bk,kij->bij", 16 * loud, patterns[4:])
    spec = torch.randn(rows, 1, 32, 64, generator=gen) + tile.repeat(1, 2, 4)[:, None]
    return Batch(torch.zeros(rows, 10), torch.full((rows,), 10), spec=spec, labels=kind)


def fit(weight):
    small = DecoderShape(width=16, depth=1, heads=2)
    cfg = MAMCLAPConfig(
        decoder=small, keep=0.5, recon="spectrogram", hidden=32, classes=4, cls_loss="ce", lambda_cls=weight
    )
    objective = MAMCLAP(ViT(replace(ENCODER, mels=64), generator("encoder")), cfg, generator("objective")).train()
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    for step in range(70):
        loss = objective(toy(16, f"toy {step}"), generator(step))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        objective.after_step(step + 1)
    return objective.eval(), loss


@torch.no_grad()
def probe(objective):
    """Accuracy of a ridge regression on frozen features."""
    x, test = (objective.net(toy(64, seed).spec).patches.mean(1) for seed in ("train", "test"))
    x, test = (torch.cat((F.layer_norm(v, v.shape[1:]), torch.ones(64, 1)), 1) for v in (x, test))
    y = F.one_hot(torch.arange(64) % 4, 4).float()
    weights = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T @ y)
    return ((test @ weights).argmax(1) == torch.arange(64) % 4).float().mean().item()


def test_labels_are_learned_and_help():
    with_labels, loss = fit(2.0)
    without, _ = fit(0.0)
    assert loss.parts["cls"].item() < 0.7 * math.log(4)
    assert probe(with_labels) > probe(without) + 0.05, (probe(with_labels), probe(without))
