"""What an encoder heard, as the first tokens of a language model.

A small transformer sees k learned tokens and what was heard of a clip; what becomes of the k tokens stands in front of
the text (ClipCap, arXiv 2111.09734; for sound Pengi, arXiv 2305.11834: 8 layers, k = 40). A pooled vector is unfolded
into several tokens first, by one Linear; a series of frames has a token for each frame and its place in time (ours).

Axes: b clips, m things heard (1 pooled vector, or frames), k prefix tokens, d the language model's width, D width of
what is heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic.core.errors import ConfigError
from otic.models.block import Block
from otic.models.init import init_default
from otic.models.positions import sincos
from otic.models.regularise import Barred


@dataclass(frozen=True, kw_only=True)
class MapperConfig:
    prefix: int = 40  # k, tokens that the language model sees of a clip
    depth: int = 8  # blocks
    heads: int = 8  # attention heads
    mlp_ratio: float = 2.0  # hidden width of the feed-forward, in widths (ClipCap)
    unfold: int = 40  # tokens that a pooled vector becomes (Pengi: as many as the prefix)


class Mapper(nn.Module):
    """The transformer in between.

    Args:
        wide: D.
        width: d.
        series: Whether a series of frames is heard; else one vector.
        cfg: Its shape.
        gen: Source of the first weights.

    Raises:
        ConfigError: when the heads do not divide the width.
    """

    def __init__(self, wide: int, width: int, series: bool, cfg: MapperConfig, gen: Generator):
        super().__init__()
        if width % cfg.heads:
            raise ConfigError(f"mapper.heads={cfg.heads}: must divide the language model's width {width}.")
        self.cfg, self.series, self.width = cfg, series, width
        self.norm_in = nn.LayerNorm(wide)
        self.into = nn.Linear(wide, width if series else cfg.unfold * width)
        self.prefix = nn.Parameter(torch.empty(1, cfg.prefix, width))
        hidden = int(cfg.mlp_ratio * width)
        self.blocks = nn.ModuleList(Block(width, cfg.heads, hidden, "pre", 1e-5, 0.0) for _ in range(cfg.depth))
        self.norm, self.out = nn.LayerNorm(width), nn.Linear(width, width)
        if not self.prefix.is_meta:
            init_default(self, gen)  # as ClipCap's code; N(0, 0.02) makes small mappers deaf for long
            self.prefix.data.normal_(0.0, 0.02, generator=gen)

    def forward(self, heard: Float[Tensor, "b m D"], real: Bool[Tensor, "b m"]) -> Float[Tensor, "b k d"]:
        """Args: what was heard, padded at the end; True where it is no padding."""
        x = self.into(self.norm_in(heard))
        if self.series:
            x = x + sincos((x.shape[1], 1), self.width).to(x)
        else:
            x = x.view(len(x), -1, self.width)
        k = self.cfg.prefix
        x = torch.cat((self.prefix.to(x).expand(len(x), -1, -1), x), 1)
        barred = None
        if self.series and not bool(real.all()):
            barred = Barred(torch.cat((torch.zeros_like(real[:, :1]).expand(-1, k), ~real), 1), "key")
        for block in self.blocks:
            x, _ = block(x, None, barred)
        return self.out(self.norm(x[:, :k]))
