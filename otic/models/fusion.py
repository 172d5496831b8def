"""How LAION-CLAP hears clips longer than its window: the whole, shrunk, fused with three parts of it at full length.

Wu et al. 2022 (arXiv 2211.06687), section 3.3; attentional feature fusion of Dai et al. 2020 (arXiv 2009.14082):
a gate between 0 and 1 for each channel and place, made of both inputs, weighs one against the other.

Axes: b clips, c parts, d width, y rows (mel) and x columns (time) of a picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class Fusion(nn.Module):
    """The parts' own patches, three times as long as those of the whole, and the gate between both.

    Args:
        width: Channels.
        patch: Side of a patch of the whole.
        stride: Pixels between patches of the whole.
        reduction: The gate's inner channels are the width over this.
    """

    def __init__(self, width: int, patch: int, stride: int, reduction: int = 4):
        super().__init__()
        inner = width // reduction
        self.proj = nn.Conv2d(1, width, (patch, 3 * patch), (stride, 3 * stride), (patch - stride) // 2)
        self.local = nn.Sequential(*_gate(width, inner))
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), *_gate(width, inner))

    def forward(self, whole: Float[Tensor, "b d y x"], parts: Float[Tensor, "b c yp xp"]) -> Float[Tensor, "b d y x"]:
        """Args: embedded patches of the shrunk whole; pictures of the parts, in time order."""
        b, c = parts.shape[:2]
        series = self.proj(parts.flatten(0, 1)[:, None]).unflatten(0, (b, c)).permute(0, 2, 3, 1, 4).flatten(3)
        length = whole.shape[3]
        parts = F.pad(series, (0, max(0, length - series.shape[3])))[..., :length]
        both = whole + parts
        if self.training and b == 1:  # a batch norm over a single value has no variance
            both = torch.cat((both, both))
        weight = (self.local(both) + self.whole(both)).sigmoid()[:b]
        return 2 * whole * weight + 2 * parts * (1 - weight)


def _gate(width: int, inner: int) -> tuple[nn.Module, ...]:
    return (
        nn.Conv2d(width, inner, 1),
        nn.BatchNorm2d(inner),
        nn.ReLU(),
        nn.Conv2d(inner, width, 1),
        nn.BatchNorm2d(width),
    )
