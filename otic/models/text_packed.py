"""Texts of unlike length in one pass, on the real tokens alone.

All that treats tokens one by one runs on them in a row, one text after the other. Only attention lays them out as
texts, padded to a multiple of 16 tokens: so its sums are taken in the same order, and a vector depends on its text
alone. After the last attention only those tokens go on that are asked for.

Axes: n texts, l tokens of a padded text, t real tokens, k tokens that are asked for, d width.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from otic.models.linear import inference_dtype, linear

ROUND = 16  # tokens that a vector register holds


class Packing(NamedTuple):
    """Where tokens lie.

    Attributes:
        text: The text of each.
        place: Its place in that text.
        flat: Its place in all texts, padded, one after the other.
        shape: (n, l) of all texts, padded.
        alone: Whether this is one text, all of whose tokens are real.
    """

    text: Int[Tensor, " t"]
    place: Int[Tensor, " t"]
    flat: Int[Tensor, " t"]
    shape: tuple[int, int]
    alone: bool

    def lay(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "n l d"]:
        """As texts; padding is zero."""
        if self.alone:
            return F.pad(x, (0, 0, 0, self.shape[1] - len(x)))[None]
        out = x.new_zeros(self.shape[0] * self.shape[1], x.shape[1])
        return out.index_copy_(0, self.flat, x).view(*self.shape, -1)

    def take(self, x: Float[Tensor, "n l d"]) -> Float[Tensor, "t d"]:
        """In a row."""
        if self.alone:
            return x[0, : len(self.flat)]
        return x.flatten(0, 1).index_select(0, self.flat)

    def mean(self, x: Float[Tensor, "t d"], real: Bool[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """Mean of the tokens of a text that are real, added one by one."""
        weight = real[self.text, self.place].to(x)[:, None]
        total = x.new_zeros(self.shape[0], x.shape[1]).index_add_(0, self.text, x * weight)
        return total / real.sum(1, keepdim=True).clamp_min(1)


def packs(weight: Tensor, ids: Int[Tensor, "n l"]) -> bool:
    """Whether to go this way: for inference on CPUs."""
    return len(ids) > 0 and inference_dtype(weight) is not None


def packing(real: Bool[Tensor, "n l"]) -> Packing:
    """Of the tokens that are real."""
    text, place = real.nonzero(as_tuple=True)
    long = -(-real.shape[1] // ROUND) * ROUND
    alone = len(real) == 1 and len(place) == real.shape[1]
    return Packing(text, place, text * long + place, (real.shape[0], long), alone)


def run(
    blocks: Iterable[Any],
    x: Float[Tensor, "t d"],
    where: Packing,
    seen: Bool[Tensor, "n l"] | None,
    wanted: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, "k d"]:
    """States after all blocks.

    Args:
        blocks: Of a text tower.
        x: Embedded tokens.
        where: Their places.
        seen: The tokens that may be looked at; None: the earlier ones.
        wanted: A token of each text, whose state is asked for; None: all.
    """
    mask, blocks = None, list(blocks)
    if seen is not None:  # added to scores; made here, attention would do it in every block
        mask = torch.full((len(seen), 1, 1, where.shape[1]), -torch.inf)
        mask[..., : seen.shape[1]].masked_fill_(seen[:, None, None], 0.0)
    for block in blocks:
        y = _attention(block.attn, block.norm1(x) if block.pre else x, where, mask)
        if block is blocks[-1] and wanted is not None:
            rows = torch.searchsorted(where.flat, torch.arange(len(wanted)) * where.shape[1] + wanted)
            x, y = x[rows], y[rows]
        x = block.add(x, linear(block.attn.out, y))
    return x


def _attention(attn: Any, x: Tensor, where: Packing, mask: Tensor | None) -> Float[Tensor, "t d"]:
    """What is looked up, before the projection; float32, which on CPUs is faster than bf16 too."""
    qkv = where.lay(linear(attn.qkv, x).float())
    q, k, v = qkv.unflatten(-1, (3, attn.heads, -1)).permute(2, 0, 3, 1, 4)  # each [n, h, l, e]
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(q, k, v, mask, is_causal=mask is None)
    return where.take(y.transpose(1, 2).flatten(2))
