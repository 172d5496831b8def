"""What inference must know of an encoder's kind: how many frames it takes, and how its output is read.

`ViT`    any number; the last column of patches is filled up
`Cnn14`  any number; what does not fill the last step is heard by its neighbours alone
`HTSAT`  stretches whatever it gets to one picture, so all its waves must be brought to one length first

Axes: b clips, t frames, f mel bins, n tokens of a (time, freq) grid, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor

from otic.models import two_tower
from otic.models.cnn14 import Cnn14
from otic.models.htsat import HTSAT
from otic.models.vit import Encoded, ViT

Read = list[tuple[Tensor | None, Tensor]]  # (CLS [b, d] or None, tokens [b, n, d]) of each layer that is read


def stretches(encoder: Any) -> bool:
    """Whether a clip's tokens are the same number whatever its length."""
    return isinstance(encoder, HTSAT)


def whole(frames: int, encoder: Any) -> int:
    """Frames that a clip of so many goes in with: clips for which they are equal can share a batch."""
    if isinstance(encoder, Cnn14):
        return max(frames, encoder.frames_per_step)
    return two_tower.whole(encoder, frames)


def step(encoder: Any) -> int:
    """Frames from one column of tokens to the next, where these do not stretch."""
    return int(encoder.frames_per_step if isinstance(encoder, Cnn14) else encoder.cfg.step[0])


def cost(frames: int, encoder: Any) -> int:
    """The memory that a clip of so many frames takes, in patches of a ViT, roughly."""
    if isinstance(encoder, HTSAT):
        return (encoder.cfg.image // encoder.cfg.step) ** 2 // 8
    if isinstance(encoder, Cnn14):
        return frames * encoder.cfg.mels // 64
    time, freq = encoder.grid(frames)
    return int(time * freq)


def read(encoder: Any, spec: Float[Tensor, "b 1 t f"], layers: Sequence[int]) -> tuple[Read, tuple[int, int]]:
    """The chosen layers (none: the output), and the grid of the tokens."""
    seen: Encoded = encoder(spec, taps=bool(layers))
    grid = encoder.grid(spec.shape[2])
    if isinstance(encoder, ViT) and layers:
        return [two_tower.split(encoder, seen.layers[i]) for i in layers], grid
    return [(seen.cls, seen.patches)] * max(1, len(layers)), grid  # the others' one readable layer is their output
