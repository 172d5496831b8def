"""What is read of an encoder, of whatever kind: chosen layers, pooled or frame by frame, clip by clip.

Axes: b clips, c channels, t frames, f mel bins, u columns of tokens (or 1, pooled), n tokens of a (time, freq) grid,
m tokens with extra ones, d width, D width of what is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from otic.core.errors import ConfigError
from otic.models.cnn14 import Cnn14
from otic.models.pooling import frames as by_frame
from otic.models.pooling import pool
from otic.models.vit import ViT

Layer = tuple[Tensor | None, Tensor]  # (CLS [b, d] or None, tokens [b, n, d])
SERIES = "series"  # the reading that pools nothing: all frames, in order


def whole(encoder: Any, frames: int) -> int:
    """Frames that a clip of so many goes in with: a ViT's last column of patches is filled up, a Cnn14's first step.

    Clips for which they are equal can share a batch.
    """
    if isinstance(encoder, Cnn14):
        return max(frames, encoder.frames_per_step)
    if not isinstance(encoder, ViT):
        return frames
    patch, step = encoder.patch[0], encoder.cfg.step[0]
    return patch + max(0, -(-(frames - patch) // step)) * step


def layers_of(
    encoder: Any, spec: Float[Tensor, "b c t f"], layers: Sequence[int] = (), **more: Any
) -> tuple[list[Layer], tuple[int, int]]:
    """The chosen layers (none: the output), and the grid of their tokens; `more` goes to the encoder."""
    seen, grid = encoder(spec, taps=bool(layers), **more), encoder.grid(spec.shape[2])
    if not layers or not isinstance(encoder, ViT):
        return [(seen.cls, seen.patches)] * max(1, len(layers)), grid  # the others' one readable layer is their output
    cfg = encoder.cfg
    return [(seen.layers[i][:, 0] if cfg.cls else None, seen.layers[i][:, cfg.extra :]) for i in layers], grid


def vector(
    cls: Tensor | None, patches: Float[Tensor, "b n d"], grid: tuple[int, int], how: str
) -> Float[Tensor, "b D"]:
    """One vector for each clip: `cls` or a name of `models.pooling`, several joined by `+` side by side.

    Raises:
        ConfigError: when `cls` is asked of an encoder that has none.
    """
    names = how.split("+")
    if cls is None and "cls" in names:
        raise ConfigError("pool='cls': this encoder has no CLS token. Pool its patches, with 'mean' say.")
    parts = [cls if name == "cls" else pool(patches, grid, name) for name in names]
    return torch.cat([part for part in parts if part is not None], -1)


def read(
    found: Sequence[Layer], grid: tuple[int, int], how: str, bands: Literal["mean", "concat"] = "mean"
) -> Float[Tensor, "b u D"]:
    """Every frame (`series`, its mel bands averaged or side by side) or one vector (u = 1), layers side by side."""
    if how == SERIES:
        return torch.cat([by_frame(patches, grid, bands) for _, patches in found], -1)
    return torch.cat([vector(cls, patches, grid, how) for cls, patches in found], -1)[:, None]


def width_read(encoder: Any, how: str, layers: int = 1, bands: Literal["mean", "concat"] = "mean") -> int:
    """D: the width of what `read` gives of so many layers."""
    nothing = torch.zeros(1, encoder.bands, encoder.width, device="cpu")
    cls = nothing[:, 0] if getattr(encoder.cfg, "cls", True) else None
    return layers * read([(cls, nothing)], (1, encoder.bands), how, bands).shape[2]


def by_length(
    encoder: Any,
    spec: Float[Tensor, "b c t f"],
    frames: Int[Tensor, " b"] | None,
    read: Callable[[Tensor, list[int]], Tensor],
) -> list[Float[Tensor, "_ D"]]:
    """What `read` says of each clip. Clips that fill equally many columns go through it together, without padding.

    Args:
        encoder: Whose columns count.
        spec: Spectrograms of one length, padded at the end.
        frames: Real frames of each clip; None: all.
        read: Spectrograms and their rows in `spec` to [b, u, D].
    """
    counts = [spec.shape[2]] * len(spec) if frames is None else [int(n) for n in frames.tolist()]
    spans = [min(whole(encoder, count), spec.shape[2]) for count in counts]
    out: list[Tensor] = [spec] * len(spec)
    for span in sorted(set(spans)):
        rows = [i for i, own in enumerate(spans) if own == span]
        part = spec[rows, :, :span] if len(rows) < len(spec) else spec[:, :, :span]
        for i, value in zip(rows, read(part, rows), strict=True):
            out[i] = value
    return out
