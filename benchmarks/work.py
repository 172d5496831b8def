"""A training step: how much arithmetic it is, counted operation by operation, and how long it takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from otic.audio.frontend import Frontend
from otic.core.batch import Batch
from otic.core.seeds import generator
from otic.engine.optim import make_optimizer, step_optimizer
from otic.models.linear import FUSED
from otic.objectives import Objective
from otic.recipes import Recipe

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def flops(objective: nn.Module, batch: Batch, draw: int = 0) -> float:
    """Floating-point operations of forward and backward for one clip, a multiply and an add counted apart.

    `draw` numbers the masks: those of A-JEPA differ in size.

    Counts what is executed (PyTorch's own counter over matrix products and convolutions), teachers included; the
    optimiser, norms and activations are left out, which is below a percent at these sizes.
    """
    with sdpa_kernel(SDPBackend.MATH):  # the fused CPU kernel is not counted; the products it replaces are
        counter = FlopCounterMode(display=False, custom_mapping=RULES)
        with counter:
            objective(batch, generator("work", draw)).total.backward()
    objective.zero_grad()
    return float(counter.get_total_flops()) / len(batch)


def _backward(
    grad: torch.Size, x: torch.Size, weight: torch.Size, *rest: Any, out_shape: Any = None, **_: Any
) -> float:
    """A forward's worth for each of the two gradients that is asked for; PyTorch's rule forgets about groups."""
    mask = rest[-1]
    once = 2 * grad[0] * prod(grad[2:]) * prod(weight)
    return once * (bool(mask[0]) + bool(mask[1]))


def _linear(x: torch.Size, *_: Any, out_shape: Any = None, **__: Any) -> float:
    """A product with laid-out weights, whose own shape tells nothing."""
    return 2 * prod(x) * out_shape[-1]


# what PyTorch counts wrongly or not at all: grouped convolutions, and products by teachers, which only infer
RULES: dict[Any, Callable[..., float]] = {torch.ops.aten.convolution_backward: _backward}
if FUSED:
    RULES[torch.ops.mkldnn._linear_pointwise] = _linear


def batch(recipe: Recipe, clips: int) -> Batch:
    """Noise in the shapes of the recipe's batches, with labels and texts for those that want them."""
    samples = round(recipe.crop_seconds * recipe.frontend.sample_rate)
    wave = torch.randn(clips, samples, generator=generator("bench", "clips"))
    names = [str(i) for i in range(clips)]
    text = [f"a dog barks {name} times, then it rains" for name in names]
    made = Batch(wave, torch.full((clips,), samples), labels=torch.arange(clips) % 2, text=text, ids=names)
    return Frontend(recipe.frontend).fill(made, recipe.frames or None).to(DEVICE)


def seconds(
    recipe: Recipe, objective: Objective, given: Batch, dtype: torch.dtype, steps: int = 2, first: int = 0
) -> float:
    """The fastest of `steps` whole training steps, after one that warms up; `first` steps have gone before."""
    optimizer = make_optimizer(objective, recipe.train)
    params = [p for p in objective.parameters() if p.requires_grad]
    times = []
    for step in range(steps + 1):
        wait()
        start = time.perf_counter()
        with torch.autocast(DEVICE.type, dtype, enabled=dtype != torch.float32):
            loss = objective(given, generator("bench", step, device=DEVICE))
        loss.total.backward()
        nn.utils.clip_grad_norm_(params, recipe.train.clip or math.inf)
        step_optimizer(optimizer, 1e-5)
        objective.after_step(first + step + 1)
        wait()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def wait() -> None:
    """Until the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
