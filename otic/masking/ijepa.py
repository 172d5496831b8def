"""I-JEPA's own multi-block sampler, number for number (arXiv 2301.08243; facebookresearch/ijepa @ 52c1ae9).

For comparison with `multi_block`, which does not inherit its habits: scale and aspect come from one number; the last
row and column are never in a block; blocks are square in patches, so on a long grid they are cut at its short side;
contexts are cut to the smallest of the batch by dropping the highest indices, the latest time steps.

The published sampler can loop for ever on small grids (its issue 68); this one gives in where that would begin.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from otic.core.errors import ConfigError
from otic.masking.multi_block import TRIES, Views
from otic.masking.uniform import size

Side = tuple[int, int]


def ijepa_legacy(
    count: int,
    grid: tuple[int, int],
    *,
    step: int,
    targets: int = 4,
    contexts: int = 1,
    scale: tuple[float, float] = (0.15, 0.2),
    aspect: tuple[float, float] = (0.75, 1.5),
    context: tuple[float, float] = (0.85, 1.0),
    min_keep: int = 10,
    overlap: bool = False,
    gen: Generator,
) -> Views:
    """The published collator: sizes follow from the step alone, places from `gen`.

    Args:
        count: Number of clips.
        grid: (time, freq) patches of one clip: upstream's (height, width).
        step: Seed of the generator of block sizes.
        targets: Target blocks of each clip.
        contexts: Context blocks of each clip.
        scale: Range of a target block's share of the grid.
        aspect: Range of its height over its width, in patches.
        context: Range of a context block's share of the grid; it is square.
        min_keep: A block must keep more tokens than this.
        overlap: Whether contexts keep what lies in target blocks.
        gen: Source of the places; a CPU generator in the state of upstream's global one gives upstream's masks.

    Raises:
        ConfigError: if the grid has a single token.
    """
    if size(grid) < 2:
        raise ConfigError(f"multi-block masks on a {grid[0]}x{grid[1]} grid: expected two tokens or more.")
    target, frame = ijepa_sizes(grid, step=step, scale=scale, aspect=aspect, context=context)
    seen, blocks = [], []
    for _ in range(count):
        hidden = [_block(target, grid, [], min_keep, gen) for _ in range(targets)]
        free = [] if overlap else [~block for block in hidden]
        seen.append(torch.stack([_block(frame, grid, free, min_keep, gen) for _ in range(contexts)]))
        blocks.append(torch.stack(hidden))
    return Views(_cut(torch.stack(seen)).to(gen.device), _cut(torch.stack(blocks)).to(gen.device))


def ijepa_sizes(
    grid: tuple[int, int],
    *,
    step: int,
    scale: tuple[float, float],
    aspect: tuple[float, float],
    context: tuple[float, float],
) -> tuple[Side, Side]:
    """Sides of a step's target and context blocks, the target's drawn first."""
    gen = torch.Generator().manual_seed(step)
    return _side(grid, scale, aspect, gen), _side(grid, context, (1.0, 1.0), gen)


def _side(grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float], gen: Generator) -> Side:
    u = float(torch.rand(1, generator=gen))
    area = int(grid[0] * grid[1] * (scale[0] + u * (scale[1] - scale[0])))
    ratio = aspect[0] + u * (aspect[1] - aspect[0])
    high, wide = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
    # upstream has no lower bound, and then never ends
    return max(1, min(high, grid[0] - 1)), max(1, min(wide, grid[1] - 1))


def _block(side: Side, grid: tuple[int, int], free: list[Tensor], min_keep: int, gen: Generator) -> Bool[Tensor, " n"]:
    """A block at a random place, within all of `free`; after each 20 failures the last of these is given up."""
    for given in range(len(free), -1, -1):
        for _ in range(TRIES):
            block = _anywhere(side, grid, gen)
            kept = block
            for region in free[:given]:
                kept = kept & region
            if int(kept.sum()) > min_keep:
                return kept
    return block  # upstream would go on for ever: nothing is left to give up


def _anywhere(side: Side, grid: tuple[int, int], gen: Generator) -> Bool[Tensor, " n"]:
    top, left = (
        int(torch.randint(0, max(1, length - width), (1,), generator=gen, device=gen.device))
        for length, width in zip(grid, side, strict=True)
    )
    mask = torch.zeros(grid, dtype=torch.bool)
    mask[top : top + side[0], left : left + side[1]] = True
    return mask.flatten()


def _cut(masks: Bool[Tensor, "count m n"]) -> Bool[Tensor, "count m n"]:
    """As many tokens in each as the smallest has; the first ones are kept."""
    return masks & (masks.cumsum(2) <= masks.sum(2).min())
