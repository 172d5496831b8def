"""From encoded patches back to something defined on every patch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.init import init_default


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    dim: int | None = None  # channels of the convolutions; None: the encoder's width
    layers: int = 6  # convolutions
    kernel: int = 3  # their side, in patches
    groups: int = 16  # channel groups of each


class CNNDecoder(nn.Module):
    """EAT's decoder: grouped convolutions over the patch grid, then a linear layer (data2vec 2.0's, in 2-D).

    Each layer is conv, LayerNorm over channels (eps 1e-5, no parameters), GELU, and the residual where
    the channel counts agree.

    Args:
        width: Channels in and out.
        dim, layers, kernel, groups: As in `DecoderConfig`.
        gen: Source of the initial weights.

    Raises:
        ConfigError: if the groups do not divide the channels.
    """

    def __init__(
        self,
        width: int,
        dim: int | None = None,
        layers: int = 6,
        kernel: int = 3,
        groups: int = 16,
        gen: Generator | None = None,
    ):
        super().__init__()
        dim = dim or width
        if width % groups or dim % groups:
            raise ConfigError(f"decoder groups={groups} do not divide width {width} and dim {dim}.")
        inputs = [width] + [dim] * (layers - 1)
        # an even kernel pads one too many at the end, which forward cuts off
        self.convs = nn.ModuleList(nn.Conv2d(c, dim, kernel, padding=kernel // 2, groups=groups) for c in inputs)
        self.proj = nn.Linear(dim if layers else width, width)
        if not self.proj.weight.is_meta:
            init_default(self, gen or generator("decoder"))

    def forward(self, x: Float[Tensor, "b n d"], grid: tuple[int, int]) -> Float[Tensor, "b n d"]:
        """Predict for every patch of a (time, freq) grid."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))  # else each residual sum would be float32 and be cast again
        x = x.unflatten(1, grid)  # [b, t', f', d]: the memory order that convolutions call channels-last
        for conv in self.convs:
            y = conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)[:, : grid[0], : grid[1]]
            y = F.gelu(F.layer_norm(y, y.shape[-1:]))
            x = x + y if x.shape == y.shape else y
        return self.proj(x).flatten(1, 2)
