"""A-JEPA against its formulas, written again block by block; I-JEPA's numbers are in tests/parity."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from otic.core.batch import Batch
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.masking import Curriculum, Views
from otic.models import ViT, ViTConfig
from otic.models.heads import normalised_patches
from otic.models.predictor import PredictorConfig
from otic.objectives import JEPA
from otic.objectives.jepa import JEPAConfig, Passed, monitors
from otic.recipes.base import stretch

CFG = JEPAConfig(predictor=PredictorConfig(width=16, depth=2, heads=2))
SPEC = torch.randn(2, 1, 96, 128, generator=generator("spec"))  # 6 x 8 patches


def build(cfg=CFG, **encoder):
    shape = {"width": 32, "depth": 2, "heads": 4, "norm": "pre", "cls": False, **encoder}
    objective = JEPA(ViT(ViTConfig(**shape), generator("student")), cfg, generator("objective"))
    other = ViT(ViTConfig(**shape), generator("teacher")).state_dict()
    objective.teacher.load_state_dict({name: t + 0.02 for name, t in other.items()})
    return objective


def batch(spec=SPEC):
    return Batch(torch.zeros(len(spec), 1), torch.ones(len(spec), dtype=torch.long), spec=spec)


def views(contexts=1, targets=3, n=48, less=0):
    """Contexts of nine patches (the second clip's of `less` fewer) and targets of five, any ones."""
    order = torch.rand(2, contexts + targets, n, generator=generator("views")).argsort(2)
    masks = torch.zeros(2, contexts + targets, n, dtype=torch.bool)
    for kind in range(contexts + targets):
        masks[:, kind].scatter_(1, order[:, kind, : 9 if kind < contexts else 5], True)
        if kind < contexts:
            masks[1, kind].scatter_(0, order[1, kind, 9 - less : 9], False)
    return Views(masks[:, :contexts], masks[:, contexts:])


@torch.no_grad()
@pytest.mark.parametrize("encoder", [{}, {"cls": True, "norm": "post"}])
@pytest.mark.parametrize("less", [0, 6])
@pytest.mark.parametrize("contexts", [1, 2])
@pytest.mark.parametrize("view", ["full", "masked_only"])
def test_block_by_block(view, contexts, less, encoder):
    objective = build(replace(CFG, target_view=view, contexts=contexts), **encoder)
    shown = views(contexts, less=less)
    passed = objective.passed(SPEC, shown)
    row = 0
    for target in range(3):
        for context in range(contexts):
            for clip in range(2):
                spec, seen, block = SPEC[clip : clip + 1], shown.context[clip, context], shown.targets[clip, target]
                tokens = objective.student.tokens(spec)[0]
                known = objective.student.encode(tokens[:, seen]).patches
                guess = objective.predictor(known, seen[None], block[None], (6, 8))[0]
                torch.testing.assert_close(passed.guess[row], guess, atol=1e-5, rtol=1e-5)
                tokens = objective.teacher.tokens(spec)[0]
                if view == "full":
                    full = objective.teacher.encode(tokens).patches[0, block]
                else:
                    full = objective.teacher.encode(tokens[:, block]).patches[0]
                want = (full - full.mean(1, keepdim=True)) / (full.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
                torch.testing.assert_close(passed.targets[row], want, atol=1e-4, rtol=1e-4)
                row += 1
    assert row == len(passed.guess)


@torch.no_grad()
def test_predictor_by_hand():
    """One sequence: embedded context with its codes, mask tokens with theirs, blocks, norm, linear."""
    predictor, shown = build().predictor, views()
    context, block = shown.context[:1, 0], shown.targets[:1, 0]
    known = torch.randn(1, 9, 32, generator=generator("known"))
    codes = predictor.positions((6, 8))
    x = torch.cat((predictor.embed(known[0]) + codes[context[0]], predictor.mask_token[0] + codes[block[0]]))[None]
    for layer in predictor.blocks:
        x = layer(x)[0]
    want = predictor.proj(predictor.norm(x))[:, 9:]
    torch.testing.assert_close(predictor(known, context, block, (6, 8)), want, atol=1e-6, rtol=1e-5)
    with pytest.raises(ConfigError, match="predictor width=20"):
        build(replace(CFG, predictor=PredictorConfig(width=20, heads=3)))


@torch.no_grad()
def test_losses():
    objective, shown = build(), views()
    passed = objective.passed(SPEC, shown)
    far = (passed.guess - passed.targets).flatten()
    assert objective.losses(passed).total.item() == pytest.approx((far**2).mean().item(), rel=1e-5)
    objective.cfg = replace(CFG, loss="smooth_l1")
    smooth = torch.where(far.abs() < 1, far**2 / 2, far.abs() - 0.5).mean()
    assert objective.losses(passed).total.item() == pytest.approx(smooth.item(), rel=1e-5)
    objective.cfg = replace(CFG, normalise=False)
    raw = objective.passed(SPEC, shown).targets
    torch.testing.assert_close(F.layer_norm(raw, (32,)), passed.targets)


@torch.no_grad()
def test_pixels_of_the_targets():
    objective = build(replace(CFG, reconstruction=0.5))
    shown = views(2)
    passed, total = objective.passed(SPEC, shown), []
    pixels = normalised_patches(SPEC, (16, 16))
    for row, guess in enumerate(passed.guess):
        target, clip = row // 4, row % 2
        total.append((objective.pixels(guess[None])[0] - pixels[clip, shown.targets[clip, target]]).square().mean())
    error = objective.pixel_error(objective.pixels, passed, SPEC, shown.targets)
    torch.testing.assert_close(error, torch.stack(total).mean())
    plain, loss = build(), objective(batch(), generator(0))
    plain.load_state_dict(objective.state_dict(), strict=False)
    assert loss.parts["pixels"] > 0
    torch.testing.assert_close(loss.total, plain(batch(), generator(0)).total + 0.5 * loss.parts["pixels"])


@torch.no_grad()
def test_signs_of_collapse():
    x = torch.randn(6, 50, 32, generator=generator("x"))
    same = x[:1, :1].expand_as(x)
    lively, dead = monitors(Passed(x + 0.1, x)), monitors(Passed(same, same))
    flat = x.flatten(0, 1)
    assert lively["target_std"].item() == pytest.approx(flat.std(0, correction=0).mean().item(), rel=1e-4)
    eigen = torch.linalg.eigvalsh(flat.T.cov())
    assert lively["target_rank"].item() == pytest.approx((eigen.sum() ** 2 / (eigen**2).sum()).item() / 32, rel=1e-3)
    assert lively["target_cosine"] < 0.05 and lively["skill"].item() == pytest.approx(0.99, abs=0.005)
    assert dead["target_std"] < 1e-5 and dead["target_cosine"].item() == pytest.approx(1.0)
    mean = flat.mean(0).expand_as(x)
    assert monitors(Passed(mean, x))["skill"].item() == pytest.approx(0.0, abs=1e-5)


# --- masks


def drawn(cfg, grid, hard, seed=0, count=4):
    return build(cfg).draw(count, grid, hard, generator(seed))


@pytest.mark.parametrize("sampler", ["multi_block", "ijepa_legacy", "unstructured"])
@pytest.mark.parametrize("grid", [(1, 8), (2, 1), (6, 8), (13, 8), (8, 8), (32, 8)])
def test_any_grid_in_bounded_time(sampler, grid):
    for hard in (False, True):
        if sampler == "unstructured" and grid == (2, 1):
            continue  # int(2 * 0.3) patches are none, and it says so
        shown = drawn(replace(CFG, sampler=sampler), grid, hard)
        assert shown.context.any(2).all() and shown.targets.any(2).all()
        assert shown.targets.sum(2).unique().numel() == 1, "targets of a batch stack"
        assert sampler == "multi_block" or shown.context.sum(2).unique().numel() == 1
        assert shown.targets.shape[1] == {"unstructured": 1}.get(sampler, 3 if hard else 4)


def test_hard_masks_share_no_time_step_and_no_row_with_a_target():
    for seed in range(6):
        shown = drawn(CFG, (32, 8), True, seed)
        seen, hidden = (m.view(4, 32, 8) for m in (shown.context[:, 0], shown.targets.any(1)))
        assert not (seen.any(2) & hidden.any(2)).any() and not (seen.any(1) & hidden.any(1)).any()
        easy = drawn(CFG, (32, 8), False, seed)
        assert not (easy.context[:, 0] & easy.targets.any(1)).any()


def test_small_grids_keep_the_rows():
    shown = [drawn(CFG, (13, 8), True, seed) for seed in range(8)]
    seen, hidden = (
        torch.cat(m).view(-1, 13, 8) for m in zip(*((v.context[:, 0], v.targets.any(1)) for v in shown), strict=True)
    )
    assert not (seen.any(2) & hidden.any(2)).any()
    assert (seen.any(1) & hidden.any(1)).any()
    crossed = drawn(replace(CFG, cross_from=0), (13, 8), True)
    seen, hidden = (m.view(4, 13, 8) for m in (crossed.context[:, 0], crossed.targets.any(1)))
    assert not (seen.any(1) & hidden.any(1)).any()


def test_unstructured_predicts_all_that_is_hidden():
    shown = drawn(replace(CFG, sampler="unstructured"), (6, 8), True)
    assert torch.equal(shown.targets, ~shown.context) and int(shown.context[0].sum()) == int(48 * 0.3)
    with pytest.raises(ConfigError, match="contexts=2"):
        build(replace(CFG, sampler="unstructured", contexts=2))


# --- steps


def test_the_curriculum_goes_with_the_steps_and_resumes():
    cfg = replace(CFG, curriculum=Curriculum(progress=Ramp(0.0, 1.0, steps=40)))
    objective, hard = build(cfg), []
    for step in range(40):
        hard.append(bool(objective(batch(), generator(step)).parts["hard"]))
        objective.after_step(step + 1)
        if step == 19:
            kept = {name: t.clone() for name, t in objective.state_dict().items()}
    assert hard == [cfg.curriculum.hard(step) for step in range(40)] and len(set(hard)) == 2
    again = build(cfg)
    again.load_state_dict(kept)
    assert int(again.finished) == 20
    assert bool(again(batch(), generator(20)).parts["hard"]) == hard[20]
    assert stretch(cfg, 0.5).curriculum.share(10) == cfg.curriculum.share(20)


def test_ranks_agree_on_the_kind_of_mask_and_on_nothing_else():
    cfg = replace(CFG, curriculum=Curriculum(progress=Ramp(0.0, 1.0, steps=8)))
    first, second = build(cfg), build(cfg)
    for step in range(8):
        parts = [o(batch(), generator(0, step, rank)).parts for rank, o in enumerate((first, second))]
        assert parts[0]["hard"] == parts[1]["hard"]
        first.after_step(step + 1)
        second.after_step(step + 1)
    assert not torch.equal(drawn(CFG, (6, 8), True, 0).context, drawn(CFG, (6, 8), True, 1).context)


def test_teacher_follows_and_never_learns():
    objective = build(replace(CFG, ema=Ramp(0.5, 1.0, steps=4)))
    before = {name: p.clone() for name, p in objective.teacher.named_parameters()}
    objective(batch(), generator(0)).total.backward()
    assert all(p.grad is None and not p.requires_grad for p in objective.teacher.parameters())
    objective.after_step(2)  # the second step: as far as one is finished
    student = dict(objective.student.named_parameters())
    for name, p in objective.teacher.named_parameters():
        torch.testing.assert_close(p, 0.625 * before[name] + 0.375 * student[name], atol=1e-6, rtol=0)
    ema = JEPAConfig().ema
    assert (ema(0), ema(ema.steps)) == (0.996, 1.0)
    assert objective.encoder is objective.teacher
    assert build(replace(CFG, export="student")).encoder is not objective.student


@torch.no_grad()
def test_teacher_is_calm_while_the_student_drops_paths():
    objective, shown = build(drop_path=0.5), views()
    calm = objective.eval().targets(SPEC, shown.targets)
    assert torch.equal(objective.train().targets(SPEC, shown.targets), calm)


def test_preview():
    objective = build().eval()
    before = torch.get_rng_state()
    first, again = (objective.preview(batch(), generator("preview")) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in ("spec", "visible", "guess"))
    assert first["visible"].shape == first["guess"].shape == (2, 6, 8)
    assert first["guess"].isfinite().all()


def test_defaults_are_the_papers_base_run():
    cfg = JEPAConfig()
    assert (cfg.easy.targets, cfg.easy.scale, cfg.hard.targets, cfg.hard.scale) == (4, (0.15, 0.2), 3, (0.05, 0.075))
    assert (cfg.hard.remove, cfg.context, cfg.curriculum.first) == ("cross", (0.85, 1.0), 0.01)
    assert (cfg.predictor.depth, cfg.predictor.width, cfg.predictor.heads) == (16, 512, 16)
    assert (cfg.loss, cfg.normalise, cfg.target_view, cfg.export) == ("mse", True, "full", "teacher")


@torch.no_grad()
def test_centred_targets_tell_nothing_of_the_place():
    objective, shown = build(replace(CFG, centre="place", normalise=False)), views()
    full = objective.teacher(SPEC).patches
    for clip, targets in enumerate(objective.targets(SPEC, shown.targets).unflatten(0, (2, 3))):
        for target, block in zip(targets, shown.targets[clip], strict=True):
            torch.testing.assert_close(target, (full[clip] - full.mean(0))[block], atol=1e-5, rtol=1e-5)
    objective.cfg = replace(CFG, centre="clip", normalise=False)
    for clip, targets in enumerate(objective.targets(SPEC, shown.targets).unflatten(0, (2, 3))):
        want = (full[clip] - full[clip].mean(0)) / (full[clip].var(0, correction=0) + 1e-5).sqrt()
        torch.testing.assert_close(targets[0], want[shown.targets[clip, 0]], atol=1e-4, rtol=1e-4)
    with pytest.raises(ConfigError, match=r"centre=.clip"):
        build(replace(CFG, centre="clip", target_view="masked_only"))
    with pytest.raises(ConfigError, match="of one clip alone nothing is left"):
        build(replace(CFG, centre="place"))(batch(SPEC[:1]), generator(0))


@pytest.mark.parametrize(("hard", "share"), [(False, 0.468), (True, 0.165)])
def test_contexts_keep_their_size_in_company(hard, share):
    """Of 64 clips as of one: the mean share of a 64 x 8 grid (I-JEPA cuts all down to the emptiest: 0.31 and 0.06)."""
    objective = build()
    drawn = [objective.draw(64, (64, 8), hard, generator("company", k)).context.float().mean() for k in range(40)]
    assert torch.stack(drawn).mean().item() == pytest.approx(share, abs=0.02)
