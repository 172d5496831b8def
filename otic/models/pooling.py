"""One vector for a clip, or one for each time step, from encoded patches.

Axes: b clips, n patches of a (time t', freq f') grid, d width, D the pooled width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from otic.core.registry import Registry

Pool = Callable[[Tensor, tuple[int, int]], Tensor]
POOLINGS: Registry[Pool] = Registry("pooling")


def pool(tokens: Float[Tensor, "b n d"], grid: tuple[int, int], how: str) -> Float[Tensor, "b D"]:
    """One vector for each clip.

    Args:
        tokens: Encoded patches, without extra tokens.
        grid: (time, freq); p = freq * t + f.
        how: A name in `POOLINGS`.

    Raises:
        ConfigError: on an unknown name.
    """
    return POOLINGS[how](tokens, grid)


def frames(
    tokens: Float[Tensor, "b n d"], grid: tuple[int, int], how: Literal["mean", "concat"] = "mean"
) -> Float[Tensor, "b t D"]:
    """A time series: the bands of each time step averaged (D = d) or side by side (D = f' * d)."""
    image = tokens.unflatten(1, grid)
    return image.mean(2) if how == "mean" else image.flatten(2)


@POOLINGS.named("mean")
def mean(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Average of all patches, D = d."""
    return tokens.mean(1)


@POOLINGS.named("max")
def max_(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Largest value of each channel, D = d."""
    return tokens.amax(1)


@POOLINGS.named("mean_std")
def mean_std(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean and standard deviation over time of the band averages, D = 2 d."""
    return _moments(frames(tokens, grid))


@POOLINGS.named("mean_std_patches")
def mean_std_patches(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean and standard deviation over all patches, D = 2 d."""
    return _moments(tokens)


@POOLINGS.named("bands")
def bands(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean over time, each band apart, D = f' d."""
    return frames(tokens, grid, "concat").mean(1)


@POOLINGS.named("bands_std")
def bands_std(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean and standard deviation over time, each band apart, D = 2 f' d."""
    return _moments(frames(tokens, grid, "concat"))


def _moments(series: Float[Tensor, "b t d"]) -> Float[Tensor, "b D"]:
    """Mean and (biased) standard deviation side by side: defined for a single time step too."""
    return torch.cat((series.mean(1), series.std(1, correction=0)), -1)
