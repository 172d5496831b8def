"""SSLAM (arXiv 2506.12222): its published second stage, and smaller runs of ours."""

from __future__ import annotations

from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.decoders import DecoderConfig
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.objectives.sslam import SSLAMConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny


@RECIPES.add
def sslam_base() -> Recipe:
    """SSLAM's second stage as its authors' script runs it: EAT base goes on for 200,000 updates of 48 clips.

        torchrun --nproc-per-node 4 -m otic.apps.cli pretrain sslam_base --init runs/eat_base \\
            --data audioset.csv --out runs/sslam_base

    `--init` names the first stage's run, EAT's of ten epochs: student, teacher and decoder go on from there, as in
    published runs. From a bare weights file the encoder alone does, and the decoder begins anew.
    Compute: four GPUs of 24 GB; hours not found.
    Score: the abstract reports 50.2 mAP on AudioSet-2M, fine-tuned, and up to 9.1 % more on polyphonic sets.
    """
    return Recipe(
        name="sslam_base",
        method="sslam",
        objective=SSLAMConfig(),
        encoder=ViTConfig(),
        init="objective",
        train=TrainConfig(steps=200_000, warmup=25_000, lr=5e-5, adam="fairseq", log_every=10, save_minutes=15.0),
        inference=Options(window=10.0),
    )


@RECIPES.add
def sslam_small() -> Recipe:
    """SSLAM from scratch at a quarter of the base width's cost, for one GPU; ours, not published.

        otic pretrain sslam_small --data sounds/ --out runs/sslam_small

    Compute: not measured yet. Score: not measured yet.
    """
    eat = EATConfig(clones=8, block=4, ema=Ramp(0.999, 0.99999, steps=25_000))
    return small("sslam_small", "sslam", SSLAMConfig(eat=eat), norm="post")


@RECIPES.add
def sslam_tiny() -> Recipe:
    """SSLAM for a laptop: `eat_tiny` with mixtures, from scratch; ours, not published.

        otic pretrain sslam_tiny --data sounds/ --out runs/sslam_tiny --minutes 60

    Half of `eat_tiny`'s clones of a clip, and as many of its mixture. Score: docs/bakeoff.md.
    """
    eat = EATConfig(
        block=3,
        clones=2,
        utterance_weight=1.0,
        loss_scale=0.1,
        reconstruction=1.0,
        ema=Ramp(0.99, 0.9999, steps=10_000),
        decoder=DecoderConfig(dim=128, layers=3, groups=8),
    )
    return tiny("sslam_tiny", "sslam", SSLAMConfig(eat=eat))
