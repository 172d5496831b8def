"""What the text towers share: their config, and one transformer block, its residuals normalised before or after.

pre     x += attn(norm1(x));    x += mlp(norm2(x))                     GPT-2 (Radford et al. 2019)
post    x = norm1(x + attn(x)); x = norm2(x + mlp(x))                  BERT (arXiv 1810.04805), RoBERTa (1907.11692)

Dropout, where both papers have it: on attention weights and on what each residual adds (and on the embeddings).

Axes: n texts, l text tokens, m tokens that are looked at (earlier ones included), d width, h heads,
e channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from otic.models.linear import Gelu, linear


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """Defaults: GPT-2 small, as MS-CLAP 2023 uses it."""

    kind: Literal["decoder", "bert", "roberta"] = "decoder"  # causal and pre-norm (GPT-2), or two-way and post-norm
    vocab: int = 50257  # rows of the token table; 0: as many as the tokenizer has
    positions: int = 1024  # rows of the position table (RoBERTa's first `pad + 1` stay unused)
    width: int = 768  # channels of a token
    depth: int = 12  # blocks
    heads: int = 12  # attention heads
    hidden: int = 0  # channels inside the feed-forward; 0: four widths
    eps: float = 1e-5  # of every LayerNorm (BERT: 1e-12)
    pool: Literal["end", "count_nonzero", "cls", "pooler", "mean"] = "end"  # what stands for the text: the state of the
    # first end token; of the token at (ids that are not `pad`) - 1, as MS-CLAP's code; the first; tanh(W first); mean
    dropout: float = 0.1  # while training
    end: int = 50256  # id of the end token
    pad: int = 0  # id of padding (RoBERTa: 1)
    types: int = 2  # rows of BERT's token-type table, whose first is used (RoBERTa: 1)
    tanh_gelu: bool = True  # GPT-2's approximation of GELU (BERT, RoBERTa: the exact one)


class Past:
    """Keys and values of the tokens a decoder has run already, so that the next ones run alone."""

    def __init__(self) -> None:
        self.keys: list[Tensor] = []  # one [n, h, m, e] for each block
        self.values: list[Tensor] = []
        self.mask: Tensor | None = None  # [n, m]; None: all real

    @property
    def length(self) -> int:
        """Tokens seen so far."""
        return self.keys[0].shape[2] if self.keys else 0

    def extend(self, block: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a block, these ones appended."""
        if block == len(self.keys):
            self.keys.append(k)
            self.values.append(v)
        else:
            self.keys[block] = torch.cat((self.keys[block], k), 2)
            self.values[block] = torch.cat((self.values[block], v), 2)
        return self.keys[block], self.values[block]

    def see(self, mask: Tensor | None, x: Tensor) -> Tensor | None:
        """The mask over all tokens, `mask` being that of the new ones `x`."""
        if mask is None and self.mask is None:
            return None
        old = x.new_ones(len(x), self.length, dtype=torch.bool) if self.mask is None else self.mask
        new = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        self.mask = torch.cat((old, new), 1)
        return self.mask

    def pick(self, rows: Int[Tensor, " n"]) -> None:
        """Go on with these rows: what survives in a beam search, or one row several times."""
        self.keys = [k[rows] for k in self.keys]
        self.values = [v[rows] for v in self.values]
        self.mask = None if self.mask is None else self.mask[rows]


class TextAttention(nn.Module):
    """Multi-head self-attention with one fused, biased projection (rows q, k, v, each head-major)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "n l d"],
        seen: Bool[Tensor, "#n 1 #l m"] | None,
        causal: bool,
        gen: Generator | None = None,
        past: Past | None = None,
        block: int = 0,
    ) -> Float[Tensor, "n l d"]:
        q, k, v = linear(self.qkv, x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each [n, h, l, e]
        if past is not None:
            k, v = past.extend(block, k, v)
        p = self.dropout if self.training else 0.0
        return linear(self.out, attend(q, k, v, seen, causal, p, gen).transpose(1, 2).flatten(2))


def attend(
    q: Float[Tensor, "n h l e"],
    k: Float[Tensor, "n h m e"],
    v: Float[Tensor, "n h m e"],
    seen: Bool[Tensor, "#n 1 #l m"] | None = None,
    causal: bool = False,
    p: float = 0.0,
    gen: Generator | None = None,
) -> Float[Tensor, "n h l e"]:
    """softmax(q k' / sqrt(e)) v over the tokens that are seen; `causal` (l = m, `seen` None): the earlier ones.

    PyTorch's fused kernel, except where weights are dropped (it would draw from the global seed) and for bf16 on CPUs
    (see `otic.models.block.attend`).
    """
    if not p and not (q.device.type == "cpu" and q.dtype == torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v, seen, is_causal=causal)
    scores = q * q.shape[-1] ** -0.5 @ k.mT
    if causal:
        seen = earlier(q.shape[2], 0, q.device)[None, None]
    if seen is not None:
        scores = scores.masked_fill(~seen, -torch.inf)
    return drop(scores.softmax(-1), p, gen).to(v) @ v


def earlier(length: int, start: int, device: torch.device) -> Bool[Tensor, "l m"]:
    """True where token `start + i` may look at token j: at itself and those before."""
    return torch.ones(length, start + length, dtype=torch.bool, device=device).tril(start)


def drop(x: Tensor, p: float, gen: Generator | None) -> Tensor:
    """Dropout drawn from `gen`; what is kept is divided by 1 - p."""
    if not p:
        return x
    assert gen is not None, "dropout draws from a generator while training: pass gen"
    keep = torch.empty(x.shape, dtype=x.dtype, device=gen.device).bernoulli_(1 - p, generator=gen)
    return x * keep.to(x.device).div_(1 - p)


class TextBlock(nn.Module):
    """Attention and feed-forward with residuals."""

    def __init__(self, cfg: TextConfig):
        super().__init__()
        self.pre, self.dropout = cfg.kind == "decoder", cfg.dropout
        hidden = cfg.hidden or 4 * cfg.width
        self.norm1 = nn.LayerNorm(cfg.width, cfg.eps)
        self.attn = TextAttention(cfg.width, cfg.heads, cfg.dropout)
        self.norm2 = nn.LayerNorm(cfg.width, cfg.eps)
        self.gelu: Gelu = "tanh" if cfg.tanh_gelu else "none"
        self.mlp = nn.Sequential(nn.Linear(cfg.width, hidden), nn.GELU(self.gelu), nn.Linear(hidden, cfg.width))

    def forward(
        self,
        x: Float[Tensor, "n l d"],
        seen: Bool[Tensor, "#n 1 #l m"] | None = None,
        causal: bool = False,
        gen: Generator | None = None,
        past: Past | None = None,
        block: int = 0,
    ) -> Float[Tensor, "n l d"]:
        """`seen`, `causal`: as `attend`. `past`, `block`: what came before, and this block's number in it."""
        return self.add(x, self.attn(self.norm1(x) if self.pre else x, seen, causal, gen, past, block), gen)

    def add(self, x: Float[Tensor, "*n d"], y: Float[Tensor, "*n d"], gen: Generator | None = None) -> Tensor:
        """What follows attention, `y` being what it says of `x`."""
        p = self.dropout if self.training else 0.0
        x = x + drop(y, p, gen).to(x)
        x = x if self.pre else self.norm1(x)
        up, down = cast(nn.Linear, self.mlp[0]), cast(nn.Linear, self.mlp[2])
        y = linear(down, linear(up, self.norm2(x) if self.pre else x, self.gelu))
        x = x + drop(y, p, gen).to(x)
        return x if self.pre else self.norm2(x)
