"""Hidden clusters of neighbouring patches (SSAST, arXiv 2110.09784 section 2.3).

legacy    as the published weights were made (YuanGongND/ssast @ a1a3eec): overlapping squares that wrap round into
          the next frequency row, the first patch never hidden, low bands half as often as the middle
balanced  ours: whole squares of a tiling, nothing wraps, every patch hidden equally often, a batch at once

Axes: count masks, n tokens (token p = freq * t + f), g tiles of a mask.
"""

from __future__ import annotations

import random
from functools import lru_cache

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from otic.core.errors import ConfigError
from otic.masking.uniform import draw, size


def clusters(
    count: int, grid: tuple[int, int], *, hidden: int, side: int | tuple[int, int] = (3, 5), gen: Generator
) -> Bool[Tensor, "count n"]:
    """Hides exactly `hidden` patches in squares; every patch with the same probability, whatever the grid.

    The bands are cut into strips as wide as the side and each strip into squares, all cuts at random places, so that
    those at the borders are smaller. The squares are strung on a ring in random order; hidden is a stretch of the ring
    from a uniformly random patch on. That start alone makes every patch equally likely; only the squares at the two
    ends of the stretch are hidden in part.

    Args:
        count: Number of independent masks.
        grid: (time, freq) patches of one clip.
        hidden: Patches to hide, fewer than there are.
        side: Of the squares; one, or a range (both ends included) from which each mask draws its own.
        gen: Source of all randomness; the masks live on its device.

    Raises:
        ConfigError: if nothing or everything would be hidden, or the side is below 1.
    """
    n, (least, most) = size(grid), (side, side) if isinstance(side, int) else side
    if not 0 < hidden < n or not 1 <= least <= most:
        raise ConfigError(
            f"clusters that hide {hidden} of {grid[0]}x{grid[1]} patches, side {side}: "
            f"expected 1..{n - 1} hidden, and a side of 1 or more."
        )
    sides = torch.randint(least, most + 1, (count, 1), generator=gen, device=gen.device)
    tile, sizes, within = _tiling(grid, sides, least, gen)
    order = draw(sizes.shape, gen).argsort(1)
    ends = sizes.gather(1, order).cumsum(1)
    first = torch.zeros_like(sizes).scatter_(1, order, ends - sizes.gather(1, order))  # each square's place on the ring
    start = torch.randint(n, (count, 1), generator=gen, device=gen.device)
    return (first.gather(1, tile) + within - start).remainder_(n) >= hidden


def _tiling(
    grid: tuple[int, int], side: Int[Tensor, "count 1"], least: int, gen: Generator
) -> tuple[Int[Tensor, "count n"], Int[Tensor, "count g"], Int[Tensor, "count n"]]:
    """Each patch's square, each square's size, and each patch's number within its square."""
    time, freq = grid
    strips, columns = ((length - 2 + least) // least + 1 for length in (freq, time))  # the most that can come about
    shift = draw((len(side), strips + 1), gen).mul_(side).long()  # where the first cut falls: 0..side-1
    f = torch.arange(freq, device=gen.device) + shift[:, -1:]  # [count, freq], from the first strip's edge
    strip = f // side
    t = torch.arange(time, device=gen.device)[:, None] + shift.gather(1, strip)[:, None]  # [count, time, freq]
    column = t // side[..., None]

    low, high = _extent(strips, freq, side, shift[:, -1:])  # [count, strips]
    left, right = _extent(columns, time, side[..., None], shift[:, :-1, None])  # [count, strips, columns]
    wide, tall = right - left, (high - low)[..., None]
    tile = strip[:, None] * columns + column
    across = f - shift[:, -1:] - low.gather(1, strip)
    along = t - shift.gather(1, strip)[:, None] - left.flatten(1).gather(1, tile.flatten(1)).view_as(t)
    within = along * tall[..., 0].gather(1, strip)[:, None] + across[:, None]
    return tile.flatten(1), (wide * tall).flatten(1), within.flatten(1)


def _extent(cells: int, length: int, side: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """First and last (exclusive) position of each cell of one axis, cut at the borders; empty past the last."""
    edges = torch.arange(cells + 1, device=side.device) * side - shift
    edges = edges.clamp_(0, length)
    return edges[..., :-1], edges[..., 1:]


def clusters_legacy(
    count: int, grid: tuple[int, int], *, hidden: int, rng: random.Random, side: tuple[int, int] = (3, 5)
) -> Bool[Tensor, "count n"]:
    """The published sampler, number for number, for each mask in turn.

    Args:
        count: Number of masks.
        grid: (time, freq) patches of one clip.
        hidden: Patches to hide, at most two less than there are.
        rng: Python's generator, as the published code draws from it.
        side: Range of the squares' side, both ends included.

    Raises:
        ConfigError: if `hidden` is out of range; the published code then never ends.
    """
    return _shown([legacy_indices(grid, hidden, rng, side) for _ in range(count)], grid)


def frames_legacy(count: int, grid: tuple[int, int], *, hidden: int, rng: random.Random) -> Bool[Tensor, "count n"]:
    """The published sampler of frame models: uniform, drawn from Python's generator; arguments as `clusters_legacy`."""
    if not 0 < hidden <= size(grid):
        raise ConfigError(f"hidden={hidden} of {grid[0]}x{grid[1]} patches: expected 1..{size(grid)}.")
    return _shown([rng.sample(range(size(grid)), hidden) for _ in range(count)], grid)


def legacy_indices(grid: tuple[int, int], hidden: int, rng: random.Random, side: tuple[int, int] = (3, 5)) -> list[int]:
    """One published mask: the hidden patches in upstream's order and numbering, q = time * f + t.

    Raises:
        ConfigError: as `clusters_legacy`, and on a range of sides that is none.
    """
    n, time = size(grid), grid[0]
    if not 0 < hidden <= n - 2:  # index 0 is never drawn, and the loop wants one more than it keeps
        raise ConfigError(
            f"hidden={hidden} of {grid[0]}x{grid[1]} patches: the published sampler ends for 1..{n - 2} only. "
            "Hide fewer, take longer clips, or the balanced sampler."
        )
    if not 1 <= side[0] <= side[1]:
        raise ConfigError(f"clusters with a side of {side[0]} to {side[1]} patches: expected 1 or more, in order.")
    squares = _squares(n, time, rng.randrange(side[1] - side[0] + 1) + side[0])
    found: set[int] = set()
    while len(found) <= hidden:
        found.update(squares[rng.randrange(n)])
    return list(found)[:hidden]  # a set of small integers iterates in hash order, which upstream cuts too


@lru_cache(maxsize=64)
def _squares(n: int, time: int, side: int) -> list[tuple[int, ...]]:
    """The patches of the square at each start, in upstream's order."""
    return [
        tuple(q for i in range(side) for j in range(side) if 0 < (q := start + time * i + j) < n) for start in range(n)
    ]


def time_major(index: Int[Tensor, "*b m"], grid: tuple[int, int]) -> Int[Tensor, "*b m"]:
    """Our numbers of patches that upstream counts along time first."""
    return index % grid[0] * grid[1] + index // grid[0]


def _shown(hidden: list[list[int]], grid: tuple[int, int]) -> Bool[Tensor, "count n"]:
    visible = torch.ones(len(hidden), size(grid), dtype=torch.bool)
    return visible.scatter_(1, time_major(torch.tensor(hidden), grid), False)
