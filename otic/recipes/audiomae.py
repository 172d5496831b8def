"""Audio-MAE (arXiv 2207.06405): its published base run, and smaller ones of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.models.vit import ViTConfig
from otic.models.vit_decoder import DecoderShape
from otic.objectives.mae import MAEConfig
from otic.recipes.base import RECIPES, Recipe, audioset, small, tiny


@RECIPES.add
def audiomae_base() -> Recipe:
    """Audio-MAE base as published (arXiv 2207.06405, table 3): 85 M parameters, 32 epochs of AudioSet-2M.

        torchrun --nproc-per-node 8 -m otic.apps.cli pretrain audiomae_base --data audioset.csv --out runs/audiomae

    An epoch is taken as 2,000,000 clips, 3906 updates of 512; three epochs of warm-up. Positions are those of each
    patch's own time and frequency; the published weights have other ones (`positions="legacy"`). Levels change by up to
    6 dB as the paper says; its code multiplies waves by Beta(10, 10) + 0.5, which is about 2 dB. A crop begins anywhere
    in its clip and goes on at its beginning (`cyclic`), as the paper says too; its code means to, but never moves one.
    Compute: 64 V100 for about 36 hours (as reported).
    Score: the paper reports 47.3 mAP on AudioSet-2M, 37.0 on AudioSet-20K, 94.1 % on ESC-50, all fine-tuned.
    """
    return audioset("audiomae_base", "mae", MAEConfig(), 32, ViTConfig(norm="pre", init="xavier"))


@RECIPES.add
def audiomae_small() -> Recipe:
    """Audio-MAE with a ViT-S and a decoder of eight windowed blocks, for one GPU; ours, not published.

        otic pretrain audiomae_small --data sounds/ --out runs/audiomae_small

    Compute: not measured yet. Score: not measured yet.
    """
    decoder = DecoderShape(decoder="local", width=256, depth=8, heads=8)
    return small("audiomae_small", "mae", MAEConfig(decoder=decoder), init="xavier")


@RECIPES.add
def audiomae_tiny() -> Recipe:
    """Audio-MAE for a laptop: 2.7 M parameters, two-second crops, a decoder of two windowed blocks; ours.

        otic pretrain audiomae_tiny --data sounds/ --out runs/audiomae_tiny --minutes 60

    Compute and score: docs/bakeoff.md.
    """
    decoder = DecoderShape(decoder="local", width=128, depth=2, heads=4, bias_hidden=64)
    recipe = tiny("audiomae_tiny", "mae", MAEConfig(decoder=decoder), init="xavier")
    return replace(recipe, train=replace(recipe.train, lr=5e-4))
