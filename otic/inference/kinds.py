"""What inference must know of an encoder's kind: how many frames it takes, and how its output is read.

A `ViT` and a `Cnn14` grow with the clip: a column of tokens for every so many frames. An `HTSAT` stretches whatever it
gets to one image, so all its waves must be brought to one length first.

Axes: b clips, t frames, f mel bins, n tokens of a (time, freq) grid, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxtyping import Float
from torch import Tensor

from otic.models.two_tower import split
from otic.models.vit import Encoded, ViT

Read = list[tuple[Tensor | None, Tensor]]  # (CLS [b, d] or None, tokens [b, n, d]) of each layer that is read


class Growth(NamedTuple):
    """Frames of the first column of tokens, and from one column to the next."""

    first: int
    step: int


def growth(encoder: Any) -> Growth | None:
    """How the tokens grow with the clip; None where they do not."""
    return Growth(encoder.patch[0], encoder.cfg.step[0]) if isinstance(encoder, ViT) else None


def columns(frames: int, encoder: Any) -> int:
    """Columns of tokens that cover so many frames, the last one perhaps in part; at least one."""
    grows = growth(encoder)
    if grows is None:
        return int(encoder.grid(frames)[0])
    return max(0, -(-(frames - grows.first) // grows.step)) + 1


def span(count: int, encoder: Any) -> int | None:
    """Frames that so many columns cover to the full; None where they stretch."""
    grows = growth(encoder)
    return None if grows is None else grows.first + (count - 1) * grows.step


def most(encoder: Any) -> int | None:
    """Frames that it takes at once; None: any number."""
    return None if growth(encoder) else int(encoder.cfg.frames)


def read(encoder: Any, spec: Float[Tensor, "b 1 t f"], layers: Sequence[int]) -> tuple[Read, tuple[int, int]]:
    """The chosen layers (none: the output), and the grid of the tokens."""
    seen: Encoded = encoder(spec, taps=bool(layers))
    grid = encoder.grid(spec.shape[2])
    return [split(encoder, seen.layers[i]) for i in layers] or [(seen.cls, seen.patches)], grid
