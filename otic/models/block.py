"""One transformer block, its residuals normalised before or after."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from otic.models.linear import linear
from otic.models.regularise import Barred


class Attention(nn.Module):
    """Multi-head self-attention with one fused, biased projection (rows q, k, v, each head-major)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "b n d"], barred: Barred | None = None) -> Float[Tensor, "b n d"]:
        b, n, d = x.shape
        q, k, v = linear(self.qkv, x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = attend(q, k, v) if barred is None else barred.finish(attend(q, k, v, barred.mask))
        return linear(self.proj, y.transpose(1, 2).reshape(b, n, d))


def attend(
    q: Float[Tensor, "b h n e"],
    k: Float[Tensor, "b h n e"],
    v: Float[Tensor, "b h n e"],
    mask: Float[Tensor, "b 1 q n"] | None = None,
) -> Float[Tensor, "b h n e"]:
    """softmax(q k' / sqrt(e) + mask) v.

    PyTorch's fused kernel, except for short bf16 sequences on CPUs: its backward is four times slower there than the
    plain products (torch 2.13, 16 x 103 tokens), which is a tenth of a training step.
    """
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= 1024:
        logits = q * q.shape[-1] ** -0.5 @ k.mT
        return (logits if mask is None else logits + mask.to(logits)).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, None if mask is None else mask.to(q))


class FeedForward(nn.Module):
    """Linear, exact (erf) GELU, Linear."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        return linear(self.fc2, linear(self.fc1, x, "none"))


def drop_path(branch: Float[Tensor, "b n d"], share: float, gen: Generator | None) -> Float[Tensor, "b n d"]:
    """Stochastic depth: the whole branch of a clip vanishes with probability `share`."""
    if not share:
        return branch
    assert gen is not None, "drop path draws from a generator while training: pass gen"
    keep = torch.rand(len(branch), 1, 1, generator=gen, device=gen.device) >= share
    return branch * (keep / (1 - share)).to(branch)


class Block(nn.Module):
    """Attention and feed-forward with residuals.

    pre     x += attn(norm1(x));    x += ffn(norm2(x))                     ViT, SSAST, Audio-MAE, I-JEPA
    post    x = norm1(x + attn(x)); x = norm2(x + ffn(x))                  EAT, data2vec 2.0
    """

    def __init__(self, width: int, heads: int, hidden: int, norm: Literal["pre", "post"], eps: float, drop_path: float):
        super().__init__()
        self.pre, self.drop_path = norm == "pre", drop_path
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = FeedForward(width, hidden)

    def forward(
        self, x: Float[Tensor, "b n d"], gen: Generator | None = None, barred: Barred | None = None
    ) -> tuple[Float[Tensor, "b n d"], Float[Tensor, "b n d"]]:
        """The block's output, and the raw output of its feed-forward (before residual and norm).

        Args:
            x: Tokens.
            gen: Source of drop path's coins while training; None where there is no drop path.
            barred: Tokens that give no attention here (regularised masking).
        """
        if self.pre:
            x = x + self._drop(self.attn(self.norm1(x), barred), gen)
            raw = self.mlp(self.norm2(x))
            return x + self._drop(raw, gen), raw
        x = self.norm1(x + self._drop(self.attn(x, barred), gen))
        raw = self.mlp(x)
        return self.norm2(x + self._drop(raw, gen)), raw

    def _drop(self, branch: Tensor, gen: Generator | None) -> Tensor:
        return drop_path(branch, self.drop_path if self.training else 0.0, gen)
