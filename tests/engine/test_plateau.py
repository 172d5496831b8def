"""A learning rate cut where learning rests: the rule, what is measured for it, and going on in the middle of it."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_objective import Toy, fill, same, toy_batch, toy_batches, weights

from otic.core.errors import ConfigError
from otic.engine.check import Check
from otic.engine.config import TrainConfig
from otic.engine.loop import State, train
from otic.engine.optim import make_optimizer
from otic.engine.plateau import PlateauConfig, Rest, judged
from otic.recipes import RECIPES, lengthen

OFTEN = PlateauConfig(every=2, patience=1, factor=0.5)
CFG = TrainConfig(steps=24, warmup=6, stair=2, lr=0.05, clip=0.5, schedule="plateau", plateau=OFTEN)
BATCH = 8


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(st.integers(1, 60), max_size=40),
    patience=st.integers(0, 3),
    threshold=st.sampled_from([0.0, 1e-4, 0.07]),
    higher=st.booleans(),
)
def test_the_rule_is_pytorchs(values, patience, threshold, higher):
    better = "higher" if higher else "lower"
    cfg = PlateauConfig(better=better, patience=patience, factor=0.5, threshold=threshold)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, "max" if higher else "min", 0.5, patience, threshold, eps=0.0
    )
    rest = Rest()
    for value in values:
        rest = judged(rest, value / 8, cfg)
        reference.step(value / 8)
        assert rest.share == optimizer.param_groups[0]["lr"]


def test_it_acts_at_the_third_check_in_a_row():
    cfg, shares, rest = RECIPES["ssast_patch_base"]().train.plateau, [], Rest()
    for accuracy in (0.1, 0.2, 0.2, 0.2, 0.19, 0.2, 0.2, 0.2, 0.21, 0.2, 0.2):
        rest = judged(rest, accuracy, cfg)
        shares.append(rest.share)
    assert shares == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25]


def test_values_below_zero_and_not_finite():
    lower = replace(OFTEN, threshold=0.1)
    assert judged(Rest(best=-1.0), -1.05, lower).best == -1.0 and judged(Rest(best=-1.0), -1.2, lower).best == -1.2
    rest = judged(Rest(), math.nan, OFTEN)
    assert rest == Rest(endured=1) and judged(rest, 3.0, OFTEN) == Rest(best=3.0)
    assert judged(Rest(best=3.0, endured=1), math.nan, OFTEN) == Rest(0.5, 3.0, 0)


@pytest.mark.parametrize("name", ["ssast_patch_base", "ssast_frame_base"])
def test_warm_up_is_the_published_staircase(name):
    """Upstream sets the rate at steps 0, 50, ... 1000 and leaves it alone in between."""
    train, rate = RECIPES[name]().train, None
    for step in range(1200):
        if step <= 1000 and step % 50 == 0:
            rate = step / 1000 * 1e-4
        assert train.rate(step) == pytest.approx(rate, rel=1e-12), step
    assert {train.rate(step) for step in (1000, 4001, train.steps - 1)} == {1e-4}
    assert (train.schedule, train.plateau.watch, train.plateau.better) == ("plateau", "accuracy", "higher")
    assert (train.plateau.every, train.plateau.factor, train.plateau.threshold) == (4000, 0.5, 1e-4)


def test_a_shorter_run_looks_more_often_but_not_all_the_time():
    recipe = RECIPES["ssast_patch_base"]()
    half, short = lengthen(recipe, 450_000), lengthen(recipe, 9000)
    assert (half.train.plateau.every, half.train.warmup, half.train.stair) == (2000, 500, 25)
    assert (short.train.warmup, short.train.stair) == (10, 1)
    checked = 512 / 3  # clips forward, in clips forward and backward
    assert 0.04 < checked / (short.train.plateau.every * recipe.batch_size) <= 0.05
    assert replace(lengthen(recipe, recipe.train.steps)) == recipe
    assert lengthen(recipe, 1_800_000).train.plateau.every == 8000


def held(count=3):
    return lambda: (toy_batch(1000 + k, BATCH) for k in range(count))


def run(cfg=CFG, until=None, toy=None, optimizer=None, state=None):
    """The toy with its check, in one sitting; and the learning rate of each step, and what was measured."""
    toy, state, lrs, found = toy or Toy(), state or State(), [], {}
    optimizer = optimizer or make_optimizer(toy, cfg)
    check = Check(toy, fill, held(), cfg, seed=5)

    def note(event):
        lrs.append(event.lr)
        if check.found:
            found[event.state.step] = check.found

    batches = itertools.islice(toy_batches(state.step), None if until is None else until - state.step)
    train(toy, fill, batches, optimizer, cfg, hooks=(check, note), state=state, seed=5)
    return toy, optimizer, state, lrs, found


def test_the_rate_is_the_staircase_times_what_the_cuts_left():
    """Written again as a plain loop over what the log has."""
    cfg = replace(CFG, lr=3.0, clip=0.0)  # too high a rate: the loss rises
    _, _, state, lrs, found = run(cfg)
    assert sorted(found) == list(range(2, 25, 2))
    share, best, bad, wanted = 1.0, math.inf, 0, []
    for step in range(cfg.steps):
        wanted.append(3.0 * min(1.0, step // 2 * 2 / 6) * share)
        if (value := found.get(step + 1)) is None:
            continue
        if value["held_out_loss"] < best * (1 - 1e-4):
            best, bad = value["held_out_loss"], 0
        else:
            bad += 1
        if bad > 1:
            share, bad = share / 2, 0
    assert lrs == pytest.approx(wanted) and state.rest == (share, best, bad) and share < 1


@pytest.mark.parametrize("cut", [1, 3, 6, 7, 20])
def test_a_run_in_two_sittings_equals_one(cut):
    cfg = replace(CFG, lr=3.0)
    whole, _, end, lrs, found = run(cfg)
    assert end.rest.share < 1
    toy, optimizer, state, first, seen = run(cfg, until=cut)
    again = Toy(seed=9)
    again.load_state_dict(toy.state_dict())
    fresh = make_optimizer(again, cfg)
    fresh.load_state_dict(optimizer.state_dict())
    saved = State(state.step, state.clips, state.seconds, Rest(*list(state.rest)))
    again, _, last, second, seen_again = run(cfg, toy=again, optimizer=fresh, state=saved)
    assert same(weights(again), weights(whole)) and last.rest == end.rest
    assert first + second == lrs and seen | seen_again == found


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("watch", ["loss", "error"])
def test_it_measures_the_mean_and_touches_nothing(watch, accumulate):
    toy = Toy()
    before, cfg = weights(toy), replace(CFG, accumulate=accumulate, plateau=replace(OFTEN, watch=watch))
    check = Check(toy.train(), fill, held(), cfg)
    with torch.no_grad():
        wanted = [toy(fill(batch), torch.Generator()).total.item() for batch in held()()]
    assert check.measure() == pytest.approx(sum(wanted) / 3, rel=1e-6) and check.measure() == check.measure()
    assert same(weights(toy), before) and toy.training and all(p.grad is None for p in toy.parameters())


def test_draws_are_the_same_at_each_check():
    toy = Toy()
    check = Check(toy, fill, held(), CFG, seed=3)
    check.measure()
    first = toy.drawn[:]
    check.measure()
    assert toy.drawn == first * 2 and len(set(first)) == 3


def test_a_part_that_is_not_there_is_told_at_once():
    with pytest.raises(ConfigError, match=r"train\.plateau\.watch=accuracy: .* Known: loss, error"):
        run(replace(CFG, plateau=replace(OFTEN, watch="accuracy")))


@pytest.mark.parametrize("field", ["every=0", "patience=-1", "factor=1.0", "factor=0.0", "threshold=-1.0", "clips=0"])
def test_settings_out_of_range_are_refused(field):
    name, _, value = field.partition("=")
    with pytest.raises(ConfigError, match=f"train.plateau.{name}"):
        PlateauConfig(**{name: type(getattr(OFTEN, name))(float(value))})
