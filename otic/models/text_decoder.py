"""GPT-2 as a text encoder and as a language model (Radford et al. 2019; MS-CLAP 2023, arXiv 2309.05767).

Each token sees itself and the earlier ones; the state of the end token, which alone has seen the whole text, stands for
it. The same class writes captions: vectors of sound in front (`run`), the token table again as output (`logits`).

Axes: n texts, l text tokens, d width, v vocabulary.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.init import init_linear
from otic.models.text_block import Past, TextBlock, TextConfig, drop, earlier
from otic.models.text_packed import packing, packs, run


class Decoder(nn.Module):
    """Token ids in, states out, one for each token or one for each text.

    Args:
        cfg: Its shape.
        gen: Source of the initial weights; the same ones each time by default.

    >>> tower = Decoder(TextConfig(vocab=300, positions=16, width=32, depth=2, heads=2, end=1)).eval()
    >>> tower(torch.tensor([[7, 8, 1]]), torch.ones(1, 3, dtype=torch.bool)).shape
    torch.Size([1, 32])
    """

    def __init__(self, cfg: TextConfig, gen: Generator | None = None):
        super().__init__()
        check(cfg, kinds=("decoder",), pools=("end", "count_nonzero", "mean"))
        self.cfg, self.width = cfg, cfg.width
        self.tokens = nn.Embedding(cfg.vocab, cfg.width)
        self.positions = nn.Embedding(cfg.positions, cfg.width)
        self.blocks = nn.ModuleList(TextBlock(cfg) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.width, cfg.eps)
        self._init(gen or generator("text"))

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        """N(0, 0.02), what a residual adds divided by sqrt(2 depth) (GPT-2, section 2.3)."""
        if self.tokens.weight.is_meta:
            return
        init_linear(self, gen)
        for table in (self.tokens, self.positions):
            table.weight.normal_(0.0, 0.02, generator=gen)
        for name, weight in self.blocks.named_parameters():
            if name.endswith(("attn.out.weight", "mlp.2.weight")):
                weight.div_((2 * self.cfg.depth) ** 0.5)

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
        # padding stands after all that is read, and causal attention looks back alone: it needs no mask
        states = self.states(ids, None, gen)
        if self.cfg.pool == "mean":
            return mean(states, mask)
        return states[torch.arange(len(ids), device=ids.device), self.pooled(ids, mask)]

    def _packed(self, ids: Int[Tensor, "n l"], mask: Bool[Tensor, "n l"]) -> Float[Tensor, "n d"]:
        """`forward` without the padding, and without what follows the token that stands for a text."""
        check_length(ids.shape[1], self.cfg.positions)
        place, pool = torch.arange(ids.shape[1]), self.cfg.pool
        last = (place * mask).amax(1) if pool == "mean" else self.pooled(ids, mask)
        real = place <= last[:, None]
        where = packing(real)
        x = self.tokens(ids[real]) + self.positions(where.place)
        x = self.norm(run(self.blocks, x, where, None, None if pool == "mean" else last))
        return where.mean(x, mask) if pool == "mean" else x

    def pooled(self, ids: Int[Tensor, "n l"], mask: Bool[Tensor, "n l"]) -> Int[Tensor, " n"]:
        """Which token stands for the text; the last real one where there is no end token."""
        if self.cfg.pool == "count_nonzero":
            return ((ids != self.cfg.pad).sum(1) - 1).clamp_min(0)
        end = ids == self.cfg.end
        return torch.where(end.any(1), end.int().argmax(1), (mask.sum(1) - 1).clamp_min(0))

    def states(
        self, ids: Int[Tensor, "n l"], mask: Bool[Tensor, "n l"] | None = None, gen: Generator | None = None
    ) -> Float[Tensor, "n l d"]:
        """The state of each token after the last norm."""
        return self.run(self.embed(ids), mask, gen)

    def embed(self, ids: Int[Tensor, "n l"]) -> Float[Tensor, "n l d"]:
        """Token embeddings without positions."""
        return self.tokens(ids)

    def run(
        self,
        x: Float[Tensor, "n l d"],
        mask: Bool[Tensor, "n l"] | None = None,
        gen: Generator | None = None,
        past: Past | None = None,
    ) -> Float[Tensor, "n l d"]:
        """The states of any vectors, positions added here.

        Args:
            x: Embedded tokens, or what stands in their place.
            mask: False where nobody may look; needed only where padding is followed by what is read.
            gen: Source of dropout while training.
            past: What was run before; these tokens follow it, and are added to it.

        Raises:
            ConfigError: if there are more tokens than positions.
        """
        start, length = past.length if past else 0, x.shape[1]
        check_length(start + length, self.cfg.positions)
        x = drop(x + self.positions.weight[start : start + length], self.cfg.dropout if self.training else 0.0, gen)
        mask = past.see(mask, x) if past else mask
        causal = mask is None and not start
        seen = None if causal else _seen(length, start, mask, x.device)
        for i, block in enumerate(self.blocks):
            x = block(x, seen, causal, gen, past, i)
        return self.norm(x)

    def logits(self, states: Float[Tensor, "n l d"]) -> Float[Tensor, "n l v"]:
        """Scores of the next token: the token table, used once more."""
        return states @ self.tokens.weight.T


def _seen(length: int, start: int, mask: Tensor | None, device: torch.device) -> Bool[Tensor, "#n 1 l m"]:
    """Earlier tokens that are real; a token that would see nothing sees itself."""
    seen = earlier(length, start, device)[None]
    if mask is not None:
        itself = torch.eye(start + length, dtype=torch.bool, device=device)[start:]
        seen = seen & mask[:, None]
        seen = seen | (itself & ~seen.any(-1, keepdim=True))
    return seen[:, None]


def mean(states: Float[Tensor, "n l d"], mask: Bool[Tensor, "n l"]) -> Float[Tensor, "n d"]:
    """Mean over real tokens."""
    weight = mask.to(states)[..., None]
    return (states * weight).sum(1) / weight.sum(1).clamp_min(1)


def check_length(tokens: int, positions: int) -> None:
    if tokens > positions:
        raise ConfigError(f"{tokens} text tokens, but the text tower has {positions} positions: truncate, or add some.")


def check(cfg: TextConfig, kinds: tuple[str, ...], pools: tuple[str, ...]) -> None:
    """Raise ConfigError where the fields do not fit together."""
    assert cfg.kind in kinds, f"{cfg.kind}: build it with text_tower"
    if not cfg.vocab:
        raise ConfigError("vocab=0 means as many as the tokenizer has: pass the config through fitted(cfg, tokenizer).")
    if cfg.width % cfg.heads:
        raise ConfigError(f"text width={cfg.width}: must be a multiple of heads={cfg.heads}.")
    if cfg.pool not in pools:
        raise ConfigError(f'pool="{cfg.pool}" does not fit a text tower of kind="{cfg.kind}": use one of {pools}.')
