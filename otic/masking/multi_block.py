"""Multi-block masks: a context and several target blocks (I-JEPA, arXiv 2301.08243; A-JEPA, arXiv 2311.15830).

I-JEPA's blocks are square in patches and keep off the last row and column, which on a 64 x 8 spectrogram leaves
7 % of context. These blocks follow the grid's own proportions and reach every border (our departure).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from otic.core.errors import ConfigError
from otic.masking.uniform import draw, size

Removal = Literal["blocks", "time", "freq", "cross"]
FALLBACK: dict[Removal, Removal] = {"cross": "time", "time": "freq", "freq": "blocks"}
TRIES = 20


class Views(NamedTuple):
    """What the context encoder sees, and what is to be predicted.

    Attributes:
        context: True = visible, for each context of a clip. [count, contexts, n]
        targets: True = inside that target block; every block has equally many tokens. [count, targets, n]
    """

    context: Bool[Tensor, "count e n"]
    targets: Bool[Tensor, "count m n"]


def multi_block(
    count: int,
    grid: tuple[int, int],
    *,
    targets: int = 4,
    contexts: int = 1,
    scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    context: tuple[float, float] = (0.85, 1.0),
    remove: Removal = "blocks",
    min_keep: int | None = None,
    gen: Generator,
) -> Views:
    """Target blocks anywhere on the grid, and a large context block without them.

    Block sizes are drawn once for a call (so that targets stack), places for each block. A clip with a context that
    would be too small is drawn again, up to 20 times; then less is removed (cross, time, freq, blocks), and at
    last the whole grid serves as context block and later targets may overlap it. Never loops for ever.

    Args:
        count: Number of clips.
        grid: (time, freq) patches of one clip.
        targets: Target blocks of each clip.
        contexts: Context blocks of each clip.
        scale: Range of a target block's share of the grid.
        aspect: Range of its aspect ratio, relative to the grid's.
        context: Range of the context block's share of the grid, of the grid's own aspect.
        remove: What leaves the context: the target blocks, or every patch that shares a time step, a frequency
            row, or either (`cross`) with one.
        min_keep: Fewest tokens of a context; by default the larger of 4 and 3 % of the grid.
        gen: Source of all randomness; the masks live on its device.

    Raises:
        ConfigError: if the grid has a single token, or the ranges are not within 0..1.
    """
    n = size(grid)
    shares = 0 < scale[0] <= scale[1] < 1 and 0 < context[0] <= context[1] <= 1
    if n < 2 or not shares or min(targets, contexts) < 1:
        raise ConfigError(
            f"multi-block masks on a {grid[0]}x{grid[1]} grid, {targets} targets of scale {scale}, context {context}: "
            "expected two tokens or more, a target, a context, and shares within 0..1."
        )
    least = min(n - 1, max(4, round(0.03 * n)) if min_keep is None else min_keep)
    target_side = _leave_some(grid, _sides(grid, _between(scale, gen), _between(aspect, gen)))
    context_side = _sides(grid, _between(context, gen), 1.0)
    number = (targets, contexts)
    seen, blocks = _place(count, grid, number, target_side, context_side, remove, gen)
    for _ in range(TRIES):
        short = (seen.sum(2) < least).any(1).nonzero().flatten()
        if not len(short):
            return Views(seen, blocks)
        seen[short], blocks[short] = _place(len(short), grid, number, target_side, context_side, remove, gen)
    return Views(_mend(seen, blocks, grid, remove, least), blocks)


def _place(
    count: int,
    grid: tuple[int, int],
    number: tuple[int, int],
    target_side: tuple[int, int],
    context_side: tuple[int, int],
    remove: Removal,
    gen: Generator,
) -> tuple[Tensor, Tensor]:
    """(contexts [count, e, n], targets [count, m, n]) for these numbers and sizes of blocks."""
    blocks = _rectangles((count, number[0]), grid, target_side, gen)
    frames = _rectangles((count, number[1]), grid, context_side, gen)
    return frames & ~_removed(blocks, grid, remove)[:, None], blocks


def _removed(blocks: Bool[Tensor, "count m n"], grid: tuple[int, int], remove: Removal) -> Bool[Tensor, "count n"]:
    union = blocks.any(1).unflatten(1, grid)
    columns, rows = union.any(2, keepdim=True).expand_as(union), union.any(1, keepdim=True).expand_as(union)
    return {"blocks": union, "time": columns, "freq": rows, "cross": columns | rows}[remove].flatten(1)


def _mend(seen: Tensor, blocks: Tensor, grid: tuple[int, int], remove: Removal, least: int) -> Tensor:
    """Contexts that stayed too small grow: less is removed, then later targets are ignored."""
    seen = seen.clone()
    step: Removal | None = remove
    while step is not None:
        candidate = ~_removed(blocks, grid, step)[:, None]
        seen = torch.where(seen.sum(2, keepdim=True) < least, candidate | seen, seen)
        step = FALLBACK.get(step)
    for used in range(blocks.shape[1] - 1, 0, -1):
        seen = torch.where(seen.sum(2, keepdim=True) < 1, ~blocks[:, :used].any(1)[:, None], seen)
    return seen


def _rectangles(shape: tuple[int, int], grid: tuple[int, int], side: tuple[int, int], gen: Generator) -> Tensor:
    """Blocks of one size at uniform places, every place that fits. [*shape, n]"""
    axes = []
    for length, width in zip(grid, side, strict=True):
        first = torch.randint(length - width + 1, shape, generator=gen, device=gen.device)[..., None]
        at = torch.arange(length, device=gen.device)
        axes.append((at >= first) & (at < first + width))
    return (axes[0][..., :, None] & axes[1][..., None, :]).flatten(-2)


def _sides(grid: tuple[int, int], share: float, aspect: float) -> tuple[int, int]:
    """Height and width of a block that covers `share` of the grid, stretched by `aspect` along time."""
    high, wide = grid[0] * (share * aspect) ** 0.5, grid[1] * (share / aspect) ** 0.5
    return min(max(round(high), 1), grid[0]), min(max(round(wide), 1), grid[1])


def _leave_some(grid: tuple[int, int], side: tuple[int, int]) -> tuple[int, int]:
    """On tiny grids rounding may let a target cover everything: then it is one patch shorter."""
    if side != grid:
        return side
    return (side[0] - 1, side[1]) if side[0] >= side[1] else (side[0], side[1] - 1)


def _between(bounds: tuple[float, float], gen: Generator) -> float:
    return bounds[0] + float(draw((), gen)) * (bounds[1] - bounds[0])
