"""M2D (arXiv 2210.14648): its published base run, and smaller ones of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.audio.frontend import FrontendConfig
from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.vit import ViTConfig
from otic.models.vit_decoder import DecoderShape
from otic.objectives.m2d import M2DConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny


@RECIPES.add
def m2d_base() -> Recipe:
    """M2D base as its authors' code has it: 85 M parameters, 300 epochs of six-second crops in batches of 2048.

        torchrun --nproc-per-node 4 -m otic.apps.cli pretrain m2d_base --data audioset.csv --out runs/m2d_base

    280,000 updates are 300 epochs of 1.9 M clips, 20 of them warm-up; the learning rate is 3e-4 for each 256 clips.
    Log-mel of 80 bands, 50 Hz to 8 kHz, from windows of 25 ms, standardised by the data's own statistics (ours have
    half the published spread: the front-end divides by two standard deviations).
    Compute: four GPUs with 512 clips each; hours not found.
    Score: the authors' repository gives linear probes of 89.8 % on ESC-50, 87.1 on UrbanSound8K, 94.5 on Speech
    Commands V2 (masking 70 %), and 89.7, 87.6, 95.4 for 60 % (`keep=0.4`).
    """
    return Recipe(
        name="m2d_base",
        method="m2d",
        objective=M2DConfig(),
        encoder=ViTConfig(mels=80, norm="pre", init="xavier"),
        frontend=FrontendConfig(
            kind="htsat",
            mel="slaney",
            mels=80,
            low=50.0,
            high=8000.0,
            window=400,
            fft=400,
            subtract_mean=False,
            pad="floor",
        ),
        measure_statistics=True,
        crop_seconds=6.07,
        frames=608,  # 38 x 5 patches
        batch_size=2048,
        train=TrainConfig(
            steps=280_000, warmup=18_667, lr=2.4e-3, decay="intended", clip=0.0, log_every=10, save_minutes=15.0
        ),
        inference=Options(window=6.07),
    )


@RECIPES.add
def m2d_small() -> Recipe:
    """M2D at a quarter of the base width's cost, for one GPU and some tens of thousands of clips; ours, not published.

        otic pretrain m2d_small --data sounds/ --out runs/m2d_small

    Compute: not measured yet. Score: not measured yet.
    """
    objective = M2DConfig(
        predictor=DecoderShape(width=256, depth=6, heads=8),
        teacher_start="copy",
        ema=Ramp(0.999, 0.99995, steps=100_000),
    )
    return small("m2d_small", "m2d", objective)


@RECIPES.add
def m2d_tiny() -> Recipe:
    """M2D for a laptop: 2.7 M parameters and a small predictor, two-second crops; ours, not published.

        otic pretrain m2d_tiny --data sounds/ --out runs/m2d_tiny --minutes 60

    In so few updates M2D alone learns little more than what all patches share, so its targets are standardised over
    the clip, and most of the loss is, as in `eat_tiny`, the reconstruction of hidden pixels. Four fifths are hidden and
    the predictor attends within windows, as in `audiomae_tiny`. A short run wants batches of 32. Score: docs/log.md.
    """
    objective = M2DConfig(
        keep=0.2,
        predictor=DecoderShape(decoder="local", width=128, depth=2, heads=4, bias_hidden=64),
        teacher_start="copy",
        standardise="channel",
        reconstruction=10.0,
        ema=Ramp(0.99, 0.9999, steps=10_000),
    )
    recipe = tiny("m2d_tiny", "m2d", objective, init="xavier")
    return replace(recipe, train=replace(recipe.train, lr=5e-4))
