"""SSAST's masks and its shared pass: against the published loop, and against two passes, one thread."""

from __future__ import annotations

import random
from dataclasses import replace

import torch

from benchmarks import table
from benchmarks.clock import best
from otic import masking
from otic.core.batch import Batch
from otic.core.seeds import generator
from otic.objectives import MSPM
from otic.recipes import RECIPES

CLIPS, GRID, HIDDEN = 24, (64, 8), 400  # the published base run's batch


def rows() -> list[str]:
    """Markdown: the sampler, then the training step."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return table(["what", "ours ms", "reference", "reference ms", "ratio"], [sampler(), *passes()])
    finally:
        torch.set_num_threads(threads)


def sampler() -> list[str]:
    """A mask for each clip of a batch: ours, and the published algorithm clip by clip."""
    gen, rng = generator("bench"), random.Random(0)
    ours, theirs = best(
        lambda: masking.clusters(CLIPS, GRID, hidden=HIDDEN, gen=gen),
        lambda: [loop(rng) for _ in range(CLIPS)],
    )
    return _row(f"masks of {CLIPS} clips, {HIDDEN} of {GRID[0] * GRID[1]}", ours, "loop as published", theirs)


def loop(rng: random.Random) -> list[int]:
    """One mask by the published rule (YuanGongND/ssast), which counts distinct indices anew at every draw."""
    time, n = GRID[0], GRID[0] * GRID[1]
    side, found = rng.randrange(3) + 3, []
    while len(set(found)) <= HIDDEN:
        start = rng.randrange(n)
        near = (start + time * i + j for i in range(side) for j in range(side))
        found += [k for k in near if 0 < k < n]
    return list(set(found))[:HIDDEN]


def passes() -> list[list[str]]:
    """Forward and backward of the base model, one pass for both losses against two."""
    recipe = RECIPES["ssast_patch_base"]()
    spec = torch.randn(1, 1, recipe.frames, 128, generator=generator("bench", "clips"))
    batch = Batch(torch.zeros(1, 1), torch.ones(1, dtype=torch.long), spec=spec)
    encoder, _ = recipe.build()
    steps = {}
    for kind in ("shared", "two"):
        objective = MSPM(encoder, replace(recipe.objective, passes=kind, sampler="balanced"))
        steps[kind] = lambda objective=objective: objective(batch, generator("bench")).total.backward()
    shared, two = best(steps["shared"], steps["two"], seconds=40)
    return [_row("forward and backward of ssast_patch_base, shared pass", shared, "two passes", two)]


def _row(what: str, ours: float, reference: str, theirs: float) -> list[str]:
    return [what, f"{1e3 * ours:.2f}", reference, f"{1e3 * theirs:.1f}", f"{theirs / ours:.2f}x"]
