"""Where a patch lies: fixed 2-D sin-cos codes, and learned tables fitted to another grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def sincos(grid: tuple[int, int], width: int, start: int = 0) -> Float[Tensor, "n d"]:
    """Fixed codes of a time-major grid (MAE; EAT's code, where the paper calls them one-dimensional).

    The first half of the channels encodes the mel band, the second half the time step, each as
    [sin(p w_k), cos(p w_k)] with w_k = 10000^(-k / (width / 4)). A shorter grid's codes are a prefix of a
    longer one's.

    Args:
        grid: (time, freq) patches.
        width: Channels, a multiple of 4.
        start: First time step.
    """
    omega = 10000.0 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    time, freq = (torch.arange(g, dtype=torch.float64)[:, None] * omega for g in (start + grid[0], grid[1]))
    time, freq = (torch.cat((a.sin(), a.cos()), 1) for a in (time[start:], freq))  # [t', d/2], [f', d/2]
    code = torch.cat((freq.expand(grid[0], *freq.shape), time[:, None].expand(-1, grid[1], -1)), -1)
    return code.flatten(0, 1).float()


def fit(
    table: Float[Tensor, "m d"], have: tuple[int, int], want: tuple[int, int], crop: bool = True
) -> Float[Tensor, "n d"]:
    """A learned table for another grid: each axis is cropped round its centre or stretched bilinearly.

    Args:
        table: One row for each patch of the grid it was learned on, time-major.
        have: That grid (time, freq).
        want: The grid of the clip at hand.
        crop: Shorter axes keep consecutive rows round the centre (AST, SSAST); otherwise they are resized too.
    """
    image = table.unflatten(0, have).permute(2, 0, 1)[None]  # [1, d, t', f']
    for axis in (0, 1):
        if crop and want[axis] <= have[axis]:
            first = have[axis] // 2 - want[axis] // 2
            image = image.narrow(2 + axis, first, want[axis])
        elif want[axis] != have[axis]:
            size = (want[0], image.shape[3]) if axis == 0 else (image.shape[2], want[1])
            image = F.interpolate(image, size=size, mode="bilinear", align_corners=False)
    return image[0].permute(1, 2, 0).flatten(0, 1)
