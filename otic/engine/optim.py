"""The optimiser: Adam over groups of parameters, and the schedule's learning rate in it."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.autograd.graph import increment_version
from torch.optim import Adam, AdamW, Optimizer

from otic.engine.adam import FairseqAdam
from otic.engine.config import TrainConfig


def parameter_groups(module: nn.Module, cfg: TrainConfig) -> list[dict[str, Any]]:
    """Trained parameters with their weight decay (`cfg.decay` says whether 1-D ones have any)."""
    trained = [p for p in module.parameters() if p.requires_grad]
    flat = [p for p in trained if _is_vector(p) and cfg.decay == "intended"]
    spared = {id(p) for p in flat}
    groups = [
        {"params": [p for p in trained if id(p) not in spared], "weight_decay": cfg.weight_decay},
        {"params": flat, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def _is_vector(p: nn.Parameter) -> bool:
    """A bias, a norm's scale, or a token `[1, 1, d]`; a matrix with one row is still a matrix."""
    return p.ndim != 2 and p.squeeze().ndim < 2


def make_optimizer(module: nn.Module, cfg: TrainConfig) -> Optimizer:
    """Adam as `cfg` says, its decay decoupled or (SSAST) coupled; its learning rate is set before each step."""
    groups = parameter_groups(module, cfg)
    if cfg.adam == "fairseq":
        return FairseqAdam(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps)
    if cfg.adam == "l2":
        return Adam(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps, fused=True)
    return AdamW(groups, lr=0.0, betas=cfg.betas, eps=cfg.eps, fused=True)


def step_optimizer(optimizer: Optimizer, lr: float) -> None:
    """One step at `lr` (times a group's `lr_scale`, where it has one), then no gradients."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
    optimizer.step()
    for group in optimizer.param_groups:
        increment_version(group["params"])  # fused ones do not, and `models.linear` would keep weights that are no more
    optimizer.zero_grad()
