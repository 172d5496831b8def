"""Answering in words: Pengi's settings (arXiv 2305.11834) around MS-CLAP's audio tower, and smaller runs of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.audio.frontend import htsat
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.captioner import CaptionerConfig
from otic.models.htsat import HTSATConfig
from otic.models.mapper import MapperConfig
from otic.models.text_block import TextConfig
from otic.objectives.caption import CaptionConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny

PAIRS = 3_400_000  # of audio and text, from Pengi's 8 prompts


@RECIPES.add
def caption_base() -> Recipe:
    """Pengi with its prompts read by the language model itself, as in its published variant without a text encoder.

        otic pretrain caption_base --data tasks.yaml --out runs/caption --set objective.language=gpt2/

    `gpt2/` holds GPT-2's published weights and vocabulary; the language model stays as it is. 60 epochs of 3.4 M pairs
    in batches of 384 (paper); the warm-up and the learning rate are the paper's as we read it, for its published
    configuration has none.

    Compute: the paper's took 20 V100. Score: not reproduced; there is no list of the pairs.
    """
    net = CaptionerConfig()
    return Recipe(
        name="caption_base",
        method="caption",
        objective=CaptionConfig(captioner=net, freeze_text=True),
        encoder=HTSATConfig(classes=0),
        frontend=htsat(),
        crop_seconds=7.0,
        short="repeat",
        frames=0,
        batch_size=384,
        train=TrainConfig(
            steps=60 * PAIRS // 384, warmup=2000, lr=1e-4, betas=(0.9, 0.999), weight_decay=0.0, clip=0.0,
            log_every=10, save_minutes=15.0,
        ),
        inference=Options(window=7.0, short="repeat"),
    )  # fmt: skip


@RECIPES.add
def caption_small() -> Recipe:
    """Many tasks in words for one GPU: a language model of 12 M parameters learns from nothing; ours, not published.

        otic pretrain caption_small --data tasks.yaml --out runs/caption --init runs/eat_small

    Compute: not measured yet. Score: not measured yet.
    """
    net = CaptionerConfig(
        text=TextConfig(vocab=0, positions=192, width=384, depth=6, heads=6),
        mapper=MapperConfig(prefix=16, depth=4, heads=6),
        pool="series",
    )
    recipe = small("caption_small", "caption", CaptionConfig(captioner=net, vocabulary=8192))
    return replace(recipe, crop_seconds=10.255, frames=1024, adopt=True)  # 64 x 8 patches


@RECIPES.add
def caption_tiny() -> Recipe:
    """Many tasks in words for a laptop: all is learned from nothing, the language model too; ours, not published.

        otic pretrain caption_tiny --data tasks.yaml --out runs/caption --minutes 60 --init runs/tiny

    Five-second crops, since what is said of a clip is mostly said of all of it; shorter clips are heard as they are.
    The language model learns its words first; a higher learning rate would spoil the encoder meanwhile.
    """
    net = CaptionerConfig(
        text=TextConfig(vocab=0, positions=168, width=192, depth=3, heads=3),
        mapper=MapperConfig(prefix=8, depth=2, heads=3, unfold=8),
        pool="series",
    )
    recipe = tiny("caption_tiny", "caption", CaptionConfig(captioner=net, vocabulary=1024))
    train = replace(recipe.train, lr=5e-4)
    # 512 frames: 32 x 8 patches
    return replace(recipe, crop_seconds=5.135, frames=512, crops_per="clip", short="pad", train=train, adopt=True)
