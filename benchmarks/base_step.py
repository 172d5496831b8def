"""A training step of each base recipe: speed, arithmetic, and the share of the machine that it uses.

A step is forward, backward, clipping, optimiser and teacher update on random ten-second spectrograms. The arithmetic is
counted operation by operation (benchmarks/work.py). A-JEPA's masks change along the run: its numbers are means over it.
"Share" is the rate over that of the machine's own matrix product, measured on all threads right before and after, of
the shape in which most of it happens: it says what is left to gain.
The last column compares EAT with the published code at the same size: 0.127 clips/s in fp32 on two cores.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from statistics import mean

import torch
from torch import nn

from benchmarks import table
from benchmarks.work import DEVICE, batch, flops, seconds, wait
from otic.objectives import Objective
from otic.recipes import RECIPES, Recipe

REFERENCE = {"eat_base": 0.127}  # clips/s of the published code, fp32, two cores
CLIPS = 32 if DEVICE.type == "cuda" else 2


def rows() -> list[str]:
    """Markdown: a row for each base recipe and precision."""
    lines = []
    for name in sorted(name for name in RECIPES if name.endswith("_base")):
        recipe = ready(RECIPES[name]())
        _, objective = recipe.build()
        objective.to(DEVICE).train()
        work = mean(flops(along(objective, point), batch(recipe, 2), point) for point in points(recipe)) / 1e9
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            before = matmul_rate(dtype)
            given = batch(recipe, CLIPS)
            rate = CLIPS / mean(
                seconds(recipe, along(objective, point), given, dtype, steps=1, first=point) for point in points(recipe)
            )
            peak = max(before, matmul_rate(dtype))
            ratio = f"{rate / REFERENCE[name]:.1f}" if name in REFERENCE and DEVICE.type == "cpu" else ""
            share = f"{rate * work / peak:.0%}"
            numbers = [f"{work:.0f}", f"{rate:.3g}", f"{rate * work:.0f}", f"{peak:.0f}", share, ratio]
            lines.append([name, precision, *numbers])
    head = ["recipe", "precision", "GFLOP/clip", "clips/s", "GFLOP/s", "matmul GFLOP/s", "share", "x published code"]
    return table(head, lines)


def points(recipe: Recipe) -> list[int]:
    """The steps that are looked at: the first one, or some along the run of a method with a curriculum."""
    count = 4 if hasattr(recipe.objective, "curriculum") else 0
    return [round(recipe.train.steps * (k + 0.5) / count) for k in range(count)] or [0]


def along(objective: Objective, step: int) -> Objective:
    """The objective where that many steps have gone before."""
    if step:
        objective.after_step(step)
    return objective


def ready(recipe: Recipe) -> Recipe:
    """Where a recipe wants a teacher, the student's own moving average; where it wants labels, AudioSet's 527."""
    cfg = recipe.objective
    if hasattr(cfg, "teachers") and getattr(cfg, "recon", "") != "spectrogram":  # pixels alone: SupMAM wants none
        cfg = replace(cfg, teachers=("self",))
    if hasattr(cfg, "classes"):
        cfg = replace(cfg, classes=527)
    return replace(recipe, objective=cfg)


def matmul_rate(dtype: torch.dtype, tokens: int = 1648, width: int = 768, repeats: int = 12) -> float:
    """GFLOP/s of the largest matrix product of a block, the best of several."""
    tokens *= CLIPS // 2
    layer = nn.Linear(width, 4 * width, device=DEVICE, dtype=dtype)
    x = torch.randn(tokens, width, device=DEVICE).to(dtype)
    best = math.inf
    with torch.no_grad():
        for _ in range(repeats):
            wait()
            start = time.perf_counter()
            layer(x)
            wait()
            best = min(best, time.perf_counter() - start)
    return 8 * tokens * width**2 / best / 1e9
