"""BERT and RoBERTa as text encoders (Devlin et al. 2019, arXiv 1810.04805; Liu et al. 2019, arXiv 1907.11692).

Every token sees all real ones. MS-CLAP 2022 reads BERT's first token, LAION-CLAP RoBERTa's "pooler" (a tanh layer on
the first token), sentence encoders the mean. RoBERTa counts positions over real tokens, from `pad + 1` on.

Axes: n texts, l text tokens, d width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from otic.core.seeds import generator
from otic.models.init import init_linear
from otic.models.linear import linear
from otic.models.text_block import TextBlock, TextConfig, drop
from otic.models.text_decoder import check, check_length, mean
from otic.models.text_packed import packing, packs, run


class Bert(nn.Module):
    """Token ids in, states out, one for each token or one for each text.

    Args:
        cfg: Its shape.
        gen: Source of the initial weights; the same ones each time by default.

    >>> cfg = TextConfig(kind="bert", vocab=300, positions=16, width=32, depth=2, heads=2, pool="mean", tanh_gelu=False)
    >>> Bert(cfg).eval()(torch.tensor([[7, 8, 1]]), torch.ones(1, 3, dtype=torch.bool)).shape
    torch.Size([1, 32])
    """

    def __init__(self, cfg: TextConfig, gen: Generator | None = None):
        super().__init__()
        check(cfg, kinds=("bert", "roberta"), pools=("cls", "pooler", "mean"))
        self.cfg, self.width = cfg, cfg.width
        self.tokens = nn.Embedding(cfg.vocab, cfg.width)
        self.positions = nn.Embedding(cfg.positions, cfg.width)
        self.types = nn.Embedding(cfg.types, cfg.width)
        self.embed_norm = nn.LayerNorm(cfg.width, cfg.eps)
        self.blocks = nn.ModuleList(TextBlock(cfg) for _ in range(cfg.depth))
        self.pooler = nn.Linear(cfg.width, cfg.width) if cfg.pool == "pooler" else None
        self._init(gen or generator("text"))

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        """N(0, 0.02) (BERT's code)."""
        if self.tokens.weight.is_meta:
            return
        init_linear(self, gen)
        for table in (self.tokens, self.positions, self.types):
            table.weight.normal_(0.0, 0.02, generator=gen)

    def forward(
        self, ids: Int[Tensor, "n l"], mask: Bool[Tensor, "n l"], gen: Generator | None = None
    ) -> Float[Tensor, "n d"]:
        """One vector for each text.

        Args:
            ids: Tokens, padded at the right.
            mask: True where a token is real.
            gen: Source of dropout while training.
        """
        if not self.training and packs(self.tokens.weight, ids):
            return self._packed(ids, mask)
        states = self.states(ids, mask, gen)
        if self.cfg.pool == "mean":
            return mean(states, mask)
        return states[:, 0] if self.pooler is None else self.pooler(states[:, 0]).tanh()

    def _packed(self, ids: Int[Tensor, "n l"], mask: Bool[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """`forward` without the padding, and in the end on the first tokens alone."""
        real = mask.clone()
        real[:, 0] = True
        where, first = packing(real), None if self.cfg.pool == "mean" else torch.zeros_like(ids[:, 0])
        places = self._places(ids).expand_as(ids)[where.text, where.place]
        x = self.tokens(ids[where.text, where.place]) + self.positions(places) + self.types.weight[0]
        x = run(self.blocks, self.embed_norm(x), where, mask, first)
        if first is None:
            return where.mean(x, mask)
        return x if self.pooler is None else linear(self.pooler, x).tanh()

    def states(
        self, ids: Int[Tensor, "n l"], mask: Bool[Tensor, "n l"] | None = None, gen: Generator | None = None
    ) -> Float[Tensor, "n l d"]:
        """The state of each token after the last block.

        Raises:
            ConfigError: if there are more tokens than positions.
        """
        x = self.tokens(ids) + self.positions(self._places(ids)) + self.types.weight[0]
        x = drop(self.embed_norm(x), self.cfg.dropout if self.training else 0.0, gen)
        seen = None if mask is None else mask[:, None, None]
        for block in self.blocks:
            x = block(x, seen, False, gen)
        return x

    def _places(self, ids: Int[Tensor, "n l"]) -> Int[Tensor, "#n l"]:
        first = self.cfg.pad + 1 if self.cfg.kind == "roberta" else 0
        check_length(first + ids.shape[1], self.cfg.positions)
        if not first:
            return torch.arange(ids.shape[1], device=ids.device)[None]
        real = ids != self.cfg.pad
        return real.cumsum(1) * real + self.cfg.pad
