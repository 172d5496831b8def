"""EAT (arXiv 2401.03497): its published base and large runs, and smaller ones of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.decoders import DecoderConfig
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.recipes.base import RECIPES, Recipe, lengthen, small, tiny


@RECIPES.add
def eat_base() -> Recipe:
    """EAT base as published (arXiv 2401.03497): 85 M parameters, 400,000 updates of 48 ten-second clips.

        torchrun --nproc-per-node 4 -m otic.apps.cli pretrain eat_base --data audioset.csv --out runs/eat_base

    Compute: four RTX 3090 for about 58 hours (as reported; ten epochs of the 1.9 M clips of AudioSet).
    Score: the paper reports 48.6 mAP on AudioSet-2M, 40.2 on AudioSet-20K and 95.9 % on ESC-50, all fine-tuned.
    """
    return Recipe(
        name="eat_base",
        method="eat",
        objective=EATConfig(),
        encoder=ViTConfig(),
        train=TrainConfig(adam="fairseq", log_every=10, save_minutes=15.0),
        inference=Options(window=10.0),
    )


@RECIPES.add
def eat_large() -> Recipe:
    """EAT large as its authors' configuration has it: 303 M parameters, 400,000 updates of 48 ten-second clips.

        torchrun --nproc-per-node 4 -m otic.apps.cli pretrain eat_large --data audioset.csv --out runs/eat_large

    Compute: not reported; about 3.5 times the base run's operations for an update.
    Score: not in the paper; its checkpoint (20 epochs) came later.
    """
    return Recipe(
        name="eat_large",
        method="eat",
        objective=EATConfig(
            keep=1 - 0.75,
            adjust=0.1,
            ema=Ramp(0.9998, 0.99999, steps=150_000),
            decoder=DecoderConfig(layers=3, kernel=5),
        ),
        encoder=ViTConfig(width=1024, depth=24, heads=16),
        train=TrainConfig(adam="fairseq", lr=4e-4, log_every=10, save_minutes=15.0),
        inference=Options(window=10.0),
    )


@RECIPES.add
def eat_small() -> Recipe:
    """EAT at a quarter of the base width's cost, for one GPU and some tens of thousands of clips; ours, not published.

        otic pretrain eat_small --data sounds/ --out runs/eat_small

    Compute: not measured yet. Score: not measured yet.
    """
    return small("eat_small", "eat", EATConfig(block=4, ema=Ramp(0.999, 0.99999, steps=25_000)), norm="post")


@RECIPES.add
def eat_tiny() -> Recipe:
    """EAT for a laptop: 2.7 M parameters, two-second crops, an hour on two cores; ours, not published.

    otic pretrain eat_tiny --data sounds/ --out runs/tiny --minutes 60

    Mostly reconstruction of hidden patches (`reconstruction=1`), with the EAT terms at a tenth of a mean squared error
    (`loss_scale=0.1`): in so few updates self-distillation alone learns less. After an hour and 3.8 h of sound a linear
    probe reads 88.0 % on ESC-10 (untrained 74.2, log-mel statistics 82.5), kNN 85.5 (65.8, 75.8); more in docs/log.md.
    """
    objective = EATConfig(
        block=3,
        clones=4,
        utterance_weight=1.0,
        loss_scale=0.1,
        reconstruction=1.0,
        ema=Ramp(0.99, 0.9999, steps=10_000),
        decoder=DecoderConfig(dim=128, layers=3, groups=8),
    )
    return tiny("eat_tiny", "eat", objective)


@RECIPES.add
def eat_demo() -> Recipe:
    """`eat_tiny` for a few minutes on two cores: what `otic demo` trains on the sounds that it renders itself.

    otic pretrain eat_demo --data "synth:corpus?clips=2000" --out runs/demo --minutes 4
    """
    return replace(lengthen(eat_tiny(), 400), name="eat_demo")
