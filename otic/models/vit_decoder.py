"""A transformer that sees what the encoder made of the visible patches and answers for every patch.

The decoder of MAE (He et al. 2022, arXiv 2111.06377) and Audio-MAE (Huang et al. 2022, arXiv 2207.06405, section 3.3):
encoded patches at their places, one learned token everywhere else, sin-cos positions, a few blocks, norm, linear.
`decoder="global"` attends over the whole clip with pre-norm blocks, `decoder="local"` within shifted windows
(`otic.models.window`), behind the same interface:

    decoder = TransformerDecoder(encoder.width, DecoderShape(width=512, depth=8, heads=16), out=256, gen=gen)
    guess = decoder(seen.patches, visible, grid)  # [r, n, 256]

Axes: r rows (masked views), n patches, k visible patches, d the encoder's width, p the decoder's width, o outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic import masking
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.block import Block
from otic.models.init import init_xavier
from otic.models.positions import sincos
from otic.models.window import WindowBlock


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    decoder: Literal["global", "local"] = "global"  # attention over the clip, or within windows
    width: int = 512  # channels
    depth: int = 8  # blocks (Audio-MAE: 8 global or 16 local)
    heads: int = 16  # attention heads
    mlp_ratio: float = 4.0  # hidden width of the feed-forward, in widths
    eps: float = 1e-6  # of every LayerNorm
    window: tuple[int, int] = (4, 4)  # local: (time, freq) patches of a window
    shift: tuple[int, int] = (2, 0)  # local: by which every second block moves its windows
    bias_hidden: int = 384  # local: width of the relative bias's network
    bias_dropout: float = 0.1  # local: dropout inside it while training
    positions: Literal["sincos", "legacy", "table"] = "sincos"  # as in `ViTConfig`
    table: tuple[int, int] | None = None  # grid of the codes that are kept in the weights ("legacy", "table")


class TransformerDecoder(nn.Module):
    """Visible tokens in, one vector for each patch out.

    Args:
        width_in: The encoder's width.
        shape: Settings.
        out: Outputs for each patch.
        gen: Source of the initial weights (linear layers Xavier-uniform, mask token N(0, 0.02), as in Audio-MAE).

    Raises:
        ConfigError: if width, heads, windows and tables do not fit together.
    """

    def __init__(self, width_in: int, shape: DecoderShape, out: int, gen: Generator | None = None):
        super().__init__()
        _check(shape)
        self.shape = shape
        self.embed = nn.Linear(width_in, shape.width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.blocks = nn.ModuleList(_block(shape, i) for i in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width, shape.eps)
        self.proj = nn.Linear(shape.width, out)
        if shape.table is not None:
            turned = shape.table[::-1] if shape.positions == "legacy" else shape.table
            self.register_buffer("position_table", sincos(turned, shape.width))
            self.register_buffer("cls_position", torch.zeros(shape.width))
        if not self.proj.weight.is_meta:
            self._init(gen or generator("decoder"))

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        init_xavier(self, gen)
        self.mask_token.normal_(0.0, 0.02, generator=gen)

    def forward(
        self,
        tokens: Float[Tensor, "r k d"],
        visible: Bool[Tensor, "r n"],
        grid: tuple[int, int],
        cls: Float[Tensor, "r d"] | None = None,
        gen: Generator | None = None,
    ) -> Float[Tensor, "r n o"]:
        """Answers for all patches of the grid.

        Args:
            tokens: Encoded visible patches in ascending order.
            visible: Where they belong.
            grid: (time, freq) patches.
            cls: The clip's token, which a global decoder attends to and a local one ignores.
            gen: Source of dropout's coins while a local decoder is in training.
        """
        x = self.fill(tokens, visible, grid, cls)
        for block in self.blocks:
            x = block(x, grid, gen) if isinstance(block, WindowBlock) else block(x, gen)[0]
        return self.proj(self.norm(x))[:, x.shape[1] - visible.shape[1] :]

    def fill(
        self,
        tokens: Float[Tensor, "r k d"],
        visible: Bool[Tensor, "r n"],
        grid: tuple[int, int],
        cls: Float[Tensor, "r d"] | None = None,
    ) -> Float[Tensor, "r m p"]:
        """What the first block is given: everything at its place, positions added; CLS, where used, first."""
        x = self.embed(tokens)
        x = masking.scatter(x, visible, self.mask_token.expand(*visible.shape, -1))
        x = x + self.positions(grid).to(x)
        if cls is None or self.shape.decoder == "local":
            return x
        token = self.embed(cls)[:, None]
        if self.shape.table is not None:  # otherwise its position code is zero
            token = token + self.get_buffer("cls_position")
        return torch.cat((token.to(x), x), 1)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n p"]:
        """The position codes of a grid.

        Raises:
            ConfigError: if a table (`positions` "table" or "legacy") is too short.
        """
        if self.shape.positions == "sincos":
            return sincos(grid, self.shape.width)
        table, n = self.get_buffer("position_table"), grid[0] * grid[1]
        if n > len(table):
            raise ConfigError(f"{n} patches, but the decoder's position table ends at {len(table)}: use shorter clips.")
        return table[:n]


def _block(shape: DecoderShape, i: int) -> nn.Module:
    hidden = int(shape.width * shape.mlp_ratio)
    if shape.decoder == "global":
        return Block(shape.width, shape.heads, hidden, "pre", shape.eps, 0.0)
    return WindowBlock(
        shape.width,
        shape.heads,
        hidden,
        shape.window,
        shape.shift if i % 2 else (0, 0),
        shape.eps,
        shape.bias_hidden,
        shape.bias_dropout,
    )


def _check(shape: DecoderShape) -> None:
    if shape.width % shape.heads or shape.width % 4:
        raise ConfigError(f"decoder width={shape.width}: must be a multiple of 4 and of heads={shape.heads}.")
    if min(shape.window) < 1 or any(not 0 <= s < w for s, w in zip(shape.shift, shape.window, strict=True)):
        raise ConfigError(f"decoder shift={shape.shift}: must be within its window={shape.window}.")
    if (shape.positions == "sincos") != (shape.table is None):
        raise ConfigError(f'decoder positions="{shape.positions}" and table={shape.table} do not go together.')
