"""Initial weights from a generator passed in, never from the global seed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Generator, nn


@torch.no_grad()
def init_linear(module: nn.Module, gen: Generator, std: float = 0.02) -> None:
    """Every Linear below `module`: weights N(0, std), biases zero (EAT, data2vec 2.0)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.weight.normal_(0.0, std, generator=gen)
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def init_xavier(module: nn.Module, gen: Generator) -> None:
    """Every Linear below `module`: weights Xavier-uniform, biases zero (MAE, Audio-MAE)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = math.sqrt(6 / sum(layer.weight.shape))
            layer.weight.uniform_(-bound, bound, generator=gen)
            if layer.bias is not None:
                layer.bias.zero_()


@torch.no_grad()
def shrink_residuals(blocks: Iterable[Any]) -> None:
    """What block i = 1, 2, ... adds is divided by sqrt(2 i): the weights of `attn.proj` and `mlp.fc2` (I-JEPA)."""
    for i, block in enumerate(blocks, 1):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.div_(math.sqrt(2 * i))


@torch.no_grad()
def init_default(module: nn.Module, gen: Generator) -> None:
    """PyTorch's own rule for Linear and Conv2d, uniform in +-1/sqrt(fan_in), drawn from `gen`."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            layer.weight.uniform_(-bound, bound, generator=gen)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=gen)


@torch.no_grad()
def init_patches(conv: nn.Conv2d, gen: Generator, rule: Literal["xavier", "default", "normal"] = "xavier") -> None:
    """Patch embedding.

    Args:
        conv: Its layer.
        gen: Source of the weights.
        rule: `"xavier"`: uniform on the (width, pixels) matrix, bias by PyTorch's rule (EAT, Audio-MAE); `"default"`:
            both by PyTorch's (SSAST); `"normal"`: N(0, 0.02), bias zero (I-JEPA, which cuts at 100 deviations).
    """
    init_default(conv, gen)
    if rule == "xavier":
        width, pixels = conv.weight.flatten(1).shape
        bound = math.sqrt(6 / (width + pixels))
        conv.weight.uniform_(-bound, bound, generator=gen)
    elif rule == "normal":
        conv.weight.normal_(0.0, 0.02, generator=gen)
        if conv.bias is not None:
            conv.bias.zero_()
