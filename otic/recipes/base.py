"""What a recipe is: every setting of a pre-training run in one value."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from otic.audio.frontend import FrontendConfig
from otic.core.ramps import Ramp
from otic.core.seeds import generator
from otic.engine.config import TrainConfig
from otic.inference.options import Options
from otic.models.vit import ViT, ViTConfig
from otic.objectives import OBJECTIVES, Objective

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run. It is written for `train.steps` updates; a run of another length stretches its ramps (`lengthen`)."""

    name: str  # what `otic pretrain` calls it
    method: str = "eat"  # a name of `OBJECTIVES`
    objective: Any  # that objective's config
    encoder: ViTConfig  # what is trained and kept
    frontend: FrontendConfig = field(default_factory=FrontendConfig)  # waves to spectrograms
    measure_statistics: bool = False  # take the front-end's mean and std from the data before the run
    crop_seconds: float = 10.0  # of each clip, cut at random
    short: Literal["pad", "repeat"] = "pad"  # what follows a clip shorter than the crop: zeros, or itself again
    crops_per: Literal["clip", "duration"] = "clip"  # an epoch takes one crop of each clip, or as many as fill it
    frames: int = 1024  # length of the spectrogram that a crop becomes, padded or cut at the end; 0: as long as it is
    batch_size: int = 48  # clips of one update, over all processes and accumulated pieces
    train: TrainConfig = field(default_factory=TrainConfig)  # optimiser, schedule, saving
    inference: Options = field(default_factory=Options)  # how the trained model is read out, unless told otherwise
    seed: int = 0  # of weights, order, crops, masks

    def build(self) -> tuple[ViT, Objective]:
        """The encoder and, around it, the objective, with their first weights; both follow from `seed` alone."""
        encoder = ViT(self.encoder, generator(self.seed, "encoder"))
        return encoder, self.wrap(encoder)

    def wrap(self, encoder: ViT) -> Objective:
        """The objective around an encoder that has its weights already."""
        _, kind = OBJECTIVES[self.method]
        objective = kind(encoder, self.objective, generator(self.seed, "objective"))
        assert isinstance(objective, Objective)
        return objective


def lengthen(recipe: Recipe, steps: int) -> Recipe:
    """The recipe for a run of `steps` updates: warm-up and the objective's ramps keep their share of the run."""
    ratio = steps / recipe.train.steps
    train = dataclasses.replace(recipe.train, steps=steps, warmup=round(recipe.train.warmup * ratio))
    return dataclasses.replace(recipe, train=train, objective=stretch(recipe.objective, ratio))


def stretch(cfg: C, ratio: float) -> C:
    """A config whose every `Ramp` takes `ratio` times as many steps (at least one)."""
    if isinstance(cfg, Ramp):
        return dataclasses.replace(cfg, steps=max(1, round(cfg.steps * ratio)))
    if not dataclasses.is_dataclass(cfg):
        return cfg
    changed = {f.name: stretch(getattr(cfg, f.name), ratio) for f in dataclasses.fields(cfg)}
    return dataclasses.replace(cfg, **changed)  # type: ignore[type-var]
