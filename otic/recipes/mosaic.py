"""AudioMosaic (arXiv 2605.14231): its published base run, and smaller ones of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.vit import ViTConfig
from otic.objectives.mosaic import MosaicConfig
from otic.objectives.perturb import PerturbConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny


@RECIPES.add
def mosaic_base() -> Recipe:
    """AudioMosaic as its authors' configuration has it: ViT-B, 400 epochs of ten-second clips, 512 on each device.

        torchrun --nproc-per-node 8 -m otic.apps.cli pretrain mosaic_base --data audioset.csv --out runs/mosaic_base

    The number of devices was not found; here it is eight: 186,000 updates of 4096 of 1.9 M clips, one epoch of warm-up.
    Published positions begin as sin-cos codes, ours at random, and its encoder has one more norm before the blocks.
    Compute: not found.
    Score: the authors' repository gives 50.19 mAP on AudioSet-2M, 42.53 on AudioSet-20K, 97.45 % on ESC-50 and 98.34 on
    Speech Commands V2, fine-tuned, and 29.40 mAP for a linear probe on AudioSet-20K.
    """
    return Recipe(
        name="mosaic_base",
        method="mosaic",
        objective=MosaicConfig(),
        encoder=ViTConfig(norm="pre", final_norm=False, positions="learned", table=(64, 8), drop_path=0.1),
        batch_size=4096,
        train=TrainConfig(
            steps=186_000,
            warmup=464,
            lr=6e-4,
            floor=1e-6,
            betas=(0.9, 0.999),
            decay="intended",
            clip=0.0,
            log_every=10,
            save_minutes=15.0,
        ),
        inference=Options(window=10.0),
    )


@RECIPES.add
def mosaic_small() -> Recipe:
    """AudioMosaic at a quarter of the base width's cost, for one GPU; ours, not published.

        otic pretrain mosaic_small --data sounds/ --out runs/mosaic_small

    A larger batch is more negatives: `--set batch_size=512` where memory allows.
    Compute: not measured yet. Score: not measured yet.
    """
    return small("mosaic_small", "mosaic", MosaicConfig())


@RECIPES.add
def mosaic_tiny() -> Recipe:
    """AudioMosaic for a laptop: 2.7 M parameters, two-second crops; ours, not published.

        otic pretrain mosaic_tiny --data sounds/ --out runs/mosaic_tiny --minutes 60

    Sixteen clips, as all tiny recipes have, are few for a contrast, so the views differ less than published: no noise,
    no rolling, less stretch and pitch, and a softer temperature. But each differs in level by up to 20 dB, since level
    alone tells sixteen clips apart all too well: with this the probe rises. At the frame's learning rate a long run
    collapses; a third of it does not. Compute and score: docs/bakeoff.md.
    """
    gentle = PerturbConfig(noise_chance=0.0, roll=False, stretch=0.1, pitch=3.0, gain=0.5)
    recipe = tiny("mosaic_tiny", "mosaic", MosaicConfig(temperature=0.2, perturb=gentle))
    return replace(recipe, train=replace(recipe.train, lr=5e-4))
