from __future__ import annotations

from otic.core.ramps import Ramp
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.decoders import DecoderConfig
from otic.models.vit import ViTConfig
from otic.objectives.eat import EATConfig
from otic.recipes.base import Recipe


def eat_tiny() -> Recipe:
    """EAT for a laptop: 2.7 M parameters, two-second crops, an hour on two cores; ours, not published.

    otic pretrain eat_tiny --data sounds/ --out runs/tiny --minutes 60

    Mostly reconstruction of hidden patches (`reconstruction=1`), with the EAT terms at a tenth of a mean squared error
    (`loss_scale=0.1`): in so few updates self-distillation alone learns less. After 45 minutes on one core and 3.8 h of
    sound a linear probe reads 88.0 % on ESC-10 (untrained 74.2, log-mel statistics 82.5); all numbers in docs/log.md.
    """
    return Recipe(
        name="eat_tiny",
        objective=EATConfig(
            block=3,
            clones=4,
            utterance_weight=1.0,
            loss_scale=0.1,
            reconstruction=1.0,
            ema=Ramp(0.99, 0.9999, steps=10_000),
            decoder=DecoderConfig(dim=128, layers=3, groups=8),
        ),
        encoder=ViTConfig(width=192, depth=6, heads=3, norm="pre"),
        measure_statistics=True,
        crop_seconds=2.095,  # 208 frames: 13 x 8 patches
        short="repeat",
        crops_per="duration",
        frames=208,
        batch_size=16,
        train=TrainConfig(steps=10_000, warmup=1000, lr=1.5e-3, clip=1.0, decay="intended", save_minutes=2.0),
        inference=Options(window=10.0, layers=(1, 3, 5), pool="mean_std"),
    )
