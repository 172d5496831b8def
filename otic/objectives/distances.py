"""How far a student's guess is from a teacher's token.

Axes: e channels; any axes before.
"""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Distance = Literal["cos", "smooth_l1", "mse"]


def distance(
    guess: Float[Tensor, "*n e"], target: Float[Tensor, "*n e"], kind: Distance = "cos", *, normalise: bool = True
) -> Float[Tensor, "*n"]:
    """One number for each token, float32.

    Args:
        guess: The student's.
        target: The teacher's.
        kind: 1 - cosine (0..2, whatever the target's scale), or the mean over channels of the smooth absolute
            or squared difference.
        normalise: Bring the target to mean 0 and variance 1 over its channels first; the cosine needs no such thing.

    >>> import torch
    >>> distance(torch.ones(3, 4), -2 * torch.ones(3, 4))
    tensor([2., 2., 2.])
    """
    guess, target = guess.float(), target.float()
    if kind == "cos":
        return 1 - F.cosine_similarity(guess, target, dim=-1)
    if normalise:
        target = F.layer_norm(target, target.shape[-1:])
    apart = F.smooth_l1_loss if kind == "smooth_l1" else F.mse_loss
    return apart(guess, target, reduction="none").mean(-1)


def mean_of(values: Float[Tensor, "*n"], weight: Tensor) -> Float[Tensor, ""]:
    """The mean of those values whose weight is 1; 0 when there is none."""
    return (values * weight).sum() / weight.sum().clamp_min(1)
