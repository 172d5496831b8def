"""Whether an encoder's features still tell clips apart: measured on a few fixed clips now and then, with a warning.

A loss cannot show collapse: where targets come from a network itself, a constant one has loss 0. So the exported
encoder reads the same whole clips every so many steps, and we look at what differs from clip to clip. The means over a
clip's patches say how one pooled vector would do (`feature_std`, `effective_rank`, `pair_cosine`). The patches are
compared with those at the same place of other clips (`patch_std`, `patch_rank`, `patch_cosine`): a network that passes
on positions alone counts as collapsed. Effective rank is the exponential of the entropy of the normalised singular
values (Roy & Vetterli 2007, "The effective rank: a measure of effective dimensionality").

Axes: b clips, n patches, m vectors, d width.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from otic.core.errors import OticWarning
from otic.core.world import ALONE, World
from otic.engine.loop import Event

CLIPS = 32  # of the fixed batch
PIECE = 8  # clips encoded at a time
MOST, LEAST = 100, 8  # measurements in a run
SHARE = 0.05  # clips measured for each clip trained on: a forward pass is a third of a step or less
RANK = 0.02  # of the width; patches of a lower rank have collapsed (untrained networks begin at 0.3 to 0.5)
COSINE = 0.99  # mean cosine of patches of two clips, above which they are one,
NEARER = 0.02  # if its distance from 1 is also below this share of the first (wide untrained networks begin at 0.97)
STD = 0.01  # of its first value
LASTING = 3  # measurements in a row; healthy runs dip when they begin (a tiny MAE: 0.985 after 16 updates)


class Health:
    """Event in, numbers out at the steps where it measures, else nothing.

    Args:
        encoder: What the run exports; `encoder(spec).patches` are its tokens.
        spec: The fixed clips; None of the run's state is touched by encoding them.
        every: Steps from one measurement to the next; the first and the last step are always measured.
        last: The run's last step.
        history: The log's lines so far, where a run goes on.

    Attributes:
        warned: What was said about a collapse, or "".
    """

    def __init__(
        self,
        encoder: nn.Module,
        spec: Float[Tensor, "b 1 t f"],
        every: int,
        last: int,
        *,
        world: World = ALONE,
        history: Sequence[Mapping[str, Any]] = (),
    ):
        self._encoder, self._spec, self._every, self._last, self._world = encoder, spec, every, last, world
        self._lines = [dict(line) for line in history if "patch_rank" in line]
        self.warned = next((str(line["warning"]) for line in history if "warning" in line), "")
        self._judges = bool((spec != spec[:1]).any())  # clips that are all the same need not be told apart

    def __call__(self, event: Event) -> dict[str, Any]:
        step = event.state.step
        if step % self._every and step not in (1, self._last):
            return {}
        found: dict[str, Any] = measured(self._patches())
        if not found:
            return {}
        self._lines.append(found)
        if self._judges and not self.warned and (reasons := self._reasons()):
            self.warned = warning(step, reasons)
            warnings.warn(OticWarning(self.warned), stacklevel=2)
            return {**found, "warning": self.warned}
        return found

    @torch.no_grad()
    def _patches(self) -> Float[Tensor, "b n d"]:
        with resting(self._encoder), self._world.autocast():
            return torch.cat([self._encoder(piece).patches.float() for piece in self._spec.split(PIECE)])

    def _reasons(self) -> list[str]:
        """What speaks for a collapse in each of the last measurements; fewer may be a dip on the way."""
        first, last = self._lines[0], self._lines[-LASTING:]
        width = int(self._encoder.width)  # type: ignore[arg-type]
        odd = [reasons(first, line, width) for line in last]
        return odd[-1] if len(odd) == LASTING and all(odd) else []


def interval(steps: int, batch_size: int, clips: int = CLIPS) -> int:
    """Steps between measurements, so that they take a small share of a run; short runs still have a few."""
    count = min(MOST, max(LEAST, SHARE * steps * batch_size / clips))
    return max(1, math.ceil(steps / count))


@contextmanager
def resting(module: nn.Module) -> Iterator[None]:
    """Within the block the module is in evaluation mode; afterwards each part is as it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def measured(patches: Float[Tensor, "b n d"]) -> dict[str, float]:
    """The six numbers, rounded as the log has them; none where a value is not finite."""
    x = patches.double()  # sums of squares of nearly equal values
    if len(x) < 2 or not x.isfinite().all():
        return {}
    clips = x.mean(1)
    numbers = {
        "feature_std": spread(clips), "effective_rank": effective_rank(clips - clips.mean(0)),
        "pair_cosine": pair_cosine(clips[:, None]),
        "patch_std": spread(x), "patch_rank": effective_rank((x - x.mean(0)).flatten(0, 1)),
        "patch_cosine": pair_cosine(x),
    }  # fmt: skip
    return {name: float(f"{value:.6g}") for name, value in numbers.items()}


def spread(x: Float[Tensor, "b *n d"]) -> float:
    """Standard deviation over clips, at each place and dimension, then their mean."""
    return x.std(0).mean().item()


def effective_rank(x: Float[Tensor, "m d"]) -> float:
    """exp(entropy of the singular values' shares), between 1 and the rank; 0 of a matrix of zeros."""
    gram = x.mT @ x if len(x) > x.shape[1] else x @ x.mT
    sizes = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    if not sizes.sum() > 0:
        return 0.0
    return torch.special.entr(sizes / sizes.sum()).sum().exp().item()


def pair_cosine(x: Float[Tensor, "b n d"]) -> float:
    """Mean cosine of vectors at the same place of two clips, over all pairs: what random pairs would estimate."""
    units, b = nn.functional.normalize(x, dim=-1), len(x)
    own = units.square().sum((0, 2))  # a vector with itself
    return ((units.sum(0).square().sum(-1) - own) / (b * (b - 1))).mean().item()


def reasons(first: Mapping[str, Any], now: Mapping[str, Any], width: int) -> list[str]:
    """What speaks for a collapse, in words with numbers.

    The patches' rank below a fiftieth of the width (a twentieth, the usual hint for A-JEPA, which has no term against
    collapse, is crossed by healthy tiny runs in their first updates: 8.8 of 192, mostly loudness); their
    cosine above 0.99 and fifty times nearer to 1 than at first; a std, of patches or of whole clips, below a hundredth
    of its first value. The clips' own rank and cosine are not judged: 5 and 0.996 are usual in healthy untrained
    networks, whose mean over patches is mostly the clip's level.
    """
    found = []
    if now["patch_rank"] < RANK * width:
        found.append(f"effective rank {now['patch_rank']:.3g} of {width} (first {first['patch_rank']:.3g})")
    if now["patch_cosine"] > max(COSINE, 1 - NEARER * (1 - first["patch_cosine"])):
        found.append(f"cosine of two clips' patches {now['patch_cosine']:.5f} (first {first['patch_cosine']:.3f})")
    for name, what in (("patch_std", "std of patches"), ("feature_std", "std of clips")):
        if now[name] < STD * first[name]:
            found.append(f"{what} {now[name]:.2g} (first {first[name]:.2g})")
    return found


def warning(step: int, reasons: Sequence[str]) -> str:
    return (
        f"step {step}: the features collapse, {', '.join(reasons)}. Try a lower train.lr or more warm-up; where the "
        "teacher is a moving average, one that follows more slowly (objective.ema nearer to 1), or normalised targets."
    )
