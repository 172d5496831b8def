"""How much arithmetic a training step is, counted operation by operation."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from otic.core.batch import Batch
from otic.core.seeds import generator


def flops(objective: nn.Module, batch: Batch, step: int = 0) -> float:
    """Floating-point operations of forward and backward for one clip, a multiply and an add counted apart.

    Counts what is executed (PyTorch's own counter over matrix products and convolutions), teachers included; the
    optimiser, norms and activations are left out, which is below a percent at these sizes.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the fused CPU kernel is not counted; the products it replaces are
        counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution_backward: _backward})
        with counter:
            objective(batch, generator("work", step)).total.backward()
    objective.zero_grad()
    return float(counter.get_total_flops()) / len(batch)


def _backward(
    grad: torch.Size, x: torch.Size, weight: torch.Size, *rest: Any, out_shape: Any = None, **_: Any
) -> float:
    """A forward's worth for each of the two gradients that is asked for; PyTorch's rule forgets about groups."""
    mask = rest[-1]
    once = 2 * grad[0] * prod(grad[2:]) * prod(weight)
    return once * (bool(mask[0]) + bool(mask[1]))
