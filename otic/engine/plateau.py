"""Learning rate cut where learning rests: when a number has not become better for so many checks.

The rule of PyTorch's `ReduceLROnPlateau`, which published runs use, as a function from state to state: what it knows
stands in the checkpoint, and a run that goes on makes the same steps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from otic.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PlateauConfig:
    """The defaults are SSAST's base run (YuanGongND/ssast @ a1a3eec), except what is watched and on how many clips."""

    watch: str = "loss"  # of held-out clips: the loss, or one of the objective's parts (SSAST: accuracy)
    better: Literal["lower", "higher"] = "lower"  # which way it should go
    every: int = 4000  # steps from one check to the next
    patience: int = 2  # checks in a row without improvement that are endured; the next one cuts
    factor: float = 0.5  # what a cut leaves of the learning rate
    threshold: float = 1e-4  # share of the best value by which a better one must differ
    clips: int = 512  # held out, drawn by the run's seed (ours; SSAST: AudioSet's evaluation set); a tenth at most

    def __post_init__(self) -> None:
        for name, bound in {"every": 1, "patience": 0, "threshold": 0, "clips": 1}.items():
            if not getattr(self, name) >= bound:
                raise ConfigError(f"train.plateau.{name}={getattr(self, name)}: at least {bound}.")
        if not 0 < self.factor < 1:
            raise ConfigError(f"train.plateau.factor={self.factor}: above 0 and below 1.")


class Rest(NamedTuple):
    """What is known after some checks.

    Attributes:
        share: What the cuts have left of the learning rate.
        best: The best value so far; None before the first check.
        endured: Checks without improvement since then, or since the last cut.
    """

    share: float = 1.0
    best: float | None = None
    endured: int = 0


def judged(rest: Rest, value: float, cfg: PlateauConfig) -> Rest:
    """What is known after one more check.

    >>> rest = Rest()
    >>> for value in (0.5, 0.4, 0.5, 0.4, 0.45):
    ...     rest = judged(rest, value, PlateauConfig())
    >>> rest
    Rest(share=0.5, best=0.4, endured=0)
    """
    if _improves(value, rest.best, cfg):
        return Rest(rest.share, value, 0)
    if rest.endured < cfg.patience:
        return rest._replace(endured=rest.endured + 1)
    return Rest(rest.share * cfg.factor, rest.best, 0)


def _improves(value: float, best: float | None, cfg: PlateauConfig) -> bool:
    if best is None:
        return math.isfinite(value)
    gain = value - best if cfg.better == "higher" else best - value
    return gain > cfg.threshold * abs(best)
