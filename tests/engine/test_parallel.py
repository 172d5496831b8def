"""Two real processes do what one does on the same batches."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy_objective import Toy, fill, same, toy_batches

from otic.engine.config import TrainConfig
from otic.engine.loop import train
from otic.engine.optim import make_optimizer

SCRIPT = Path(__file__).with_name("ddp_run.py")


@pytest.mark.parametrize("accumulate", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_two_processes_equal_one(tmp_path, accumulate):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, SCRIPT, tmp_path, str(accumulate)], env=env, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))

    cfg, toy, losses = TrainConfig(steps=8, warmup=2, lr=0.05, clip=0.5), Toy(), []
    train(toy, fill, toy_batches(), make_optimizer(toy, cfg), cfg, hooks=(lambda e: losses.append(e.loss),))

    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(losses, rel=1e-5)
    assert same(first["toy"], second["toy"])
    for name, tensor in toy.state_dict().items():
        torch.testing.assert_close(first["toy"][name], tensor, rtol=1e-5, atol=1e-6)
    # then one of them met a NaN, and both stopped and named the clip
    assert "step 3" in first["message"] and "step 3" in second["message"]
    assert "not finite: clip52-5." in first["message"] and "not finite: clip52-5." in second["message"]
