"""What a recipe is: every setting of a pre-training run in one value."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from torch import nn

from otic.audio.frontend import FrontendConfig
from otic.core.errors import ConfigError
from otic.core.ramps import Ramp
from otic.core.registry import Registry
from otic.core.seeds import generator
from otic.engine.config import TrainConfig
from otic.inference.kinds import stretches
from otic.inference.load import read_model
from otic.inference.options import Options, from_card
from otic.models.cells import Ruler
from otic.models.text import TextConfig
from otic.models.tokenizer import Tokenizer
from otic.models.vit import ViT, ViTConfig
from otic.objectives import OBJECTIVES, Objective
from otic.objectives.teacher import SELF, EncoderTeacher, Teacher
from otic.objectives.teacher_tower import TowerTeacher
from otic.weights import language, store
from otic.weights.card import saw_labels
from otic.weights.language import Language
from otic.weights.store import Loaded

C = TypeVar("C")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One run. It is written for `train.steps` updates; a run of another length stretches its ramps (`lengthen`)."""

    name: str  # what `otic pretrain` calls it
    method: str  # a name of `OBJECTIVES`
    objective: Any  # that objective's config
    encoder: Any  # config of what is trained and kept: a `ViTConfig`, `HTSATConfig` or `Cnn14Config`
    init: Literal["encoder", "objective"] = "encoder"  # what `--init RUN` brings; objective: decoder and teacher too
    adopt: bool = False  # `--init MODEL` brings its own architecture and front-end instead of this recipe's
    frontend: FrontendConfig = field(default_factory=FrontendConfig)  # waves to spectrograms
    measure_statistics: bool = False  # take the front-end's mean and std from the data before the run
    crop_seconds: float = 10.0  # of each clip, cut at random
    short: Literal["pad", "repeat"] = "pad"  # what follows a clip shorter than the crop: zeros, or itself again
    crops_per: Literal["clip", "duration"] = "clip"  # an epoch takes one crop of each clip, or as many as fill it
    gain_db: float = 0.0  # each crop is made louder or softer by up to so many decibels
    cyclic: bool = False  # a crop begins anywhere in its clip and goes on at its beginning (clips as long as the crop
    # would never be moved otherwise)
    frames: int = 1024  # length of the spectrogram that a crop becomes, padded or cut at the end; 0: as long as it is
    batch_size: int = 48  # clips of one update, over all processes and accumulated pieces
    train: TrainConfig = field(default_factory=TrainConfig)  # optimiser, schedule, saving
    inference: Options = field(default_factory=Options)  # how the trained model is read out, unless told otherwise
    seed: int = 0  # of weights, order, crops, masks

    def __post_init__(self) -> None:
        if self.init == "objective" and self.learns_words:  # its numbers mean the texts of the run it comes from
            raise ConfigError(f"init=objective: {self.method} gets a new tokenizer; init=encoder is what it can take.")
        if self.cyclic and self._taught_by:  # what --teacher-cache keeps of a clip cannot be cut around its end
            raise ConfigError(
                f"cyclic=true: {self._taught_by[0]}, its teacher, may be heard from a cache, whose cells do not go "
                "round with the crop. Set cyclic=false, before objective.teachers."
            )

    def build(
        self, teachers: Sequence[Teacher] | None = None, tokenizer: Tokenizer | None = None
    ) -> tuple[Any, Objective]:
        """The encoder and, around it, the objective, with their first weights; both follow from `seed` alone."""
        encoder = store.build(self.encoder, generator(self.seed, "encoder"))
        return encoder, self.wrap(encoder, teachers, tokenizer)

    @property
    def _taught_by(self) -> list[str]:
        """The MODELs that its config names as teachers."""
        return [name for name in getattr(self.objective, "teachers", ()) if name != SELF]

    @property
    def learns_words(self) -> bool:
        """Whether the objective reads texts, and so needs a tokenizer."""
        return hasattr(self.objective, "vocabulary")

    def wrap(
        self, encoder: nn.Module, teachers: Sequence[Teacher] | None = None, tokenizer: Tokenizer | None = None
    ) -> Objective:
        """The objective around an encoder that has its weights already.

        A config with a field `ruler` is told what the front-end's spectrograms measure; one with a field `teachers`
        gets those models, unless they are given; one with a field `vocabulary` gets the tokenizer; one whose `language`
        names a published text tower gets that, unless a tokenizer is given: then its shape is the config's already.
        """
        _, kind = OBJECTIVES[self.method]
        cfg, more, brought = self.objective, dict[str, Any](), None
        if hasattr(cfg, "ruler"):
            cfg = dataclasses.replace(cfg, ruler=Ruler.of(self.frontend))
        if hasattr(cfg, "teachers"):
            more["teachers"] = self.load_teachers() if teachers is None else teachers
        if self.learns_words:
            brought = self.load_language() if cfg.language and tokenizer is None else None
            cfg = cfg if brought is None else with_text(cfg, brought.tower.cfg, brought.unit)
            more["tokenizer"] = tokenizer if brought is None else brought.tokenizer
        objective = kind(encoder, cfg, generator(self.seed, "objective"), **more)
        if brought is not None:
            objective.language.load_state_dict(brought.tower.state_dict())
        assert isinstance(objective, Objective)
        return objective

    def load_language(self) -> Language:
        """The published text tower that the objective's config names.

        Raises:
            WeightsError: when it cannot be loaded.
        """
        cfg = self.objective
        return language.load(cfg.language, text_of(cfg), cfg.tokenizer)

    def load_teachers(self) -> list[Teacher]:
        """The models that the objective's config names as teachers.

        Raises:
            WeightsError: when one cannot be loaded.
        """
        return [teacher_of(read_model(name), name) for name in self._taught_by]


def text_of(objective: Any) -> TextConfig:
    """The text tower of the config of an objective that learns from words."""
    part = objective.captioner if hasattr(objective, "captioner") else objective.towers
    assert isinstance(part.text, TextConfig)
    return part.text


def with_text(objective: C, text: TextConfig, unit: bool) -> C:
    """That config with another text tower, whose vectors are brought to length one (`unit`) or not."""
    cfg: Any = objective
    if hasattr(cfg, "captioner"):
        return dataclasses.replace(cfg, captioner=dataclasses.replace(cfg.captioner, text=text))
    return dataclasses.replace(cfg, towers=dataclasses.replace(cfg.towers, text=text, unit_text=unit))


def teacher_of(loaded: Loaded, name: str) -> Teacher:
    """A model that was read becomes a teacher, in the windows and with the pooling that its card names."""
    options = from_card(loaded.card)
    if not isinstance(loaded.encoder, ViT):
        return TowerTeacher(
            loaded.encoder,
            loaded.frontend,
            name,
            bank=loaded.bank,
            towers=loaded.towers,
            window=options.window or 7.0,
            short=options.short,
            labels_used=saw_labels(loaded.card),
        )
    return EncoderTeacher(
        loaded.encoder,
        loaded.frontend,
        name,
        window=options.window or 10.0,
        pool="cls" if options.pool == "cls" else "mean",
        labels_used=saw_labels(loaded.card),
    )


CHECKING = 0.05  # share of a run's time that looking for a plateau may take, where the recipe was shortened
EPOCH = 2_000_000 // 512  # updates of an epoch of AudioSet-2M, taken as 2,000,000 clips
RECIPES: Registry[Callable[[], Recipe]] = Registry("recipe")  # filled by the files beside this one


def tiny(name: str, method: str, objective: Any, **encoder: Any) -> Recipe:
    """The frame that all `_tiny` recipes share, so that methods compare: 2.7 M parameters, two-second crops.

    Args:
        name: Of the recipe.
        method: A name of `OBJECTIVES`.
        objective: Its config.
        encoder: Fields of `ViTConfig` that differ from the frame's.
    """
    return Recipe(
        name=name,
        method=method,
        objective=objective,
        encoder=ViTConfig(**{"width": 192, "depth": 6, "heads": 3, "norm": "pre", **encoder}),
        measure_statistics=True,
        crop_seconds=2.095,  # 208 frames: 13 x 8 patches
        short="repeat",
        crops_per="duration",
        frames=208,
        batch_size=16,
        train=TrainConfig(steps=10_000, warmup=1000, lr=1.5e-3, clip=1.0, decay="intended", save_minutes=2.0),
        inference=Options(window=10.0, layers=(1, 3, 5), pool="mean_std"),
    )


def small(name: str, method: str, objective: Any, **encoder: Any) -> Recipe:
    """The frame that all `_small` recipes share: 21 M parameters, five-second crops, for one GPU.

    Arguments as in `tiny`.
    """
    return Recipe(
        name=name,
        method=method,
        objective=objective,
        encoder=ViTConfig(**{"width": 384, "depth": 12, "heads": 6, "norm": "pre", **encoder}),
        measure_statistics=True,
        crop_seconds=5.135,  # 512 frames: 32 x 8 patches
        frames=512,
        batch_size=96,
        train=TrainConfig(steps=100_000, warmup=10_000, lr=1e-3, decay="intended", log_every=10),
        inference=Options(window=10.0),
    )


def adopted(recipe: Recipe, model: Loaded) -> Recipe:
    """The recipe around another model's encoder, heard through its front-end and read as its card says.

    An encoder that wants one length (HTS-AT, and what its card brings to a window) gets crops of that window, short
    clips again and again: in training as later.
    """
    options = from_card(model.card)
    window, crop = recipe.inference.window, dict[str, Any]()
    if options.short != "pad" or stretches(model.encoder):
        window = options.window or window
        if stretches(model.encoder):
            frames, hears = model.encoder.cfg.frames, model.frontend
            window = min(window, (frames - 1) * hears.hop / hears.sample_rate)
        options = dataclasses.replace(options, short="repeat")
        crop = {"crop_seconds": window, "short": "repeat", "frames": 0}
    towers = getattr(recipe.objective, "towers", None)
    objective = recipe.objective
    if towers is not None and options.layers:
        objective = dataclasses.replace(objective, towers=dataclasses.replace(towers, layers=options.layers))
    return dataclasses.replace(
        recipe, encoder=model.encoder.cfg, frontend=model.frontend, objective=objective, measure_statistics=False,
        inference=dataclasses.replace(options, window=window), **crop,
    )  # fmt: skip


def for_classes(recipe: Recipe, names: Sequence[str]) -> Recipe:
    """The recipe for data with these classes, where its objective leaves their number open (`classes=0`)."""
    if getattr(recipe.objective, "classes", None) != 0 or not names:
        return recipe
    return dataclasses.replace(recipe, objective=dataclasses.replace(recipe.objective, classes=len(names)))


def audioset(
    name: str, method: str, objective: Any, epochs: int, encoder: ViTConfig, *, cyclic: bool = True, **changes: Any
) -> Recipe:
    """The frame of Audio-MAE's base run (arXiv 2207.06405, table 3), which A-JEPA and MAM-CLAP start from.

    Args:
        name: Of the recipe.
        method: A name of `OBJECTIVES`.
        objective: Its config.
        epochs: Of AudioSet-2M, `EPOCH` updates of 512 clips each; three of them are warm-up.
        encoder: What is trained.
        cyclic: As in `Recipe`; AudioSet's clips are as long as the crop.
        changes: Other fields of `Recipe`.
    """
    return Recipe(
        name=name,
        method=method,
        objective=objective,
        encoder=encoder,
        frontend=FrontendConfig(mean=-4.2677393, std=4.5689974),
        gain_db=6.0,
        cyclic=cyclic,
        batch_size=512,
        train=TrainConfig(
            steps=epochs * EPOCH,
            warmup=3 * EPOCH,
            lr=2e-4 * 512 / 256,
            weight_decay=1e-4,
            decay="intended",
            clip=0.0,
            log_every=10,
            save_minutes=15.0,
        ),
        inference=Options(window=10.0),
        **changes,
    )


def lengthen(recipe: Recipe, steps: int) -> Recipe:
    """The recipe for a run of `steps` updates: warm-up and the objective's ramps keep their share of the run.

    So do the steps between checks for a plateau, unless these would take more than `CHECKING` of the time.
    """
    ratio, old = steps / recipe.train.steps, recipe.train
    rare = math.ceil(old.plateau.clips / 3 / (CHECKING * recipe.batch_size))  # a forward pass is a third of a step
    every = max(1, round(old.plateau.every * ratio), min(old.plateau.every, rare))
    train = dataclasses.replace(
        old,
        steps=steps,
        warmup=round(old.warmup * ratio),
        stair=max(1, round(old.stair * ratio)),
        plateau=dataclasses.replace(old.plateau, every=every),
    )
    return dataclasses.replace(recipe, train=train, objective=stretch(recipe.objective, ratio))


def with_ramps(cfg: C, like: C) -> C:
    """A config with the ramps of another of its kind."""
    if isinstance(cfg, Ramp):
        return like
    if not dataclasses.is_dataclass(cfg):
        return cfg
    changed = {f.name: with_ramps(getattr(cfg, f.name), getattr(like, f.name)) for f in dataclasses.fields(cfg)}
    return dataclasses.replace(cfg, **changed)  # type: ignore[type-var]


def stretch(cfg: C, ratio: float) -> C:
    """A config whose every `Ramp` takes `ratio` times as many steps (at least one)."""
    if isinstance(cfg, Ramp):
        return dataclasses.replace(cfg, steps=max(1, round(cfg.steps * ratio)))
    if not dataclasses.is_dataclass(cfg):
        return cfg
    changed = {f.name: stretch(getattr(cfg, f.name), ratio) for f in dataclasses.fields(cfg)}
    return dataclasses.replace(cfg, **changed)  # type: ignore[type-var]
