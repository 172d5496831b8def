"""Whole time columns and frequency rows (Audio-MAE's structured masking, arXiv 2207.06405 section 3.2)."""

from __future__ import annotations

from jaxtyping import Bool, Float
from torch import Generator, Tensor

from otic.core.errors import ConfigError
from otic.masking.uniform import draw, lowest, size


def strips(
    count: int, grid: tuple[int, int], *, keep_time: float, keep_freq: float, gen: Generator
) -> Bool[Tensor, "count n"]:
    """Shows the tokens that lie in a kept time step and in a kept frequency row.

    int(time * keep_time) time steps and int(freq * keep_freq) rows are kept, each uniformly at random, so all
    masks show equally many tokens.

    Args:
        count: Number of independent masks.
        grid: (time, freq) patches of one clip.
        keep_time: Share of visible time steps, 0..1.
        keep_freq: Share of visible frequency rows, 0..1.
        gen: Source of all randomness (time is drawn first); the masks live on its device.

    Raises:
        ConfigError: if a share leaves nothing, or is above 1.
    """
    size(grid)
    return strips_from(
        draw((count, grid[0]), gen), draw((count, grid[1]), gen), keep_time=keep_time, keep_freq=keep_freq
    )


def strips_from(
    time: Float[Tensor, "count t"], freq: Float[Tensor, "count f"], *, keep_time: float, keep_freq: float
) -> Bool[Tensor, "count n"]:
    """`strips` for given uniform noise: the lowest values are kept."""
    kept = []
    for noise, share, name in ((time, keep_time, "keep_time"), (freq, keep_freq, "keep_freq")):
        k = int(noise.shape[1] * share)
        if not 0 < k <= noise.shape[1]:
            raise ConfigError(f"{name}={share} of {noise.shape[1]} leaves {k}; expected 1..{noise.shape[1]}.")
        kept.append(lowest(noise, k))
    return (kept[0][:, :, None] & kept[1][:, None, :]).flatten(1)
