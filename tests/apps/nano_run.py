"""The smallest run of the real thing (EAT on rendered sounds), in process and as a script to be killed."""

import sys
import time

import torch

from otic.apps.pretrain import Interrupted, pretrain
from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.decoders import DecoderConfig
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.recipes import Recipe

DATA = "synth:corpus?clips=16&seed=0"


def nano(**changes) -> Recipe:
    """0.3-second crops, one block of width 32."""
    settings = {
        "name": "nano",
        "method": "eat",
        "objective": EATConfig(
            block=2, clones=2, ema=Ramp(0.9, 0.99, steps=20), decoder=DecoderConfig(layers=1, groups=4)
        ),
        "encoder": ViTConfig(width=32, depth=1, heads=2),
        "measure_statistics": True,
        "crop_seconds": 0.335,
        "frames": 32,
        "batch_size": 4,
        "train": TrainConfig(steps=20, warmup=4, lr=1e-3, save_every=3),
        "inference": Options(window=1.0, pool="mean_std"),
    }
    return Recipe(**(settings | changes))


def run(out, steps=None, **options):
    options = {"quiet": True, "precision": "fp32", "threads": 1, "device": "cpu"} | options
    return pretrain(nano(), DATA, out=out, steps=steps, **options)


def main() -> int:
    """`nano_run.py OUT STEPS SLEEP`: say each step on stdout, and take some time over it."""
    torch.set_num_threads(1)
    out, steps, sleep = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

    def slow(event):
        print(event.state.step, flush=True)
        time.sleep(sleep)

    try:
        run(out, steps, hooks=(slow,))
    except Interrupted as stop:
        print(stop, flush=True)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
