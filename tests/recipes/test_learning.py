"""Every tiny recipe does its job in seconds: loss falls, probe rises, a stopped run ends like an unbroken one."""

import os

import numpy as np
import pytest
import torch

import otic
from otic.core.machine import cores
from otic.engine import checkpoint
from otic.recipes import RECIPES

TINY = sorted(name for name in RECIPES if name.endswith("_tiny"))
STEPS = {"ssast_patch_tiny": 250, "ssast_frame_tiny": 200}  # 100 for all others; SSAST wants more, and clips to tell
MORE = {  # a step of Audio-MAE costs a quarter of the others'; the other two learn little from sixteen clips at once
    "audiomae_tiny": ["batch_size=64"],
    "m2d_tiny": ["batch_size=32"],
    "supmam_tiny": ["batch_size=32"],
}
# Whole frames with random weights, read by mean and deviation over time, tell these sounds apart as well as trained
# ones; by the mean alone, as the paper reads them, they do not.
READ = {"ssast_frame_tiny": {"layers": [(5,)], "pools": ("mean",)}}
# What a minute does not show: a language model learns its words before it listens; CLAP's encoder stays as it is. Their
# loss must fall.
LATE = {"caption_tiny", "clap_tiny"}


class Stop(Exception):
    """What ends a run in the middle of a step's hooks."""


def stop_at(step):
    def hook(event):
        if event.state.step == step:
            raise Stop

    return hook


LIFTS = [pytest.param(name, marks=[pytest.mark.slow] if name in STEPS else []) for name in TINY if name not in LATE]


@pytest.fixture
def my_cores():
    """This process's share of the machine: all of it where no other tests run beside."""
    torch.set_num_threads(max(1, cores() // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))))
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("my_cores")
@pytest.mark.parametrize("name", LIFTS)
def test_the_loss_falls_and_the_probe_rises(name, tmp_path):
    run = learn(name, STEPS.get(name, 100), tmp_path)
    others = f"synth:corpus?clips={1400 if name in STEPS else 400}&seed=1"  # of the same kinds
    results = otic.evaluate({"pretrained": run.folder}, others, protocols=["linear"], **READ.get(name, {}))
    data = results.rows[0].data
    scores = {model: results.value(model, data, "linear") for model in ("pretrained", "untrained")}
    assert scores["pretrained"] > scores["untrained"] + 0.02, scores


@pytest.mark.parametrize("name", sorted({*LATE, *STEPS}))
def test_the_loss_falls(name, tmp_path):
    learn(name, 40, tmp_path)


def learn(name, steps, folder):
    run = otic.pretrain(
        name, "synth:corpus?clips=300", out=folder / name, steps=steps, settings=MORE.get(name, ()), quiet=True
    )
    losses = np.array([line["loss"] for line in run.log()])
    assert losses[-10:].mean() < 0.97 * losses[:10].mean()
    return run


@pytest.mark.parametrize("name", TINY)
def test_a_stopped_run_ends_like_an_unbroken_one(name, tmp_path):
    def go(folder, hooks=()):
        settings = ["batch_size=4", "train.save_every=2"]
        otic.pretrain(name, "synth:corpus?clips=8", out=folder, steps=4, settings=settings, hooks=hooks, quiet=True)
        return checkpoint.load(folder)

    whole = go(tmp_path / "whole")
    with pytest.raises(Stop):
        go(tmp_path / "broken", [stop_at(3)])
    assert checkpoint.load(tmp_path / "broken")["step"] == 2
    again = go(tmp_path / "broken")
    assert again["step"] == whole["step"] == 4
    for kind in ("objective", "optimizer"):
        same(whole[kind], again[kind], kind)


def same(a, b, where):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            same(x, y, f"{where}.{i}")
    else:
        assert a == b, where
