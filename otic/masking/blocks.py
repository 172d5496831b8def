"""Square blocks, shown (EAT's inverse block masking, arXiv 2401.03497 section 3.2) or hidden.

The published sampler loops over clips; here a whole batch is three tensor operations with the same distribution.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Bool, Int
from torch import Generator, Tensor

from otic.core.errors import ConfigError, OticWarning
from otic.masking.uniform import draw, lowest, size, visible_count


def inverse_block(
    count: int,
    grid: tuple[int, int],
    *,
    keep: float,
    adjust: float = 0.07,
    block: int = 5,
    gen: Generator,
    at_least: int | None = None,
) -> Bool[Tensor, "count n"]:
    """Shows square blocks round random centres, then trims or fills to exactly int(n * keep) tokens.

    Centres are uniform with replacement; blocks are cut at the border; an even block leans towards low
    indices. Surplus tokens are hidden, missing ones shown, uniformly at random (as published).

    Args:
        count: Number of independent masks.
        grid: (time, freq) patches of one clip.
        keep: Share of visible tokens. Published runs compute it as `1 - 0.8` (truncation matters on few grids).
        adjust: Added to `keep` when the number of blocks is computed, to make up for overlaps.
        block: Side of a block in patches.
        gen: Source of all randomness; the masks live on its device.
        at_least: Fewest blocks. On small grids the published formula gives none, and the mask is then
            uniformly random: `None` warns of it, 0 accepts it, 1 mends it.

    Raises:
        ConfigError: if nothing would be visible, or `block` is below 1.
    """
    k = visible_count(grid, keep)
    centres = block_count(grid, share=keep, adjust=adjust, block=block)
    if centres == 0 and at_least is None:
        warnings.warn(
            OticWarning(
                f"inverse block masks on a {grid[0]}x{grid[1]} grid: no {block}x{block} block fits keep={keep:g}, "
                "so the masks are uniformly random. Use longer clips, a smaller block, or at_least=1."
            ),
            stacklevel=2,
        )
    return _exactly(k, squares(count, grid, max(centres, at_least or 0), block, gen), gen)


def block(count: int, grid: tuple[int, int], *, keep: float, block: int = 5, gen: Generator) -> Bool[Tensor, "count n"]:
    """Hides square blocks (data2vec 2.0 without inversion), then trims or fills to exactly int(n * keep) visible.

    Arguments and errors as in `inverse_block`; the number of blocks follows the hidden share, at least one.
    """
    k = visible_count(grid, keep)
    centres = max(1, block_count(grid, share=1 - keep, adjust=0.0, block=block))
    return ~_exactly(size(grid) - k, squares(count, grid, centres, block, gen), gen)


def block_count(grid: tuple[int, int], *, share: float, adjust: float, block: int) -> int:
    """int(n * (share + adjust) / block^2): the published number of block centres, which may be none.

    >>> block_count((64, 8), share=0.2, adjust=0.07, block=5)
    5
    """
    if block < 1:
        raise ConfigError(f"block={block}: a block must be at least one patch wide.")
    return int(size(grid) * ((share + adjust) / block**2))


def squares(count: int, grid: tuple[int, int], centres: int, block: int, gen: Generator) -> Bool[Tensor, "count n"]:
    """The union of `centres` squares in each row, cut at the border, before any correction of the count."""
    time, freq = grid
    at = torch.randint(size(grid), (count, centres), generator=gen, device=gen.device)
    rows = _covers(at // freq, time, block).float()  # [count, centres, time]
    columns = _covers(at % freq, freq, block).float()
    return (rows.mT @ columns > 0).flatten(1)


def _covers(centre: Int[Tensor, "count c"], length: int, block: int) -> Bool[Tensor, "count c length"]:
    """Which positions of one axis a block round `centre` covers: offsets -block//2 .. block-1-block//2."""
    offset = torch.arange(length, device=centre.device) - centre[..., None] + block // 2
    return (offset >= 0) & (offset < block)


def _exactly(k: int, chosen: Bool[Tensor, "count n"], gen: Generator) -> Bool[Tensor, "count n"]:
    """k tokens of each row: all or a random part of the chosen ones, the rest from the others at random."""
    return lowest(draw(chosen.shape, gen) - chosen.float(), k)
