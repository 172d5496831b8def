"""What towers on decibels do first: normalise each mel bin, and (while training) blank stripes out (SpecAugment).

Axes: b clips, c channels, t frames, f mel bins.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn


def normalise(norm: nn.BatchNorm2d, spec: Float[Tensor, "b c t f"]) -> Float[Tensor, "b c t f"]:
    """Batch normalisation of each mel bin, in float32: decibels are too large for less."""
    with torch.autocast(spec.device.type, enabled=False):
        if norm.training:
            return norm(spec.to(norm.weight.dtype).transpose(1, 3)).transpose(1, 3)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.float() * (norm.running_var.float() + norm.eps).rsqrt()
        return torch.addcmul(norm.bias.float() - norm.running_mean.float() * scale, spec.float(), scale)


def stripe(
    x: Float[Tensor, "b c t f"], count: int, widest: tuple[int, int], gen: Generator | None
) -> Float[Tensor, "b c t f"]:
    """`count` stripes of time and as many of mel of each clip set to 0, the mean; the same in all its channels.

    Args:
        x: Normalised decibels.
        count: Stripes along each axis.
        widest: Stripes are narrower than this, in (frames, mel bins); 0: none.
        gen: Source of widths and places.
    """
    for axis, below in zip((2, 3), widest, strict=True):
        for _ in range(count if below else 0):
            inside = _inside(len(x), x.shape[axis], below, need(gen)).to(x.device)
            x = x.masked_fill(inside[:, None, :, None] if axis == 2 else inside[:, None, None], 0.0)
    return x


def crop(x: Float[Tensor, "b c t f"], frames: int, gen: Generator | None) -> Float[Tensor, "b c t2 f"]:
    """So many frames of each clip, from a random one on."""
    gen = need(gen)
    start = torch.randint(x.shape[2] - frames + 1, (len(x), 1), generator=gen, device=gen.device)
    at = start + torch.arange(frames, device=gen.device)
    return torch.take_along_dim(x, at.to(x.device)[:, None, :, None], 2)


def need(gen: Generator | None) -> Generator:
    """The generator, which must be there while training."""
    assert gen is not None, "stripes, crops and dropped paths are drawn from a generator while training: pass gen"
    return gen


def _inside(rows: int, size: int, widest: int, gen: Generator) -> Bool[Tensor, "rows size"]:
    """A stripe for each row: its width uniform in 0 .. widest - 1, its place among all where it fits."""
    u = torch.rand(rows, 2, generator=gen, device=gen.device)
    width = (u[:, :1] * min(widest, size)).long()
    start = (u[:, 1:] * (size - width)).long()
    at = torch.arange(size, device=gen.device)
    return (at >= start) & (at < start + width)
