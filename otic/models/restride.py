"""The same encoder with its patches closer together or further apart.

AST and SSAST (arXiv 2110.09784 section 3.1) pre-train with patches side by side and fine-tune with overlapping ones:
16 x 16 patches every 10 frames and bands, 2-frame patches every frame.
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from otic.core.errors import ConfigError
from otic.models.vit import ViT


def restride(encoder: ViT, stride: tuple[int, int], *, physical: bool = False) -> ViT:
    """A copy of an encoder with another stride.

    Args:
        encoder: Left as it is.
        stride: (frames, mel bins) from one patch to the next.
        physical: Learned positions are interpolated so that a patch gets the code of where it lies in time and
            frequency. Otherwise neighbours get consecutive rows of the table however far apart they are, as published.

    Raises:
        ConfigError: if the stride is below 1, or its positions are neither learned nor made by formula.

    >>> from otic.models import ViTConfig
    >>> frame = ViT(ViTConfig(width=8, depth=1, heads=1, patch=(2, 128), positions="learned", table=(50, 1)))
    >>> restride(frame, (1, 128)).grid(100), restride(frame, (1, 128), physical=True).cfg.table
    ((99, 1), (99, 1))
    """
    cfg = encoder.cfg
    if min(stride) < 1 or cfg.positions == "table":
        raise ConfigError(f"stride={stride} for positions={cfg.positions!r}: expected 1 or more, and no stored codes.")
    changed = replace(cfg, stride=None if stride == cfg.patch else stride)
    state = encoder.state_dict()
    if cfg.positions == "learned" and physical:
        assert cfg.table is not None
        rows, grid = resample(state["position_table"], cfg.table, cfg.step, stride)
        changed, state = replace(changed, table=grid), state | {"position_table": rows}
    elif cfg.positions == "sincos":
        changed = replace(changed, table=None)  # codes by formula are made again for the new grid
        state.pop("position_table", None)
    other = ViT(changed)
    other.load_state_dict(state, strict=True)
    return other.to(encoder.proj.weight.device).train(encoder.training)


def resample(
    table: Float[Tensor, "m d"], grid: tuple[int, int], have: tuple[int, int], want: tuple[int, int]
) -> tuple[Float[Tensor, "n d"], tuple[int, int]]:
    """Codes at every `want` frames and bins of a table with codes at every `have`, bilinear, and their grid.

    The first patch keeps its code, and the last new one lies on or before the last old one.
    """
    image = table.unflatten(0, grid).permute(2, 0, 1)[None]  # [1, d, t', f']
    axes = []
    for length, old, new in zip(grid, have, want, strict=True):
        at = torch.arange((length - 1) * old // new + 1, dtype=table.dtype, device=table.device) * (new / old)
        axes.append(at * 2 / max(1, length - 1) - 1)  # grid_sample's -1..1 from first to last row
    places = torch.stack((axes[1].expand(len(axes[0]), -1), axes[0][:, None].expand(-1, len(axes[1]))), -1)
    out = F.grid_sample(image, places[None], mode="bilinear", align_corners=True, padding_mode="border")
    return out[0].permute(1, 2, 0).flatten(0, 1), (len(axes[0]), len(axes[1]))
