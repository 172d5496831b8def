"""Training-time changes of SSAST and AST (ssast `dataloader.py`): wave mixup, spectrogram masks, noise and shift.

Axes: b clips, s samples, t frames, f mel bands.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor


def mix(first: Float[Tensor, " s"], second: Float[Tensor, " s2"], share: float) -> Float[Tensor, " s"]:
    """`share` of the first wave and the rest of the second, each without its mean, as long as the first.

    The second wave is cut or zero-padded at its end; the mixture's own mean is removed too.
    """
    second = second - second.mean()
    second = F.pad(second, (0, max(0, len(first) - len(second))))[: len(first)]
    mixed = share * (first - first.mean()) + (1 - share) * second
    return mixed - mixed.mean()


def strip(uniform: Float[Tensor, "... 2"], size: int, widest: int) -> Int[Tensor, "... 2"]:
    """(first index, width) of a strip: width floor(u1 * widest), start floor(u2 * (size - u1 * widest)).

    Args:
        uniform: Two numbers in [0, 1) for each strip: for its width, then for its place.
        size: Length of the axis.
        widest: Widths are below it.
    """
    width = uniform[..., 0] * widest
    start = uniform[..., 1] * (size - width)
    return torch.stack([start.long(), width.long()], -1)


def hide(
    spec: Float[Tensor, "b 1 t f"], *, freq: Int[Tensor, "b 2"] | None, time: Int[Tensor, "b 2"] | None, value: float
) -> Float[Tensor, "b 1 t f"]:
    """One frequency and one time strip (first index, width) of each clip set to `value`."""
    covered = torch.zeros_like(spec, dtype=torch.bool)
    for strips, axis in ((freq, 3), (time, 2)):
        if strips is not None:
            at = torch.arange(spec.shape[axis], device=spec.device)
            inside = (at >= strips[:, :1]) & (at < strips.sum(1, keepdim=True))
            covered = covered | (inside[:, None, None] if axis == 3 else inside[:, None, :, None])
    return spec.masked_fill(covered, value)


def spec_augment(
    spec: Float[Tensor, "b 1 t f"], *, freq: int, time: int, value: float, gen: Generator
) -> Float[Tensor, "b 1 t f"]:
    """SpecAugment with one frequency strip below `freq` bands and one time strip below `time` frames for each clip.

    Args:
        spec: Spectrograms, raw or normalised.
        freq: Frequency strips are narrower than this; 0 for none.
        time: Time strips are shorter than this; 0 for none.
        value: What the strips hold; upstream's 0 of the raw log-mel is `Frontend.pad_value` after normalising.
        gen: Source of the randomness.
    """

    def draw(size: int, widest: int) -> Tensor | None:
        u = torch.rand(len(spec), 2, generator=gen, device=gen.device)
        return strip(u, size, widest).to(spec.device) if widest else None

    return hide(spec, freq=draw(spec.shape[3], freq), time=draw(spec.shape[2], time), value=value)


def noise_and_shift(
    spec: Float[Tensor, "b 1 t f"],
    field: Float[Tensor, "b 1 t f"],
    level: Float[Tensor, " b"],
    shift: Int[Tensor, " b"],
) -> Float[Tensor, "b 1 t f"]:
    """Adds `field * level / 10` to normalised spectrograms, then rolls each in time by `shift` frames.

    Args:
        spec: Normalised spectrograms.
        field: Uniform numbers in [0, 1), one for each cell.
        level: One uniform number in [0, 1) for each clip.
        shift: Frames to roll by; upstream draws -10 .. 9.
    """
    noisy = spec + field * level[:, None, None, None] / 10
    frames = (torch.arange(spec.shape[2], device=spec.device) - shift[:, None]) % spec.shape[2]
    return noisy.gather(2, frames[:, None, :, None].expand_as(noisy))
