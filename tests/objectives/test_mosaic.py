"""AudioMosaic's views and NT-Xent, written again clip by clip; two processes equal one."""

import math
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from forks import two_of

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.projector import Projector, ProjectorShape, nt_xent
from otic.objectives import Mosaic, MosaicConfig
from otic.objectives.perturb import PerturbConfig, perturb

CFG = MosaicConfig(projector=ProjectorShape(hidden=24, out=12))
STILL = PerturbConfig(roll=False, stretch_chance=0.0, pitch_chance=0.0, stop_chance=0.0, noise_chance=0.0, gain=0.0)
SPEC = torch.randn(4, 1, 96, 128, generator=generator("spec"))  # 6 x 8 patches
FIRST, SECOND = torch.randn(2, 8, 10, generator=generator("features")).unbind()


def build(cfg=CFG, **encoder):
    shape = {"width": 32, "depth": 2, "heads": 4, "norm": "pre", **encoder}
    return Mosaic(ViT(ViTConfig(**shape), generator("encoder")), cfg, generator("objective"))


def head():
    """A linear map in place of the encoder, and the objective."""
    net = torch.nn.Linear(10, 32)
    with torch.no_grad():
        for p in net.parameters():
            p.normal_(generator=generator("net"))
    return net, build()


def batch(spec=SPEC):
    return Batch(torch.zeros(len(spec), 1), torch.ones(len(spec), dtype=torch.long), spec=spec)


@pytest.mark.parametrize("own", [slice(None), slice(2, 5)])
def test_nt_xent_anchor_by_anchor(own):
    views, losses, hits = torch.stack((FIRST, SECOND)).double(), [], []
    for view in range(2):
        for clip in range(8)[own]:
            anchor = views[view, clip]
            scores = {
                (v, c): float(anchor @ views[v, c] / anchor.norm() / views[v, c].norm()) / 0.3
                for v in range(2)
                for c in range(8)
                if (v, c) != (view, clip)
            }
            partner = (1 - view, clip)
            losses.append(math.log(sum(math.exp(s) for s in scores.values())) - scores[partner])
            hits.append(max(scores, key=scores.get) == partner)
    loss, accuracy = nt_xent(FIRST, SECOND, 0.3, own)
    assert loss.item() == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert accuracy.item() == pytest.approx(sum(hits) / len(hits))


def test_forward_is_the_sum_of_its_parts():
    objective = build(replace(CFG, perturb=None, temperature=0.2))
    gen, vectors = generator(3), []
    for side in ("time", "freq"):
        _, visible = objective.view(SPEC, side, gen)
        tokens = objective.net.tokens(SPEC)[0]
        for clip in range(4):
            encoded = objective.net.encode(tokens[clip, visible[clip]][None])
            vectors.append(torch.cat((encoded.cls[:, None], encoded.patches), 1)[0].mean(0))
    first, second = torch.stack(vectors).unflatten(0, (2, 4))
    want, _ = nt_xent(objective.projector(first), objective.projector(second), 0.2)
    torch.testing.assert_close(objective(batch(), generator(3)).total, want)


@pytest.mark.parametrize("read", ["mean", "patches", "cls"])
def test_what_is_read(read):
    objective = build(replace(CFG, read=read))
    visible = torch.ones(4, 48, dtype=torch.bool)
    encoded = objective.net(SPEC)
    want = {
        "mean": (encoded.cls + encoded.patches.sum(1)) / 49,
        "patches": encoded.patches.mean(1),
        "cls": encoded.cls,
    }[read]
    torch.testing.assert_close(objective.features(SPEC, visible), want, atol=1e-5, rtol=0)


def test_one_view_hides_time_steps_the_other_frequency_rows():
    objective = build()
    _, first = objective.view(SPEC, "time", generator(0))
    _, second = objective.view(SPEC, "freq", generator(0))
    first, second = first.unflatten(1, (6, 8)), second.unflatten(1, (6, 8))
    assert torch.equal(first, first.any(2, keepdim=True).expand_as(first)) and (first.any(2).sum(1) == 2).all()
    assert torch.equal(second, second.any(1, keepdim=True).expand_as(second)) and (second.any(1).sum(1) == 4).all()
    assert len({tuple(row) for row in first.any(2).tolist()}) > 1, "each clip has a mask of its own"


@pytest.mark.parametrize("side", ["time", "freq"])
def test_both_views_are_perturbed(side):
    heard, _ = build().view(SPEC, side, generator(0))
    assert torch.equal(heard, perturb(SPEC, CFG.perturb, generator(0))) and not torch.equal(heard, SPEC)
    assert torch.equal(build(replace(CFG, perturb=None)).view(SPEC, side, generator(0))[0], SPEC)


def test_what_the_log_shows():
    parts = build().losses(FIRST.repeat(1, 4)[:, :32], SECOND.repeat(1, 4)[:, :32]).parts
    first, second = (x.repeat(1, 4)[:, :32].double() for x in (FIRST, SECOND))
    cosine = [float(a @ b / a.norm() / b.norm()) for a, b in zip(first, second, strict=True)]
    assert parts["alignment"].item() == pytest.approx(sum(cosine) / 8, rel=1e-5)
    assert parts["view_std"].item() == pytest.approx(first.std(0).mean().item(), rel=1e-5)


def test_masks_as_the_published_code_has_them():
    objective, spec = build(replace(CFG, axes="published", perturb=None)), torch.zeros(2, 1, 1024, 128)
    _, first = objective.view(spec, "time", generator(0))
    stretches = first.unflatten(1, (8, 64))  # eight stretches of 8 x 8 patches
    assert (stretches.all(2).sum(1) == 3).all() and (stretches.any(2).sum(1) == 3).all()
    _, second = objective.view(spec, "freq", generator(0))
    cells = second.unflatten(1, (8, 64))
    assert (cells.all(1).sum(1) == 38).all() and (cells.any(1).sum(1) == 38).all()


def halves(out):
    """Loss and gradients of this process's clips, averaged over processes as data parallelism does."""
    rank, size = dist.get_rank(), dist.get_world_size()
    net, objective = head()
    own = slice(rank * len(FIRST) // size, (rank + 1) * len(FIRST) // size)
    loss = objective.losses(net(FIRST[own]), net(SECOND[own])).total
    loss.backward()
    joined = torch.nn.ModuleList([net, objective])
    sums = {n: p.grad for n, p in joined.named_parameters() if p.grad is not None} | {"": loss.detach()}
    for one in sums.values():
        dist.all_reduce(one)
    means = {n: one / size for n, one in sums.items()}
    found = {"loss": means.pop(""), "grads": means, "bn": objective.projector.bn1.running_var}
    torch.save(found, out / f"{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    two_of(halves, tmp_path)
    net, objective = head()
    loss = objective.losses(net(FIRST), net(SECOND)).total
    loss.backward()
    want = {n: p.grad for n, p in torch.nn.ModuleList([net, objective]).named_parameters() if p.grad is not None}
    for rank in range(2):
        got = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(got["loss"], loss.detach())
        torch.testing.assert_close(got["bn"], objective.projector.bn1.running_var)
        assert got["grads"].keys() == want.keys()
        for name, grad in want.items():
            # float32 sums in another order: 1e-5 of the largest gradient
            assert (got["grads"][name] - grad).abs().max() < 1e-5 * grad.abs().max(), name


def test_one_clip_is_refused():
    with pytest.raises(ConfigError, match="two clips"):
        build()(batch(SPEC[:1]), generator(0))


def test_projector_layer_by_layer():
    projector = Projector(10, ProjectorShape(hidden=6, out=4), generator(0))
    x = FIRST.double()
    x = (x - x.mean(1, keepdim=True)) / (x.var(1, keepdim=True, correction=0) + 1e-6).sqrt()
    for layer, last in ((projector.fc1, False), (projector.fc2, True)):
        x = x @ layer.weight.double().T
        x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        x = x if last else x.clamp_min(0)
    torch.testing.assert_close(projector(FIRST).double(), x, atol=1e-4, rtol=0)


def test_a_still_clip_stays_as_it_is():
    assert torch.equal(perturb(SPEC, STILL, generator(0)), SPEC)


def test_rolling_only_turns_a_clip_round():
    rolled = perturb(SPEC, replace(STILL, roll=True), generator(0))
    for clip in range(4):
        turns = [torch.equal(rolled[clip, 0], SPEC[clip, 0].roll(-k, 0)) for k in range(96)]
        assert sum(turns) == 1


def test_noise_lies_so_far_below_the_clip():
    quiet = torch.full((1, 1, 400, 128), -1.0)
    quiet[0, 0, 0] = 1.0  # one loud frame has nearly all the energy
    loud = math.log(128 * math.exp(9.138) + 399 * 128 * math.exp(-9.138)) - math.log(400 * 128)
    cfg = replace(STILL, noise_chance=1.0, noise=(10.0, 10.0))
    heard = perturb(quiet, cfg, generator(0))[0, 0, 1:].double() * 9.138
    added = (heard.exp() - math.exp(-9.138)).mean().log().item()
    assert added == pytest.approx(loud - 10 * math.log(10) / 10, abs=0.05)


def test_stretch_pitch_and_filter():
    slope = torch.arange(96.0)[:, None] + torch.arange(128.0) / 1000
    spec = slope.expand(3, 1, 96, 128)
    fast = perturb(spec, replace(STILL, stretch_chance=1.0), generator(0))[:, 0, :, 0]
    rates = fast[:, 1] - fast[:, 0]
    assert ((rates >= 0.7) & (rates <= 1.3)).all() and rates.std() > 0
    torch.testing.assert_close(fast[:, :60], rates[:, None] * torch.arange(60.0), atol=1e-3, rtol=0)
    moved = perturb(spec, replace(STILL, pitch_chance=1.0), generator(0)) - spec
    shift = moved[:, 0, 0, 64] * 1000
    assert (shift.abs() <= 6).all() and shift.std() > 0
    torch.testing.assert_close(
        moved[:, 0, :, 20:100], shift[:, None, None].expand(-1, 96, 80) / 1000, atol=1e-4, rtol=0
    )
    lowered = perturb(spec, replace(STILL, stop_chance=1.0), generator(0)) - spec
    stopped = (lowered + 0.5).abs() < 1e-4
    assert (stopped | (lowered.abs() < 1e-4)).all() and 0 < stopped[:, 0, 0].sum(1).max() <= 33


def test_pitch_stops_at_the_edges_and_gain_is_one_number_a_clip():
    spec = torch.arange(128.0).expand(64, 1, 2, 128)
    moved = perturb(spec, replace(STILL, pitch_chance=1.0), generator(0))
    assert (moved.diff(dim=3) >= 0).all() and moved.min() >= 0 and moved.max() <= 127
    louder = (perturb(spec, replace(STILL, gain=0.5), generator(0)) - spec).flatten(1)
    torch.testing.assert_close(louder, louder[:, :1].expand_as(louder), atol=1e-4, rtol=0)
    assert -0.5 <= louder.min() < -0.3 and 0.3 < louder.max() <= 0.5


def test_defaults_are_the_published_base_run():
    cfg = MosaicConfig()
    assert (cfg.temperature, cfg.projector.hidden, cfg.projector.out) == (0.1, 512, 128)
    assert int(64 * (1 - cfg.hide_time)) == 25 and int(8 * (1 - cfg.hide_freq)) == 4


def test_preview_draws_from_its_generator_alone():
    objective = build()
    first, again = (objective.preview(batch(), generator("preview")) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in ("spec", "visible"))
    assert first["spec"].shape == (4, 96, 128) and first["visible"].shape == (4, 6, 8)
