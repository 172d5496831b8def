"""Between all tokens and the visible ones."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def positions(visible: Bool[Tensor, "b n"], k: int | None = None) -> Int[Tensor, "b k"]:
    """Indices of the visible tokens of each row, ascending; all rows must show equally many.

    Args:
        visible: True where a token is seen.
        k: Their number, when known: spares a round trip to the device.
    """
    if k is None:
        counts = visible.sum(1)
        k = int(counts[0])
        assert bool((counts == k).all()), "rows show different numbers of tokens; say how many to take (`spare`)"
    return visible.to(torch.uint8).sort(dim=1, descending=True, stable=True).indices[:, :k]


def spare(visible: Bool[Tensor, "r n"]) -> Bool[Tensor, "r k"] | None:
    """Where rows that show unequally many tokens are filled up, k being the most of a row; None where all show k."""
    counts = visible.sum(1)
    least, most = torch.stack(counts.aminmax()).tolist()  # one round trip to the device
    return None if least == most else torch.arange(most, device=visible.device) >= counts[:, None]


def gather(
    tokens: Float[Tensor, "b n d"], visible: Bool[Tensor, "r n"], k: int | None = None
) -> Float[Tensor, "r k d"]:
    """The visible tokens of each row, in ascending order.

    `visible` may have c rows for each clip (row = clip * c + clone): the clones then share the clip's
    tokens without a copy of them all.

    Args:
        tokens: All tokens.
        visible: True where a token is seen; equally many in each row; r is a multiple of b.
        k: Visible tokens of a row, when known: spares a round trip to the device. Rows that show fewer are filled up
            with hidden ones, in ascending order (`spare`).
    """
    assert len(visible) % len(tokens) == 0, f"{len(visible)} masks for {len(tokens)} clips"
    index = positions(visible, k)
    clip = torch.arange(len(visible), device=index.device) // (len(visible) // len(tokens))
    flat = (index + clip[:, None] * tokens.shape[1]).flatten()
    return tokens.flatten(0, 1).index_select(0, flat).unflatten(0, index.shape)


def scatter(
    seen: Float[Tensor, "b k d"], visible: Bool[Tensor, "b n"], fill: Float[Tensor, "b n d"]
) -> Float[Tensor, "b n d"]:
    """All tokens again: `seen` (in ascending order) where visible, `fill` elsewhere; in the dtype of `seen`."""
    flat = (
        positions(visible, seen.shape[1]) + torch.arange(len(visible), device=visible.device)[:, None] * fill.shape[1]
    )
    return fill.to(seen.dtype).flatten(0, 1).index_copy(0, flat.flatten(), seen.flatten(0, 1)).view_as(fill)
