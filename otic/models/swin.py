"""The stages of a Swin transformer, first version: attention inside small windows which every second block moves.

Liu et al. 2021 (arXiv 2103.14030), as HTS-AT runs it on pictures of sound (Chen et al. 2022, arXiv 2202.00874).
Between stages four neighbours become one token of twice the width.

Tokens always lie in the order of the windows that attend next, so nothing is cut or rolled: going from one order to
another is one `shuffle`, and everything else here treats tokens one by one.

Axes: b clips, n tokens of a square picture, d width, w windows, m tokens of a window, h heads, e channels of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from otic.models.block import FeedForward, drop_path
from otic.models.linear import linear
from otic.models.window import cut, window_mask

CACHE = 1 << 20  # numbers, for each thread: clips that go through a stage together on CPUs, so that they stay in cache


class SwinAttention(nn.Module):
    """Attention inside each window, with a learned bias for each offset (row, column) of two tokens.

    Args:
        width: Channels.
        heads: Attention heads.
        window: Side of a window.
        mask: What is added to the scores of each window; None: nothing.
    """

    places: Tensor
    mask: Tensor | None

    def __init__(self, width: int, heads: int, window: int, mask: Float[Tensor, "w m m"] | None = None):
        super().__init__()
        self.heads, self.area = heads, window * window
        self.qkv = nn.Linear(width, 3 * width)
        self.rel_bias = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.out = nn.Linear(width, width)
        self.register_buffer("places", offsets(window), persistent=False)
        self.register_buffer("mask", mask, persistent=False)
        self._bias: tuple[Any, Tensor] | None = None  # the last bias, and what it was made of

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        b, n, d = x.shape
        qkv = linear(self.qkv, x)
        if qkv.device.type == "cpu" and not plain(qkv):
            qkv = qkv.to(torch.promote_types(qkv.dtype, torch.float32))  # faster than attention in bf16, and finer
        q, k, v = qkv.view(-1, self.area, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)  # [b w, h, m, e]
        with full_precision(x):
            y = attend(q, k, v, self.bias(torch.promote_types(q.dtype, torch.float32) if plain(q) else q.dtype), b)
        return linear(self.out, y.transpose(1, 2).reshape(b, n, d))

    def bias(self, dtype: torch.dtype) -> Float[Tensor, "w h m m"]:
        """What is added to scores; one for all windows, or (with a mask) one for each.

        It is kept as long as nobody trains and the table stays as it is.
        """
        table = self.rel_bias
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or torch.is_inference(table):
            return self._make_bias(dtype)
        key = (table.data_ptr(), table._version, table.device, dtype)
        if self._bias is None or self._bias[0] != key:
            self._bias = key, self._make_bias(dtype)
        return self._bias[1]

    def _make_bias(self, dtype: torch.dtype) -> Tensor:
        bias = self.rel_bias[self.places].permute(2, 0, 1)[None]  # [1, h, m, m]
        return (bias if self.mask is None else bias + self.mask[:, None].to(bias)).to(dtype).contiguous()


def plain(q: Tensor) -> bool:
    """Whether attention is best written out: on CPUs, fused kernels are slow where gradients are wanted."""
    return q.device.type == "cpu" and q.requires_grad and not torch.compiler.is_compiling()


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Autocast off for inference on CPUs."""
    return nullcontext() if x.device.type != "cpu" or torch.is_grad_enabled() else torch.autocast("cpu", enabled=False)


def attend(
    q: Float[Tensor, "bw h m e"],
    k: Float[Tensor, "bw h m e"],
    v: Float[Tensor, "bw h m e"],
    bias: Float[Tensor, "w h m m"],
    clips: int,
) -> Float[Tensor, "bw h m e"]:
    """softmax(q k' / sqrt(e) + bias) v in every window of `clips` clips."""
    if plain(q):  # scores in float32: the bias would lose its small differences
        scores = torch.add(bias, (q @ k.mT).unflatten(0, (clips, -1)), alpha=q.shape[-1] ** -0.5)
        return scores.softmax(-1).flatten(0, 1).to(v) @ v
    if q.device.type == "cpu" and len(bias) > 1 and not torch.compiler.is_compiling():
        parts = zip(q.chunk(clips), k.chunk(clips), v.chunk(clips), strict=True)  # cheaper than copies of the bias
        return torch.cat([F.scaled_dot_product_attention(*qkv, attn_mask=bias) for qkv in parts])
    bias = bias.expand(len(q), -1, -1, -1) if len(bias) == 1 else bias.repeat(clips, 1, 1, 1)
    return F.scaled_dot_product_attention(q, k, v, bias)


class SwinBlock(nn.Module):
    """x += attn(norm1(x)); x += mlp(norm2(x)), branches of some clips dropped while training."""

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        window: int,
        mask: Float[Tensor, "w m m"] | None,
        eps: float,
        drop_path: float,
    ):
        super().__init__()
        self.drop_path = drop_path
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = SwinAttention(width, heads, window, mask)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = FeedForward(width, hidden)

    def forward(self, x: Float[Tensor, "b n d"], gen: Generator | None = None) -> Float[Tensor, "b n d"]:
        x = x + self._drop(self.attn(self.norm1(x)), gen).to(x)  # adding numbers of two kinds is slow
        y = linear(self.mlp.fc2, linear(self.mlp.fc1, self.norm2(x), "none"))
        return x + self._drop(y, gen).to(x)

    def _drop(self, branch: Tensor, gen: Generator | None) -> Tensor:
        return drop_path(branch, self.drop_path if self.training else 0.0, gen)


class Merge(nn.Module):
    """Four neighbours, side by side, become one token: LayerNorm, Linear 4 d -> 2 d."""

    def __init__(self, width: int, eps: float):
        super().__init__()
        self.norm = nn.LayerNorm(4 * width, eps)
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n2 d2"]:
        """Args: tokens, the four of each new one in a row."""
        with full_precision(x):  # no residual passes by
            return linear(self.reduction, self.norm(x.reshape(len(x), x.shape[1] // 4, -1)))


class Stage(nn.Module):
    """Blocks on a picture of side * side tokens, and the merging after them.

    Args:
        side: Tokens along each axis.
        width: Channels.
        heads: Attention heads.
        hidden: Channels inside the feed-forward.
        window: Side of a window; a picture no larger is one window, and nothing moves.
        drops: Drop path's rate for each block.
        eps: Of the norms.
        leave: Row-major numbers of the tokens in the order in which they are to come out; None: four by four merged
            into one, in the order of the windows of the next stage (of this window).
    """

    there: Tensor | None
    back: Tensor | None
    leave: Tensor
    enter: Tensor

    def __init__(
        self,
        side: int,
        width: int,
        heads: int,
        hidden: int,
        window: int,
        drops: Sequence[float],
        eps: float,
        leave: Int[Tensor, " n"] | None = None,
    ):
        super().__init__()
        self.side, self.window = side, min(window, side)
        shift = 0 if side <= window else window // 2
        still, moved = order(side, self.window), order(side, self.window, shift)
        mask = window_mask((side, side), (self.window, self.window), (shift, shift))
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, hidden, self.window, mask if i % 2 else None, eps, drop)
            for i, drop in enumerate(drops)
        )
        self.merge = Merge(width, eps) if leave is None else None
        last = moved if drops and len(drops) % 2 == 0 else still
        leave = quads(side, min(window, side // 2)) if leave is None else leave
        self.register_buffer("there", inverse(still)[moved] if shift else None, persistent=False)
        self.register_buffer("back", inverse(moved)[still] if shift else None, persistent=False)
        self.register_buffer("leave", inverse(last)[leave], persistent=False)
        self.register_buffer("enter", inverse(leave)[last], persistent=False)  # the inverse of `leave`

    def forward(self, x: Float[Tensor, "b n d"], gen: Generator | None = None) -> Float[Tensor, "b n2 d2"]:
        if x.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling() or self.training:
            return self._run(x, gen)
        clips = max(1, CACHE * torch.get_num_threads() // max(1, x[:1].numel()))
        return self._run(x) if len(x) <= clips else torch.cat([self._run(part) for part in x.split(clips)])

    def _run(self, x: Tensor, gen: Generator | None = None) -> Float[Tensor, "b n2 d2"]:
        for i, block in enumerate(self.blocks):
            if i and self.there is not None and self.back is not None:
                x = shuffle(x, self.there, self.back) if i % 2 else shuffle(x, self.back, self.there)
            x = block(x, gen)
        x = shuffle(x, self.leave, self.enter)
        return x if self.merge is None else self.merge(x)


def order(side: int, window: int, shift: int = 0) -> Int[Tensor, " n"]:
    """Row-major numbers of the tokens of a picture, window after window, the windows moved by `shift` (cyclically).

    >>> order(4, 2).tolist()
    [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    """
    image = torch.arange(side * side).view(1, side, side, 1).roll((-shift, -shift), (1, 2))
    return cut(image, (window, window)).flatten()


def quads(side: int, window: int) -> Int[Tensor, " n"]:
    """The same where each four neighbours stand together (upper left, lower left, upper right, lower right), and the
    fours in the order of windows of the picture that they make.

    >>> quads(4, 2).tolist()
    [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    """
    number = torch.arange(side * side).view(side // 2, 2, side // 2, 2)
    fours = number.permute(0, 2, 3, 1).reshape(-1, 4)  # column before row: (0, 0), (1, 0), (0, 1), (1, 1)
    return fours[order(side // 2, window)].flatten()


def offsets(window: int) -> Int[Tensor, "m m"]:
    """Where the table of the relative bias holds the offset of tokens i and j.

    It is (row_i - row_j + w - 1) (2 w - 1) + column_i - column_j + w - 1.

    >>> offsets(2)[0].tolist()
    [4, 3, 1, 0]
    """
    row, column = (torch.arange(window).view(s).expand(window, window).flatten() for s in ((-1, 1), (1, -1)))
    rows, columns = (x[:, None] - x[None] + window - 1 for x in (row, column))
    return rows * (2 * window - 1) + columns


def inverse(permutation: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """The permutation that undoes this one."""
    return permutation.argsort()


def shuffle(x: Float[Tensor, "b n d"], to: Int[Tensor, " n"], back: Int[Tensor, " n"]) -> Float[Tensor, "b n d"]:
    """Token `to[i]` at place i; `back` undoes it. Its gradient is a shuffle too: exact, and the same each time."""
    if torch.is_grad_enabled() and x.requires_grad:
        return _Shuffle.apply(x, to, back)
    return x.index_select(1, to)


class _Shuffle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, to: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(to, back)
        return x.index_select(1, to)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        to, back = ctx.saved_tensors
        return shuffle(grads[0], back, to), None, None
