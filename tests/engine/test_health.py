"""Health: the numbers are what they say, measuring changes nothing, a collapse is called one and nothing else is."""

import math
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from otic.core.batch import Batch, Loss
from otic.core.errors import OticWarning
from otic.core.seeds import generator
from otic.core.world import World
from otic.engine.config import TrainConfig
from otic.engine.health import Health, effective_rank, interval, measured, pair_cosine, reasons, spread
from otic.engine.log import Log, read_log, warnings_in
from otic.engine.loop import Event, State, train
from otic.engine.optim import make_optimizer
from otic.engine.progress import Progress
from otic.models.vit import Encoded, ViT, ViTConfig
from otic.objectives import Objective

SHAPE = ViTConfig(width=32, depth=2, heads=2, norm="pre", drop_path=0.3)


def at(step: int) -> Event:
    return Event(State(step, 8 * step, 0.5 * step), 1.0, {"part": 2.0}, 3.0, 1e-3, 0.5, 0.1)


def clips(count: int = 8, seed: int = 0) -> Tensor:
    """Spectrograms of clips that differ in bands and times."""
    gen = generator("clips", seed)
    bands, times = torch.randn(count, 1, 1, 128, generator=gen), torch.randn(count, 1, 32, 1, generator=gen)
    return bands + times + 0.3 * torch.randn(count, 1, 32, 128, generator=gen)


@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 8), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_the_numbers_are_the_formulas(b, n, d, seed):
    x = torch.randn(b, n, d, generator=generator(seed), dtype=torch.float64)
    pairs = [
        float(x[i, k] @ x[j, k] / (x[i, k].norm() * x[j, k].norm()))
        for k in range(n)
        for i in range(b)
        for j in range(b)
        if i != j
    ]
    assert pair_cosine(x) == pytest.approx(sum(pairs) / len(pairs), abs=1e-9)
    stds = [math.sqrt(sum((x[i, k, c] - x[:, k, c].mean()) ** 2 for i in range(b)) / (b - 1))
            for k in range(n) for c in range(d)]  # fmt: skip
    assert spread(x) == pytest.approx(sum(stds) / len(stds))
    rows = x.flatten(0, 1)
    shares = torch.linalg.svdvals(rows) / torch.linalg.svdvals(rows).sum()
    assert effective_rank(rows) == pytest.approx(math.exp(-sum(p * math.log(p) for p in shares.tolist())), rel=1e-6)


@pytest.mark.parametrize("m, d, k", [(50, 12, 5), (6, 40, 6), (40, 8, 1)])
def test_equal_directions_are_counted(m, d, k):
    left = torch.linalg.qr(torch.randn(m, k, generator=generator(1), dtype=torch.float64))[0]
    right = torch.linalg.qr(torch.randn(d, k, generator=generator(2), dtype=torch.float64))[0]
    assert effective_rank(left @ right.mT) == pytest.approx(k, rel=1e-4)


def test_features_without_differences_have_no_rank():
    same = torch.ones(4, 3, 8)
    found = measured(same)
    assert (found["patch_rank"], found["patch_std"], found["patch_cosine"]) == (0.0, 0.0, pytest.approx(1.0))
    assert measured(same * math.inf) == {} and measured(same[:1]) == {}


def test_patches_that_know_only_their_place_have_collapsed():
    places = torch.randn(1, 20, 32, generator=generator(0))
    found = measured(places + 1e-3 * torch.randn(8, 20, 1, generator=generator(1)))
    first = measured(torch.randn(8, 20, 32, generator=generator(2)))
    assert found["patch_cosine"] > 0.999 and found["patch_rank"] < 1.1
    assert len(reasons(first, found, 32)) >= 2 and reasons(first, first, 32) == []


def test_measurements_are_few_and_a_few():
    assert interval(400_000, 48) == 4000
    assert interval(10_000, 16) == 100
    assert interval(866, 16) == 40  # 22 of them: 5 % of the clips
    assert interval(30, 16) == 4 and interval(3, 4) == 1


def test_it_measures_at_the_first_and_last_step_and_between():
    health = Health(ViT(SHAPE), clips(), every=4, last=10)
    assert [step for step in range(1, 11) if health(at(step))] == [1, 4, 8, 10]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measuring_leaves_no_trace(dtype):
    encoder = ViT(SHAPE).train()
    encoder.blocks[1].eval()
    encoder.extra_tokens.requires_grad_(False)
    modes = [part.training for part in encoder.modules()]
    weights = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    before = torch.get_rng_state()
    health = Health(encoder, clips(), every=1, last=9, world=World(dtype=dtype))
    first, second = health(at(1)), health(at(2))
    assert first == second and len(first) == 6 and all(type(v) is float for v in first.values())
    assert torch.equal(torch.get_rng_state(), before)
    assert [part.training for part in encoder.modules()] == modes
    assert all(torch.equal(tensor, weights[name]) for name, tensor in encoder.state_dict().items())
    assert all(p.grad is None for p in encoder.parameters())
    assert not torch.is_autocast_enabled("cpu")


def test_bf16_measures_what_fp32_does():
    encoder = ViT(SHAPE)
    exact, rough = (
        Health(encoder, clips(), every=1, last=9, world=World(dtype=dtype))(at(1))
        for dtype in (torch.float32, torch.bfloat16)
    )
    assert rough == pytest.approx(exact, rel=0.05)


class Chase(Objective):
    """Half of a clip's patches predict all: as a fixed teacher sees them, or one vector for every clip."""

    def __init__(self, teacher: bool):
        super().__init__()
        self.student = ViT(SHAPE, generator("chase"))
        self.register_buffer("constant", torch.randn(32, generator=generator("aim")))
        self.teacher = ViT(SHAPE, generator("other")).eval().requires_grad_(False) if teacher else None

    @property
    def encoder(self) -> nn.Module:
        return self.student

    def forward(self, batch: Batch, gen: torch.Generator) -> Loss:
        assert batch.spec is not None
        tokens = self.student.tokens(batch.spec)[0]
        visible = torch.zeros(tokens.shape[:2], dtype=torch.bool)
        visible[:, ::2] = True
        seen: Encoded = self.student.encode(tokens, visible, gen=gen)
        aim = self.constant if self.teacher is None else self.teacher(batch.spec).patches[:, ::2]
        return Loss((seen.patches - aim).square().mean())


def chase(path, teacher, steps=60, every=3):
    """A run of 60 updates; the log's lines."""
    toy, cfg = Chase(teacher), TrainConfig(steps=steps, warmup=4, lr=2e-2, weight_decay=0.0)

    def stream():
        while True:
            yield Batch(torch.zeros(8, 4), torch.full((8,), 4), ids=[""] * 8)

    count = iter(range(1, 999))

    def fill(batch: Batch) -> Batch:
        return Batch(batch.wave, batch.lengths, clips(seed=next(count)), ids=batch.ids)

    health = Health(toy.encoder, clips(), every=every, last=steps)
    log = Log(path, 10, steps, measure=health)
    with Progress("toy", steps, quiet=True, remark=lambda: "collapsed" * bool(health.warned)) as progress:
        train(toy, fill, stream(), make_optimizer(toy, cfg), cfg, hooks=(log, progress))
    return toy, read_log(path), progress


def test_a_collapse_is_said_once_with_numbers_and_a_way_out(tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        _, log, progress = chase(tmp_path / "log.jsonl", teacher=False)
    assert [w.category for w in said] == [OticWarning]
    text = str(said[0].message)
    lines = [line for line in log if "warning" in line]
    assert [line["warning"] for line in lines] == [text] == warnings_in(tmp_path / "log.jsonl")
    assert text.startswith(f"step {lines[0]['step']}: the features collapse, ")
    assert all(word in text for word in ("ema", "train.lr", "normalised targets", "first")) and "\n" not in text
    assert "lr 0, collapsed" in progress.text(at(60)).replace("lr 0.001", "lr 0")


def test_a_fixed_teacher_does_not_collapse_and_measuring_does_not_change_the_weights(tmp_path):
    toy, log, progress = chase(tmp_path / "log.jsonl", teacher=True)  # warnings are errors
    steps = [line["step"] for line in log]
    assert steps == sorted({1, *range(3, 61, 3), *range(10, 61, 10)})
    assert [line["step"] for line in log if "patch_rank" in line] == [1, *range(3, 61, 3)]
    assert "collapsed" not in progress.text(at(60))
    rarely, other, _ = chase(tmp_path / "other.jsonl", teacher=True, every=50)
    assert all(torch.equal(a, b) for a, b in zip(toy.parameters(), rarely.parameters(), strict=True))
    numbers = {line["step"]: line["patch_rank"] for line in log if "patch_rank" in line}
    assert [line["patch_rank"] for line in other if line["step"] in (1, 60)] == [numbers[1], numbers[60]]


def test_a_run_that_goes_on_knows_what_was_measured_and_said():
    """Two dips say nothing; a third one does, also where they were in the sitting before; then no more."""
    encoder = ViT(SHAPE)
    lines = [{"step": 1, **Health(encoder, clips(), every=1, last=9)(at(1))}]
    with torch.no_grad():
        encoder.norm.weight.mul_(1e-4)
    dips = Health(encoder, clips(), every=1, last=9, history=lines)
    lines += [{"step": step, **dips(at(step))} for step in (2, 3)]
    assert dips.warned == "" and not any("warning" in line for line in lines)
    for history in (lines, [lines[0], {"step": 2, "loss": 1.0}, *lines[1:]]):
        again = Health(encoder, clips(), every=1, last=9, history=history)
        with pytest.warns(OticWarning, match=r"step 4: .* std of patches .* \(first"):
            fourth = {"step": 4, **again(at(4))}
        later = Health(encoder, clips(), every=1, last=9, history=[*history, fourth])
        assert later.warned == fourth["warning"] and "warning" not in later(at(5))
    with torch.no_grad():
        encoder.norm.weight.mul_(1e4)
    assert "warning" not in Health(encoder, clips(), every=1, last=9, history=lines)(at(4))  # it was a dip


def test_clips_that_are_all_the_same_accuse_nobody():
    health = Health(ViT(SHAPE), clips(1).expand(8, -1, -1, -1), every=1, last=9)
    assert health(at(1))["patch_rank"] == 0.0 and health(at(2))["patch_std"] == 0.0 and health.warned == ""


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("width, depth", [(32, 2), (192, 6), (384, 3)])
def test_untrained_networks_are_healthy(norm, width, depth):
    encoder = ViT(ViTConfig(width=width, depth=depth, heads=2, norm=norm))
    health = Health(encoder, clips(8), every=1, last=3)
    for step in (1, 2, 3):
        assert health(at(step))["patch_rank"] > 0.1 * width
