"""Numbers that change with the step: EMA decay, learning rate."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """From `start` to `end` in a straight line over `steps`, then constant.

    >>> Ramp(0.0, 1.0, steps=10)(5)
    0.5
    """

    start: float
    end: float
    steps: int = 1

    def __call__(self, step: int) -> float:
        if step >= self.steps:
            return self.end
        return self.end - (self.end - self.start) * (1 - step / self.steps)


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """Linear warm-up from `first` to `peak`, then half a cosine down to `floor` at `steps`.

    Warm-up changes every `stair` steps alone. With `floor` equal to `peak` it stays there.

    >>> Cosine(peak=1.0, warmup=10, steps=110)(10)
    1.0
    """

    peak: float
    steps: int
    warmup: int = 0
    floor: float = 0.0
    first: float = 0.0
    stair: int = 1

    def __call__(self, step: int) -> float:
        if step < self.warmup:
            return self.first + (self.peak - self.first) * (step - step % self.stair) / self.warmup
        progress = min(1.0, (step - self.warmup) / max(1, self.steps - self.warmup))
        return self.floor + (self.peak - self.floor) * 0.5 * (1 + math.cos(math.pi * progress))
