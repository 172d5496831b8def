from __future__ import annotations

from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.decoders import DecoderConfig
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.recipes.base import Recipe


def eat_large() -> Recipe:
    """EAT large as its authors' configuration has it: 303 M parameters, 400,000 updates of 48 ten-second clips.

        torchrun --nproc-per-node 4 -m otic.apps.cli pretrain eat_large --data audioset.csv --out runs/eat_large

    Compute: not reported; about 3.5 times the base run's operations for an update.
    Score: not in the paper; its checkpoint (20 epochs) came later.
    """
    return Recipe(
        name="eat_large",
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
