"""CLAP: MS-CLAP 2023 as its paper describes it (arXiv 2309.05767), and smaller runs of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.engine.config import TrainConfig
from otic.models.text import TextConfig
from otic.models.two_tower import ReaderConfig, TwoTowerConfig
from otic.objectives.clap import CLAPConfig
from otic.recipes.base import RECIPES, Recipe, small, tiny

SMALL_TEXT = TextConfig(vocab=0, positions=77, width=192, depth=3, heads=3, pool="mean")


@RECIPES.add
def clap_small() -> Recipe:
    """Sound and words for one GPU: any encoder of ours, a text tower of 11 M parameters from scratch; ours.

        otic pretrain clap_small --init runs/eat_small --data captioned/ --out runs/words

    Compute: not measured yet. Score: not measured yet.
    """
    text = TextConfig(vocab=0, positions=77, width=384, depth=6, heads=6, pool="mean")
    reader = ReaderConfig(width=384, depth=2, heads=6)
    towers = TwoTowerConfig(text=text, dim=512, dropout=0.1, pool="series", reader=reader)
    recipe = small("clap_small", "clap", CLAPConfig(towers=towers, vocabulary=8192))
    train = TrainConfig(steps=20_000, warmup=1000, lr=3e-4, decay="intended", weight_decay=0.1, clip=1.0, log_every=10)
    return replace(recipe, crop_seconds=10.0, frames=0, batch_size=256, train=train, adopt=True)


@RECIPES.add
def clap_tiny() -> Recipe:
    """Sound and words for a laptop: an encoder of ours stays as it is, all else is learned in minutes; ours.

        otic pretrain clap_tiny --init runs/tiny --data ../shared/data/esc10_scenes --where split=train --out runs/words

    The encoder is heard once for each clip; a small transformer reads its frames in order, and a decoder-only text
    tower with its byte-level BPE is trained from nothing on the captions alone.
    """
    towers = TwoTowerConfig(text=SMALL_TEXT, dim=256, dropout=0.1, pool="series")
    recipe = tiny("clap_tiny", "clap", CLAPConfig(towers=towers, vocabulary=1024, freeze_audio=True, remember=True))
    train = TrainConfig(steps=2000, warmup=100, lr=1e-3, clip=1.0, decay="intended", weight_decay=0.1, save_minutes=2.0)
    return replace(
        recipe, crop_seconds=10.0, crops_per="clip", short="pad", frames=0, batch_size=64, train=train, adopt=True
    )
