"""A-JEPA (arXiv 2311.15830): the paper's base run as far as it is told, and smaller ones of ours."""

from __future__ import annotations

from dataclasses import replace

from otic.core.ramps import Ramp
from otic.masking.curriculum import Curriculum
from otic.models.predictor import PredictorConfig
from otic.models.vit import ViTConfig
from otic.objectives.jepa import JEPAConfig
from otic.recipes.base import EPOCH, RECIPES, Recipe, audioset, small, tiny


@RECIPES.add
def a_jepa_base() -> Recipe:
    """A-JEPA base (arXiv 2311.15830): 85 M parameters, 24 epochs of AudioSet-2M in batches of 512.

        torchrun --nproc-per-node 8 -m otic.apps.cli pretrain a_jepa_base --data audioset.csv --out runs/a_jepa

    Neither code nor weights are public. Told are data, epochs, batch, learning rate 2e-4, masks, predictor; open, and
    taken from Audio-MAE: that 2e-4 is meant for 256 clips, Adam, 3 epochs of warm-up, weight decay, normalisation; from
    I-JEPA: the teacher's decay, first weights. An epoch is taken as 2,000,000 clips. As the paper says, a crop begins
    anywhere in its clip and goes on at its beginning (`cyclic`), and levels change by up to 6 dB.
    Compute: not reported. Score: the paper reports 48.6 mAP on AudioSet-2M, 38.4 on AudioSet-20K and 96.3 % on ESC-50,
    all fine-tuned with regularised masking (48.1 without).
    """
    encoder = ViTConfig(norm="pre", cls=False, init="shrunk", patch_init="normal")
    return audioset("a_jepa_base", "jepa", jepa(24 * EPOCH, PredictorConfig()), 24, encoder, short="repeat")


@RECIPES.add
def a_jepa_small() -> Recipe:
    """A-JEPA with a ViT-S and a predictor of six blocks, for one GPU; ours, not published.

        otic pretrain a_jepa_small --data sounds/ --out runs/a_jepa_small

    Compute: not measured yet. Score: not measured yet.
    """
    objective = jepa(100_000, PredictorConfig(width=192, depth=6, heads=6))
    return small("a_jepa_small", "jepa", objective, cls=False, init="shrunk")


@RECIPES.add
def a_jepa_tiny() -> Recipe:
    """A-JEPA for a laptop: 2.7 M parameters, two-second crops of 13 x 8 patches; ours, not published.

        otic pretrain a_jepa_tiny --data sounds/ --out runs/a_jepa_tiny --minutes 60

    On so few patches the hard masks remove the targets' time steps, not their mel rows. As in `eat_tiny`, most of the
    loss is the pixels of hidden patches; targets are centred over the clip, else they shrink to one dimension within a
    hundred updates. Encoder and predictor begin with Xavier's weights. The teacher is quicker than the paper's, and the
    student is kept. A short run wants batches of 24; a long one half this rate. Score: docs/bakeoff.md.
    """
    objective = jepa(10_000, PredictorConfig(width=128, depth=2, heads=4, init="xavier"), decay=0.99)
    objective = replace(objective, centre="clip", reconstruction=10.0, export="student")
    recipe = tiny("a_jepa_tiny", "jepa", objective, cls=False, init="xavier")
    return replace(recipe, train=replace(recipe.train, lr=3e-4))


def jepa(steps: int, predictor: PredictorConfig, decay: float = 0.996) -> JEPAConfig:
    """The objective of a run of that many updates: curriculum and teacher's decay last for all of it."""
    curriculum = Curriculum(progress=Ramp(0.0, 1.0, steps=steps))
    return JEPAConfig(curriculum=curriculum, ema=Ramp(decay, 1.0, steps=steps), predictor=predictor)
