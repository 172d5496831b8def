"""Killed at any moment, the same command goes on, and ends with the weights of the unbroken run, bit for bit."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from forks import fork
from nano_run import nano, run
from safetensors.torch import load_file

from otic.engine.checkpoint import read
from otic.engine.log import read_log

SCRIPT = Path(__file__).with_name("nano_run.py")
STEPS = 20


def sit(out, at, later):
    """One sitting of a run: `later` seconds after step `at`, or its own first one, it is killed."""

    def die(event):
        if event.state.step >= at:
            threading.Timer(later, os.kill, (os.getpid(), signal.SIGKILL)).start()
        time.sleep(0.02)

    run(out, STEPS, hooks=(die,))


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    out = tmp_path_factory.mktemp("unbroken")
    run(out, STEPS)
    return out


def assert_equal(out, unbroken):
    mine, wanted = load_file(out / "model.safetensors"), load_file(unbroken / "model.safetensors")
    assert mine.keys() == wanted.keys() and mine
    assert all((mine[k] == wanted[k]).all() for k in mine)
    a, b = read(out / "checkpoint.pt"), read(unbroken / "checkpoint.pt")
    assert a["step"] == b["step"] == STEPS and a["clips"] == b["clips"]
    torch.testing.assert_close(a["objective"], b["objective"], rtol=0, atol=0)
    torch.testing.assert_close(a["optimizer"], b["optimizer"], rtol=0, atol=0)
    losses = [[(line["step"], line["loss"]) for line in read_log(folder / "log.jsonl")] for folder in (out, unbroken)]
    assert losses[0] == losses[1]
    assert not list(out.glob("*.part")) and not list(out.glob(".*"))


@pytest.mark.parametrize("seed", [0, *(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2, 3))])
def test_killed_again_and_again(tmp_path, unbroken, seed):
    """SIGKILL at random moments (in a step, in a save, between), in two sittings, then to the end."""
    dice = random.Random(seed)
    for step in sorted(dice.sample(range(2, STEPS - 2), 2)):
        process = fork(sit, tmp_path, step, dice.random() * 0.06)
        process.join(120)
        assert process.exitcode == -signal.SIGKILL
    run(tmp_path, STEPS)
    assert_equal(tmp_path, unbroken)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_interrupted_saves_and_says_how_to_go_on(tmp_path, unbroken, number):
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, SCRIPT, tmp_path, str(STEPS), "0.1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    assert any(line.strip() == "4" for line in process.stdout)
    process.send_signal(number)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == 130
    step = read(tmp_path / "checkpoint.pt")["step"]
    assert 4 <= step <= 6
    assert f"stopped at step {step} of {STEPS}, state saved. To go on: otic pretrain nano --data 'synth:" in said
    assert f"--out {tmp_path} --steps {STEPS}" in said
    run(tmp_path, STEPS)
    assert_equal(tmp_path, unbroken)


def crash(out, at, **options):
    def fail(event):
        if event.state.step == at:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(out, STEPS, hooks=(fail,), **options)


def test_a_damaged_checkpoint_goes_on_from_the_one_before(tmp_path, unbroken):
    crash(tmp_path, 10)
    path = tmp_path / "checkpoint.pt"
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 255
    path.write_bytes(raw)
    with pytest.warns(match="damaged"):
        run(tmp_path, STEPS)
    (tmp_path / "checkpoint.damaged.pt").unlink()
    assert_equal(tmp_path, unbroken)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "bf16", "threads": 3},
        {"settings": ["train.accumulate=2", "encoder.drop_path=0.5", "train.adam=fairseq"], "cache_gb": 0.0},
    ],
)
def test_any_way_of_training_goes_on_exactly(tmp_path, options):
    run(tmp_path / "whole", STEPS, **options)
    for at in (1, 11):
        crash(tmp_path / "broken", at, **options)
    run(tmp_path / "broken", STEPS, **options)
    assert_equal(tmp_path / "broken", tmp_path / "whole")


def test_the_run_is_what_the_recipe_says(unbroken):
    log = read_log(unbroken / "log.jsonl")
    schedule = nano().train.rate
    assert [line["step"] for line in log] == list(range(1, STEPS + 1))
    assert [line["lr"] for line in log] == pytest.approx([schedule(step) for step in range(STEPS)], rel=1e-4)
