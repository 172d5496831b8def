"""From a tower to the joint space: the heads of MS-CLAP and LAION-CLAP.

Axes: b rows, d the tower's width, e the joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from otic.core.seeds import generator
from otic.models.init import init_default

HeadKind = Literal["residual", "mlp", "linear"]


class ResidualHead(nn.Module):
    """y = LayerNorm(e1 + dropout(W2 gelu(e1))), e1 = W1 x (microsoft/CLAP, class Projection)."""

    def __init__(self, width: int, dim: int = 1024, dropout: float = 0.5, gen: Generator | None = None):
        super().__init__()
        self.dropout = dropout
        self.linear1 = nn.Linear(width, dim, bias=False)
        self.linear2 = nn.Linear(dim, dim, bias=False)
        self.layer_norm = nn.LayerNorm(dim)
        _init(self, gen)

    def forward(self, x: Float[Tensor, "b d"], gen: Generator | None = None) -> Float[Tensor, "b e"]:
        first = self.linear1(x)
        return self.layer_norm(first + drop(self.linear2(F.gelu(first)), self.dropout * self.training, gen))


class MLPHead(nn.Module):
    """Linear, ReLU, Linear, with biases (LAION-CLAP); no dropout."""

    def __init__(self, width: int, dim: int = 512, dropout: float = 0.0, gen: Generator | None = None):
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, dim), nn.Linear(dim, dim)
        _init(self, gen)

    def forward(self, x: Float[Tensor, "b d"], gen: Generator | None = None) -> Float[Tensor, "b e"]:
        return self.linear2(F.relu(self.linear1(x)))


class LinearHead(nn.Module):
    """One matrix."""

    def __init__(self, width: int, dim: int, dropout: float = 0.0, gen: Generator | None = None):
        super().__init__()
        self.linear = nn.Linear(width, dim, bias=False)
        _init(self, gen)

    def forward(self, x: Float[Tensor, "b d"], gen: Generator | None = None) -> Float[Tensor, "b e"]:
        return self.linear(x)


HEADS: dict[str, Callable[..., nn.Module]] = {"residual": ResidualHead, "mlp": MLPHead, "linear": LinearHead}


def drop(x: Tensor, rate: float, gen: Generator | None) -> Tensor:
    """Dropout whose coins come from `gen`."""
    if not rate:
        return x
    assert gen is not None, "dropout draws from a generator while training: pass gen"
    keep = torch.rand(x.shape, generator=gen, device=gen.device) >= rate
    return x * (keep / (1 - rate)).to(x)


def _init(module: nn.Module, gen: Generator | None) -> None:
    if not next(module.parameters()).is_meta:
        init_default(module, gen or generator("joint_head"))
