from __future__ import annotations

from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.recipes.base import Recipe


def eat_base() -> Recipe:
    """EAT base as published (arXiv 2401.03497): 85 M parameters, 400,000 updates of 48 ten-second clips.

        torchrun --nproc-per-node 4 -m otic.apps.cli pretrain eat_base --data audioset.csv --out runs/eat_base

    Compute: four RTX 3090 for about 58 hours (as reported; ten epochs of the 1.9 M clips of AudioSet).
    Score: the paper reports 48.6 mAP on AudioSet-2M, 40.2 on AudioSet-20K and 95.9 % on ESC-50, all fine-tuned.
    """
    return Recipe(
        name="eat_base",
        objective=EATConfig(),
        encoder=ViTConfig(),
        train=TrainConfig(adam="fairseq", log_every=10, save_minutes=15.0),
        inference=Options(window=10.0),
    )
