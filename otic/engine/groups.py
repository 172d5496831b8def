"""Which tensor learns how fast while fine-tuning: layer-wise decay of the learning rate."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Literal

from torch import nn

from otic.core.ramps import Cosine

STEM = re.compile(r"(?:^|\.)(?:proj|extra_tokens|extra_positions|position_table|embed_norm)(?:\.|$)")  # of `ViT`


def layer_decay_groups(
    module: nn.Module,
    *,
    lr: float,
    decay: float = 0.65,
    weight_decay: float = 0.05,
    exact: bool = True,
    stem: Literal["full", "lowest"] = "full",
) -> list[dict[str, Any]]:
    """Optimizer groups in which block i of L learns with lr * decay^(L - i), everything else with lr.

    That is what EAT's code does: patch embedding, CLS token, first norm and head keep the full rate. It also means to
    spare biases and norms from weight decay but never does (`exact`); `exact=False` spares them. BEiT, MAE and
    Audio-MAE let patch embedding, extra tokens and positions learn slowest, with lr * decay^(L + 1): `stem="lowest"`.

    Args:
        module: What is trained; blocks are found by `blocks.<i>.` in the names.
        lr: Peak of the head.
        decay: From one block to the next below.
        weight_decay: Of every tensor, or of matrices only.
        exact: As EAT's published weights were made.
        stem: Whether what comes before the blocks keeps the full rate or has the lowest.

    Returns:
        Groups `{params, names, lr, lr_scale, weight_decay}`, blocks first; `lr` is the group's own peak.
    """
    trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
    blocks = {name: int(m[1]) for name, _ in trained if (m := re.search(r"(?:^|\.)blocks\.(\d+)\.", name))}
    depth = max(blocks.values(), default=-1) + 1
    groups: dict[tuple[int, float], dict[str, Any]] = {}
    for name, p in trained:
        block = blocks.get(name, -1 if stem == "lowest" and STEM.search(name) else depth)
        shrink = weight_decay if exact or p.squeeze().ndim > 1 else 0.0
        scale = decay ** (depth - block)
        fresh = {"params": [], "names": [], "lr": lr * scale, "lr_scale": scale, "weight_decay": shrink}
        group = groups.setdefault((block, shrink), fresh)
        group["params"].append(p)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def scaled(schedule: Cosine, scale: float) -> Cosine:
    """A group's own schedule: its peak is scaled, the floor stays; a peak below the floor stays constant.

    >>> scaled(Cosine(peak=1.0, steps=100, floor=0.5, first=0.5), 0.25)(50)
    0.25
    """
    peak = schedule.peak * scale
    return replace(schedule, peak=peak, floor=min(schedule.floor, peak), first=min(schedule.first, peak))
