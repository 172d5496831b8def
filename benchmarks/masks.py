"""EAT's inverse block masks, 16 for each clip, against a loop over clips, one thread."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks import table
from benchmarks.clock import best
from otic import masking
from otic.core.seeds import generator, rng

HEAD = [
    "clips",
    "grid",
    "otic us/mask",
    "loop us/mask",
    "ratio",
    "max difference of keep probability",
    "its standard error",
]
KEEP, ADJUST, BLOCK, CLONES = 1 - 0.8, 0.07, 5, 16


def rows() -> list[str]:
    """Markdown: batches and grids, our time beside the loop's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return table(
            HEAD, [compare(clips * CLONES, grid) for clips, grid in [(48, (64, 8)), (12, (64, 8)), (48, (32, 8))]]
        )
    finally:
        torch.set_num_threads(threads)


def compare(count: int, grid: tuple[int, int]) -> tuple[object, ...]:
    gen, draw, few = generator("benchmark"), rng("benchmark"), 64
    ours, theirs = best(
        lambda: masking.inverse_block(count, grid, keep=KEEP, adjust=ADJUST, block=BLOCK, gen=gen),
        lambda: [loop(grid, draw) for _ in range(few)],
    )
    samples = 4000
    a = masking.inverse_block(samples, grid, keep=KEEP, adjust=ADJUST, block=BLOCK, gen=gen).float().mean(0).numpy()
    b = np.mean([loop(grid, draw) for _ in range(samples)], 0)
    error = np.sqrt(2 * KEEP * (1 - KEEP) / samples)
    us = 1e6 * ours / count, 1e6 * theirs / few
    return (
        count // CLONES,
        f"{grid[0]}x{grid[1]}",
        f"{us[0]:.1f}",
        f"{us[1]:.1f}",
        f"{us[1] / us[0]:.0f}x",
        f"{np.abs(a - b).max():.4f}",
        f"{error:.4f}",
    )


def loop(grid: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    """One mask by the published rule, with array operations inside the clip but none across clips."""
    n = grid[0] * grid[1]
    centres = draw.integers(0, n, int(n * ((KEEP + ADJUST) / BLOCK**2)))
    offset = np.arange(BLOCK) - BLOCK // 2
    t = (centres // grid[1])[:, None, None] + offset[None, :, None]
    f = (centres % grid[1])[:, None, None] + offset[None, None, :]
    kept = np.zeros(grid, bool)
    kept[t.clip(0, grid[0] - 1), f.clip(0, grid[1] - 1)] = True
    flat, k = kept.ravel(), int(n * KEEP)
    surplus = int(flat.sum()) - k
    if surplus > 0:
        flat[draw.choice(np.flatnonzero(flat), surplus, replace=False)] = False
    elif surplus < 0:
        flat[draw.choice(np.flatnonzero(~flat), -surplus, replace=False)] = True
    return flat
