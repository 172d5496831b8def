"""Which steps get the harder masks: a share that grows with the square root of progress.

A-JEPA (arXiv 2311.15830) takes the square-root competence of Platanios et al. 2019 (arXiv 1903.09848).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch

from otic.core.ramps import Ramp
from otic.core.seeds import generator


@dataclass(frozen=True, kw_only=True)
class Curriculum:
    """The draw of a step: one for the whole batch, the same in every process."""

    progress: Ramp = field(default_factory=lambda: Ramp(0.0, 1.0, steps=100_000))  # s / S of the run
    first: float = 0.01  # c0, the share of hard steps at the beginning
    order: Literal["harder", "easier", "never", "always"] = "harder"  # the last three are the paper's comparisons
    seed: int = 0  # of the draws

    def share(self, step: int) -> float:
        """f(s) = min(1, sqrt(s (1 - c0^2) / S + c0^2)): how probable a hard step is after `step` finished ones.

        Notes on the paper print c0^2 outside the root; here it is inside, as in the formula's source.

        >>> round(Curriculum(progress=Ramp(0.0, 1.0, steps=100)).share(25), 4)
        0.5001
        """
        if self.order in ("never", "always"):
            return float(self.order == "always")
        grown = min(1.0, (self.progress(step) * (1 - self.first**2) + self.first**2) ** 0.5)
        return grown if self.order == "harder" else 1 - grown

    def hard(self, step: int) -> bool:
        """Whether the step after `step` finished ones is a hard one."""
        return float(torch.rand((), generator=generator(self.seed, "curriculum", step))) < self.share(step)
