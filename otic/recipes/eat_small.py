from __future__ import annotations

from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.recipes.base import Recipe


def eat_small() -> Recipe:
    """EAT at a quarter of the base width's cost, for one GPU and some tens of thousands of clips; ours, not published.

        otic pretrain eat_small --data sounds/ --out runs/eat_small

    Compute: not measured yet. Score: not measured yet.
    """
    return Recipe(
        name="eat_small",
        objective=EATConfig(block=4, ema=Ramp(0.999, 0.99999, steps=25_000)),
        encoder=ViTConfig(width=384, depth=12, heads=6),
        measure_statistics=True,
        crop_seconds=5.135,  # 512 frames
        frames=512,
        batch_size=96,
        train=TrainConfig(steps=100_000, warmup=10_000, lr=1e-3, decay="intended", log_every=10),
        inference=Options(window=10.0),
    )
