"""MSPM against its formulas written again as plain loops; the published code itself is in tests/parity."""

import math
from dataclasses import replace

import pytest
import torch

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.objectives import MSPM, MSPMConfig
from otic.objectives.mspm import accuracy, info_nce, retrieval

ENCODER = ViTConfig(width=32, depth=2, heads=2, norm="pre", dist=True, positions="learned", table=(6, 8))
FRAMES = replace(ENCODER, patch=(2, 128), table=(48, 1))
SMALL = MSPMConfig(hidden=20, sampler="balanced")
SPEC = torch.randn(3, 1, 96, 128, generator=generator("spec"))
BATCH = Batch(torch.zeros(3, 1), torch.ones(3, dtype=torch.long), spec=SPEC)


def build(encoder=ENCODER, cfg=SMALL, **changes):
    return MSPM(ViT(encoder, generator("encoder")), replace(cfg, **changes), generator("objective"))


def hidden(objective, seed=0, spec=SPEC):
    return objective.draw(len(spec), objective.net.grid(spec.shape[2]), generator(seed))


def tile(spec, clip, p, objective):
    """The pixels of patch p = freq * t + f, frames outside."""
    t, f = divmod(p, objective.net.bands)
    high, wide = objective.net.patch
    return spec[clip, 0, t * high : (t + 1) * high, f * wide : (f + 1) * wide].flatten()


@pytest.mark.parametrize("encoder", [ENCODER, FRAMES], ids=["patch", "frame"])
@pytest.mark.parametrize("norm", ["predictions", "targets"])
@torch.no_grad()
def test_losses_clip_by_clip(encoder, norm):
    objective = build(encoder, nce_norm=norm)
    first, second = hidden(objective), hidden(objective, 1)
    loss = objective.losses(SPEC, first, second)
    nce, mse, upstream, right = [], [], [], []
    for clip in range(len(SPEC)):
        guess = objective.contrast(objective.states(SPEC, first)[clip])
        x = torch.stack([tile(SPEC, clip, int(p), objective) for p in first[clip]])
        m = len(x)
        scores = [[float(x[i] @ guess[j]) for j in range(m)] for i in range(m)]
        for i in range(m):
            against = scores[i] if norm == "predictions" else [row[i] for row in scores]
            nce.append(math.log(sum(math.exp(s - scores[i][i]) for s in against)))
            right.append(max(range(m), key=lambda k, a=against: a[k]) == i)
        partition = [math.log(sum(map(math.exp, row))) for row in scores]
        for j in range(m):
            column = [scores[i][j] - (partition[i] if norm == "predictions" else 0) for i in range(m)]
            upstream.append(max(range(m), key=lambda k, c=column: c[k]) == j)
        pixels = objective.generate(objective.states(SPEC, second)[clip])
        mse += [
            float((a - tile(SPEC, clip, int(p), objective)).square().mean())
            for a, p in zip(pixels, second[clip], strict=True)
        ]
    mean = {"nce": nce, "mse": mse, "accuracy": upstream, "retrieval": right}
    for name, values in mean.items():
        assert loss.parts[name].item() == pytest.approx(sum(values) / len(values), rel=1e-5), name
    assert loss.total.item() == pytest.approx((loss.parts["nce"] + 10 * loss.parts["mse"]).item(), rel=1e-6)


def test_the_two_accuracies_differ():
    """Target 0 has twice the norm of the others: it takes every raw column, but not after the softmax."""
    scores = torch.tensor([[[9.0, 8.0], [1.0, 2.0]]])
    assert retrieval(scores) == 1.0 and accuracy(scores) == 1.0
    assert retrieval(scores, "targets") == accuracy(scores, "targets") == 0.5
    assert info_nce(scores).item() == pytest.approx(math.log(1 + math.exp(-1)))
    underflow = torch.tensor([[[200.0, 0.0], [300.0, 0.0]]])  # column 1 is 0 in float32: the first index wins
    assert accuracy(underflow) == 0.5


def test_hidden_patches_are_replaced_before_the_positions():
    """What stands in a hidden patch changes no state; where it stands does."""
    index = hidden(build())
    other = SPEC.clone()
    for clip in range(len(SPEC)):
        for p in index[clip]:
            t, f = divmod(int(p), 8)
            other[clip, 0, 16 * t : 16 * t + 16, 16 * f : 16 * f + 16] = 7.0
    for objective in (build(), build(visible_only=True)):
        states = objective.states(SPEC, index)
        assert torch.equal(states, objective.states(other, index))
        assert states.std(1).min() > 1e-4
    assert not torch.equal(states, objective.states(SPEC.roll(16, 2), index))


def test_one_pass_or_two():
    """Two passes with one mask are a shared pass; with two masks the terms are those of each."""
    objective = build()
    first, second = hidden(objective), hidden(objective, 1)
    shared, twice = objective.losses(SPEC, first), objective.losses(SPEC, first, first)
    assert torch.equal(shared.total, twice.total)
    both = objective.losses(SPEC, first, second).parts
    assert both["nce"] == shared.parts["nce"] and both["mse"] == objective.losses(SPEC, second).parts["mse"]


def test_a_shared_pass_runs_the_encoder_once():
    calls = {}
    for passes in ("two", "shared"):
        objective = build(passes=passes)
        counted = []
        objective.net.blocks[0].register_forward_hook(lambda *a, c=counted: c.append(a[2][0].shape))
        objective(BATCH, generator(0))
        calls[passes] = counted
    assert len(calls["two"]) == 2 and calls["shared"] == calls["two"][:1] == [(3, 50, 32)]


def test_one_task_has_one_head_and_one_pass():
    for task, part, head in (("discriminative", "nce", "generate"), ("generative", "mse", "contrast")):
        objective = build(task=task)
        loss = objective(BATCH, generator(0))
        assert getattr(objective, head) is None and loss.total == loss.parts[part]
        assert ("nce" in loss.parts) == (task == "discriminative")


def test_visible_only_encodes_what_is_visible():
    objective, seen = build(visible_only=True, decoder_depth=1), []
    objective.net.blocks[0].register_forward_hook(lambda *a: seen.append(a[2][0].shape[1]))
    loss = objective(BATCH, generator(0))
    loss.total.backward()
    assert seen == [48 - 20 + 2] * 2
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in objective.parameters())


@pytest.mark.parametrize("sampler", ["legacy", "balanced", "random"])
@pytest.mark.parametrize("encoder", [ENCODER, FRAMES], ids=["patch", "frame"])
def test_every_sampler_hides_what_it_should(sampler, encoder):
    objective = build(encoder, sampler=sampler, hidden=0.5)
    index = hidden(objective)
    assert index.shape == (3, 24) and all(len(set(row.tolist())) == 24 for row in index)
    assert torch.equal(index, hidden(objective)) and not torch.equal(index, hidden(objective, 1))
    if sampler == "legacy":  # clusters never hide the first patch; frames are drawn one by one
        assert (hidden(objective, spec=torch.zeros(40, 1, 96, 128)) > 0).all() == (encoder is ENCODER)


@pytest.mark.parametrize("sampler", ["balanced", "random"])
@pytest.mark.parametrize("count", [5, 43])
def test_every_patch_is_hidden_as_often(sampler, count):
    """Few of 48, or nearly all."""
    rows = 2000
    index = hidden(build(sampler=sampler, hidden=count, cluster=(1, 1)), spec=torch.zeros(rows, 1, 96, 128))
    assert index.shape == (rows, count) and (index.diff(dim=1) > 0).all()
    share, wanted = index.flatten().bincount(minlength=48) / rows, count / 48
    assert (share - wanted).abs().max() < 5 * math.sqrt(wanted * (1 - wanted) / rows)


@pytest.mark.parametrize("sampler", ["legacy", "balanced"])
def test_clusters_have_the_side_that_is_set(sampler):
    """Of single patches, few that are hidden touch; of squares of five, nearly all."""
    spec, touching = torch.zeros(40, 1, 96, 128), []
    for side in (1, 5):
        index = hidden(build(sampler=sampler, hidden=10, cluster=(side, side)), spec=spec)
        image = torch.zeros(40, 48).scatter_(1, index, 1.0).view(40, 6, 8)
        touching.append((image[:, 1:] * image[:, :-1]).sum().item())
    assert touching[1] > 3 * touching[0]


def test_impossible_masks_and_patches():
    with pytest.raises(ConfigError, match=r"hidden=400 of 6x8 patches is 400: expected 1\.\.47"):
        build(hidden=400)(BATCH, generator(0))
    with pytest.raises(ConfigError, match=r"hidden=1 of 6x8 patches is 48: expected 1\.\.47"):
        build(hidden=1.0)(BATCH, generator(0))
    with pytest.raises(ConfigError, match="ends for"):
        build(hidden=47, sampler="legacy")(BATCH, generator(0))
    with pytest.raises(ConfigError, match="must not overlap"):
        build(replace(ENCODER, stride=(10, 10)))


def test_preview_paints_guesses_into_the_hidden_patches():
    objective = build()
    shown = objective.preview(BATCH, generator(3))
    assert shown["guess"].shape == shown["spec"].shape == (3, 96, 128) and shown["visible"].shape == (3, 6, 8)
    hidden = ~shown["visible"].repeat_interleave(16, 1).repeat_interleave(16, 2)
    same = shown["guess"] == shown["spec"]
    assert same[~hidden].all() and not same[hidden].any()
    assert "guess" not in build(task="discriminative").preview(BATCH, generator(3))


def test_scores_stay_in_float32_under_autocast():
    objective = build()
    index = hidden(objective)
    with torch.autocast("cpu", torch.bfloat16):
        loss = objective.losses(SPEC, index)
    assert loss.total.dtype == torch.float32
    assert loss.total.item() == pytest.approx(objective.losses(SPEC, index).total.item(), rel=0.02)
