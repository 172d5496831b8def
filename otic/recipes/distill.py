"""Distillation from several teachers (after AM-RADIO, arXiv 2312.06709, and UNIC, arXiv 2408.05088); ours."""

from __future__ import annotations

from otic.core.ramps import Ramp
from otic.objectives.distill import DistillConfig
from otic.objectives.teacher import SELF
from otic.recipes.base import RECIPES, Recipe, small, tiny


@RECIPES.add
def distill_small() -> Recipe:
    """Several teachers into one ViT-S, for one GPU; ours. The teachers must be named.

        otic pretrain distill_small --data sounds/ --out runs/one --set 'objective.teachers=[MODEL, MODEL]'

    Compute: not measured yet. Score: not measured yet.
    """
    return small("distill_small", "distill", DistillConfig(keep=0.5))


@RECIPES.add
def distill_tiny() -> Recipe:
    """Several teachers into 2.7 M parameters, for a laptop; ours.

        otic pretrain distill_tiny --data sounds/ --out runs/one --set 'objective.teachers=[MODEL, MODEL]'

    Without any named, so that it runs with no other model, the teacher is the student's own moving average, which sees
    the whole clip where the student sees half: self-distillation, a stand-in.
    Compute and score: docs/bakeoff.md.
    """
    ema = Ramp(0.99, 0.9999, steps=10_000)
    return tiny("distill_tiny", "distill", DistillConfig(teachers=(SELF,), keep=0.5, ema=ema))
