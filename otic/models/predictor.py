"""From an encoded context to what a teacher makes of other patches (I-JEPA, arXiv 2301.08243, section 3).

A narrow transformer sees the context and, at each place asked for, one learned token with that place's code. Several
target blocks of a clip are asked for one by one: each is a row of its own.

Axes: r rows of contexts, q rows of targets (a multiple of r), n patches, k context patches, j asked-for patches,
d the encoder's width, w the predictor's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic import masking
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.block import Block
from otic.models.init import init_linear, init_xavier, shrink_residuals
from otic.models.positions import sincos
from otic.models.regularise import Barred


@dataclass(frozen=True, kw_only=True)
class PredictorConfig:
    width: int = 512  # channels of a token (I-JEPA: 384)
    depth: int = 16  # blocks (I-JEPA: 12, or 6 for its smaller encoders)
    heads: int = 16  # attention heads; A-JEPA leaves them open (I-JEPA: the encoder's, which need not divide the width)
    mlp_ratio: float = 4.0  # hidden width of the feed-forward, in widths
    eps: float = 1e-6  # of every LayerNorm
    init: Literal["shrunk", "xavier"] = "shrunk"  # N(0, 0.02), what block i adds over sqrt(2 i), as I-JEPA means to
    # (its code draws all linear layers again afterwards); or Xavier-uniform, better where it is narrow


class Predictor(nn.Module):
    """Pre-norm blocks over a context and mask tokens.

    Args:
        width: The encoder's, in and out.
        cfg: Settings.
        gen: Source of the initial weights.

    Raises:
        ConfigError: if width and heads do not fit together.
    """

    def __init__(self, width: int, cfg: PredictorConfig = PredictorConfig(), gen: Generator | None = None):
        super().__init__()
        if cfg.width % cfg.heads or cfg.width % 4:
            raise ConfigError(f"predictor width={cfg.width}: must be a multiple of 4 and of heads={cfg.heads}.")
        self.cfg = cfg
        self.embed = nn.Linear(width, cfg.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, cfg.width))
        hidden = int(cfg.width * cfg.mlp_ratio)
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.heads, hidden, "pre", cfg.eps, 0.0) for _ in range(cfg.depth))
        self.norm = nn.LayerNorm(cfg.width, cfg.eps)
        self.proj = nn.Linear(cfg.width, width)
        self._codes: tuple[tuple[tuple[int, int], torch.device], Tensor] | None = None
        if not self.proj.weight.is_meta:
            self._init(gen or generator("predictor"))

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        if self.cfg.init == "xavier":
            init_xavier(self, gen)
        else:
            init_linear(self, gen)
            shrink_residuals(self.blocks)
        self.mask_token.normal_(0.0, 0.02, generator=gen)

    def forward(
        self,
        seen: Float[Tensor, "r k d"],
        context: Bool[Tensor, "r n"],
        targets: Bool[Tensor, "q n"],
        grid: tuple[int, int],
        spare: Bool[Tensor, "r k"] | None = None,
    ) -> Float[Tensor, "q j d"]:
        """What the patches of each row of targets are like, in ascending order.

        Args:
            seen: The encoded context patches, in ascending order.
            context: Where they are.
            targets: What to predict, equally many in each row; row i belongs to context i % r.
            grid: (time, freq) of the patches.
            spare: Which of `seen` only fill up a row: no token sees them.
        """
        codes = self.positions(grid, seen.device)[None]
        known = self.embed(seen)
        known = known + masking.gather(codes, context, seen.shape[1]).to(known)
        asked = self.mask_token + masking.gather(codes, targets)
        times = len(targets) // len(seen)
        x = torch.cat((known.repeat(times, 1, 1), asked.to(known)), 1)
        unseen = None if spare is None else Barred(F.pad(spare.repeat(times, 1), (0, asked.shape[1])), "key")
        for block in self.blocks:
            x, _ = block(x, barred=unseen)
        return self.proj(self.norm(x[:, seen.shape[1] :]))

    def positions(self, grid: tuple[int, int], device: torch.device | str = "cpu") -> Float[Tensor, "n w"]:
        """The fixed codes of a grid; the last one's are kept."""
        if self._codes is None or self._codes[0] != (grid, torch.device(device)):
            self._codes = (grid, torch.device(device)), sincos(grid, self.cfg.width).to(device)
        return self._codes[1]
