"""Adam as the published EAT weights were trained with (fairseq's)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor


class FairseqAdam(torch.optim.Optimizer):
    """Adam with decoupled decay whose epsilon joins sqrt(v) before the bias correction of v.

        p <- p (1 - lr wd);   p <- p - lr sqrt(1 - b2^s) / (1 - b1^s) * m / (sqrt(v) + eps)

    `torch.optim.AdamW` adds epsilon afterwards. Early steps with tiny gradients then differ by up to a few tenths
    of lr; after some thousand steps nothing is left of it. All tensors of a group move together (foreach).

    Args:
        params: Parameters, or groups with their own `lr` and `weight_decay`.
        lr: Step size.
        betas: Decay of the moments.
        eps: See above.
        weight_decay: Share of lr by which weights shrink.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 5e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.05,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moving: dict[int, list[Tensor]] = {}  # tensors that joined later have made fewer steps
            for p in group["params"]:
                if p.grad is not None:
                    moving.setdefault(self._advance(p), []).append(p)
            for step, params in moving.items():
                self._move(group, step, params)
        return loss

    def _advance(self, p: Tensor) -> int:
        """The number of this tensor's step, from 1."""
        state = self.state[p]
        if not state:
            state.update(step=0, exp_avg=torch.zeros_like(p), exp_avg_sq=torch.zeros_like(p))
        state["step"] += 1
        return state["step"]

    def _move(self, group: dict[str, Any], step: int, params: list[Tensor]) -> None:
        lr, eps, decay, (b1, b2) = group["lr"], group["eps"], group["weight_decay"], group["betas"]
        grads = [p.grad for p in params if p.grad is not None]
        first = [self.state[p]["exp_avg"] for p in params]
        second = [self.state[p]["exp_avg_sq"] for p in params]
        torch._foreach_lerp_(first, grads, 1 - b1)
        torch._foreach_mul_(second, b2)
        torch._foreach_addcmul_(second, grads, grads, value=1 - b2)
        scale = torch._foreach_sqrt(second)
        torch._foreach_add_(scale, eps)
        if decay:
            torch._foreach_mul_(params, 1 - lr * decay)
        size = lr * math.sqrt(1 - b2**step) / (1 - b1**step)
        torch._foreach_addcdiv_(params, first, scale, value=-size)
