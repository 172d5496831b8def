"""Unstructured masks, and the primitive below every other mask: keep the best-scored tokens of each row.

Axes: count masks, n tokens (token p = freq * t + f), True = visible.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from otic.core.errors import ConfigError


def random(count: int, grid: tuple[int, int], *, keep: float, gen: Generator) -> Bool[Tensor, "count n"]:
    """Each row shows int(n * keep) tokens, uniformly without replacement (MAE, Audio-MAE section 3).

    Args:
        count: Number of independent masks.
        grid: (time, freq) patches of one clip.
        keep: Share of visible tokens, 0..1. `1 - ratio` in float64 gives upstream's truncated counts.
        gen: Source of all randomness; the masks live on its device.

    Raises:
        ConfigError: if nothing would be visible, or the grid is empty.
    """
    n = size(grid)
    return lowest(draw((count, n), gen), visible_count(grid, keep))


def lowest(noise: Float[Tensor, "*rows n"], k: int) -> Bool[Tensor, "*rows n"]:
    """True at the k smallest values of each row: exactly k, however values tie."""
    order = noise.topk(k, dim=-1, largest=False, sorted=False).indices
    return torch.zeros_like(noise, dtype=torch.bool).scatter_(-1, order, True)


def draw(shape: Sequence[int], gen: Generator) -> Tensor:
    """Uniform numbers in [0, 1) from `gen`, on its device."""
    return torch.rand(tuple(shape), generator=gen, device=gen.device)


def size(grid: tuple[int, int]) -> int:
    """Tokens of a grid.

    Raises:
        ConfigError: if a side is below one.
    """
    if min(grid) < 1:
        raise ConfigError(f"mask grid {grid}: both sides must be at least 1. Is the clip shorter than one patch?")
    return grid[0] * grid[1]


def some_hidden(keep: float) -> None:
    """For methods that predict what is hidden.

    Raises:
        ConfigError: if nothing would be.
    """
    if keep >= 1:
        raise ConfigError(f"keep={keep:g}: all is visible, and nothing left to predict; expected a share below 1.")


def visible_count(grid: tuple[int, int], keep: float) -> int:
    """int(n * keep), as upstream truncates.

    Raises:
        ConfigError: if that is none, or `keep` is above 1.
    """
    k = int(size(grid) * keep)
    if not 0 < k <= size(grid):
        raise ConfigError(
            f"keep={keep:g} on a {grid[0]}x{grid[1]} grid leaves {k} visible tokens; expected 1..{size(grid)}."
        )
    return k
