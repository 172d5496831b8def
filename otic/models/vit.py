"""The transformer over spectrogram patches that every system here shares.

Patches are numbered time-major: p = freq * t + f, f = 0 the lowest band. Dosovitskiy et al. 2021
(arXiv 2010.11929); post-norm as in EAT (arXiv 2401.03497), whose sequence is normalised once before the blocks.

Axes: b clips, r rows (masked views, a multiple of b), t frames, f mel bins, n patches, k visible patches, d width.
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
from otic.models.init import init_linear, init_patches, init_xavier, shrink_residuals
from otic.models.positions import fit, sincos
from otic.models.regularise import Barred, Regularise


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    width: int = 768  # channels of a token
    depth: int = 12  # blocks
    heads: int = 12  # attention heads
    mlp_ratio: float = 4.0  # hidden width of the feed-forward, in widths
    patch: tuple[int, int] = (16, 16)  # (frames, mel bins) of a patch
    stride: tuple[int, int] | None = None  # (frames, mel bins) between patches; None: they do not overlap
    mels: int = 128  # mel bins of the input
    norm: Literal["post", "pre"] = "post"  # where a block normalises: EAT after, all others before
    eps: float = 1e-6  # of every LayerNorm
    cls: bool = True  # a learned token that stands for the clip
    dist: bool = False  # a second one (DeiT's distillation token, in AST and SSAST)
    positions: Literal["sincos", "learned", "table", "legacy"] = "sincos"  # fixed codes, learned codes, fixed codes of
    # a file, or those of Audio-MAE's code: the sin-cos codes of the transposed table, taken in token order
    table: tuple[int, int] | None = None  # grid (time, freq) of the learned codes, or of those stored in the weights
    crop: bool = True  # learned codes on a smaller grid: central rows (AST) instead of resizing
    drop_path: float = 0.0  # stochastic depth of the last block; the first has none
    final_norm: bool = True  # pre-norm: LayerNorm after the last block (fine-tuned Audio-MAE: in the head alone)
    init: Literal["normal", "xavier", "shrunk"] = "normal"  # first weights of linear layers: N(0, 0.02); Xavier-uniform
    # (MAE); N(0, 0.02), what block i adds divided by sqrt(2 i) (what I-JEPA means to do)
    patch_init: Literal["xavier", "default", "normal"] = "xavier"  # the same of the patch embedding: Xavier-uniform
    # (Audio-MAE, EAT); PyTorch's rule for Conv2d (SSAST); N(0, 0.02), its bias zero (I-JEPA)

    @property
    def step(self) -> tuple[int, int]:
        """(frames, mel bins) from one patch to the next."""
        return self.stride or self.patch

    @property
    def extra(self) -> int:
        """Tokens that are not patches."""
        return int(self.cls) + int(self.dist)


@dataclass(frozen=True)
class Encoded:
    """What the encoder made of a clip.

    Attributes:
        cls: The clip's token, None without one.
        patches: The encoded patches, in token order.
        layers: Output of each block, extra tokens first; empty unless asked for.
        ffn: Raw feed-forward output of each block, likewise.
        dist: The second extra token, where there is one.
    """

    cls: Float[Tensor, "r d"] | None
    patches: Float[Tensor, "r k d"]
    layers: tuple[Float[Tensor, "r m d"], ...] = ()
    ffn: tuple[Float[Tensor, "r m d"], ...] = ()
    dist: Float[Tensor, "r d"] | None = None


class ViT(nn.Module):
    """Patches in, tokens out.

    Args:
        cfg: Its shape.
        gen: Source of the initial weights; the same ones each time by default.

    Raises:
        ConfigError: if widths, heads and tables do not fit together.

    >>> encoder = ViT(ViTConfig(width=32, depth=2, heads=2))
    >>> encoder(torch.zeros(1, 1, 64, 128)).patches.shape
    torch.Size([1, 32, 32])
    """

    def __init__(self, cfg: ViTConfig = ViTConfig(), gen: Generator | None = None):
        super().__init__()
        _check(cfg)
        self.cfg, self.width, self.depth, self.patch = cfg, cfg.width, cfg.depth, cfg.patch
        self.proj = nn.Conv2d(1, cfg.width, cfg.patch, cfg.step)
        self.extra_tokens = nn.Parameter(torch.zeros(1, cfg.extra, cfg.width)) if cfg.extra else None
        self._make_positions()
        self.embed_norm = nn.LayerNorm(cfg.width, cfg.eps) if cfg.norm == "post" else None
        drops = [cfg.drop_path * i / max(1, cfg.depth - 1) for i in range(cfg.depth)]
        hidden = int(cfg.width * cfg.mlp_ratio)
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.heads, hidden, cfg.norm, cfg.eps, drop) for drop in drops)
        self.norm = nn.LayerNorm(cfg.width, cfg.eps) if cfg.norm == "pre" and cfg.final_norm else None
        self._init(gen or generator("vit"))

    def _make_positions(self) -> None:
        cfg = self.cfg
        self.extra_positions = None
        if cfg.positions == "learned":
            assert cfg.table is not None
            self.position_table = nn.Parameter(torch.zeros(cfg.table[0] * cfg.table[1], cfg.width))
            self.extra_positions = nn.Parameter(torch.zeros(1, cfg.extra, cfg.width)) if cfg.extra else None
            return
        # Codes made by formula need not be kept in the weights; those of a file are (it may have rounded them).
        grid = cfg.table or (64, self.bands)
        grid = grid[::-1] if cfg.positions == "legacy" else grid
        self.register_buffer("position_table", sincos(grid, cfg.width), persistent=cfg.table is not None)

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        if self.proj.weight.is_meta:
            return
        if self.cfg.init == "xavier":
            init_xavier(self, gen)
        else:
            init_linear(self, gen)
        if self.cfg.init == "shrunk":
            shrink_residuals(self.blocks)
        init_patches(self.proj, gen, self.cfg.patch_init)
        if self.extra_tokens is not None:
            self.extra_tokens.normal_(0.0, 1.0 if self.cfg.norm == "post" else 0.02, generator=gen)
        for table in (self.position_table, self.extra_positions):
            if isinstance(table, nn.Parameter):
                table.normal_(0.0, 0.02, generator=gen)

    @property
    def bands(self) -> int:
        """Patches along frequency."""
        return (self.cfg.mels - self.cfg.patch[1]) // self.cfg.step[1] + 1

    def grid(self, frames: int) -> tuple[int, int]:
        """(time, freq) patches of that many frames; frames that do not fill a patch are dropped, as upstream does.

        Raises:
            ConfigError: if there is not one patch.
        """
        if frames < self.patch[0]:
            raise ConfigError(f"{frames} frames are less than one patch of {self.patch[0]}: pad the clip.")
        return (frames - self.patch[0]) // self.cfg.step[0] + 1, self.bands

    def tokens(self, spec: Float[Tensor, "b 1 t f"]) -> tuple[Float[Tensor, "b n d"], tuple[int, int]]:
        """Patch embeddings with their positions added, and the (time, freq) grid they form."""
        grid = self.grid(spec.shape[2])
        return self.embed(spec) + self.positions(grid), grid

    def embed(self, spec: Float[Tensor, "b 1 t f"]) -> Float[Tensor, "b n d"]:
        """Patch embeddings without positions."""
        if spec.shape[3] != self.cfg.mels:
            raise ConfigError(f"the spectrogram has {spec.shape[3]} mel bins, but this encoder wants {self.cfg.mels}.")
        return self.proj(spec).flatten(2).mT

    @property
    def longest(self) -> int | None:
        """Frames of the longest input, where a file's own position codes end; None: there is no end."""
        if self.cfg.positions not in ("table", "legacy"):
            return None
        return self.patch[0] + (len(self.position_table) // self.bands - 1) * self.cfg.step[0]

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "n d"]:
        """The position codes of a grid.

        Raises:
            ConfigError: if a table that follows no formula (`positions` "table" or "legacy") is too short.
        """
        table, n = self.position_table, grid[0] * grid[1]
        if self.cfg.positions == "learned":
            assert self.cfg.table is not None
            return fit(table, self.cfg.table, grid, self.cfg.crop)
        if n <= len(table):
            return table[:n]
        if self.cfg.positions in ("table", "legacy"):
            raise ConfigError(f"{n} patches, but the position table ends at {len(table)}: use shorter windows.")
        known = len(table) // grid[1]
        return torch.cat((table, sincos((grid[0] - known, grid[1]), self.width, start=known).to(table)))

    def encode(
        self,
        tokens: Float[Tensor, "b n d"],
        visible: Bool[Tensor, "r n"] | None = None,
        *,
        taps: bool = False,
        gen: Generator | None = None,
        regularise: Regularise | None = None,
        spare: Bool[Tensor, "r k"] | None = None,
    ) -> Encoded:
        """Run the blocks over all tokens, or over the visible ones only.

        Args:
            tokens: From `tokens`.
            visible: True where a token is seen, equally many in each row (but for `spare`); several rows per clip
                (row = clip * views + view) encode several masked views of it.
            taps: Keep each block's output and its raw feed-forward output.
            gen: Source of drop path's coins, and of what is barred, while training.
            regularise: Patches barred from attention, other ones in each block; while training only.
            spare: Places past the last visible token of a row (`masking.spare`): no token sees what stands there.
        """
        x = tokens if visible is None else masking.gather(tokens, visible, None if spare is None else spare.shape[1])
        if self.extra_tokens is not None:
            extra = self.extra_tokens if self.extra_positions is None else self.extra_tokens + self.extra_positions
            x = torch.cat((extra.to(x).expand(len(x), -1, -1), x), 1)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        layers, ffn = [], []
        unseen = None if spare is None else Barred(F.pad(spare, (self.cfg.extra, 0)), "key")
        for block in self.blocks:
            x, raw = block(x, gen, unseen or self._barred(x, regularise, gen))
            if taps:
                layers.append(x)
                ffn.append(raw)
        x = x if self.norm is None else self.norm(x)
        return Encoded(
            x[:, 0] if self.cfg.cls else None,
            x[:, self.cfg.extra :],
            tuple(layers),
            tuple(ffn),
            x[:, self.cfg.extra - 1] if self.cfg.dist else None,
        )

    def _barred(self, x: Tensor, regularise: Regularise | None, gen: Generator | None) -> Barred | None:
        if regularise is None or not self.training or not regularise.ratio:
            return None
        assert gen is not None, "regularised masking draws from a generator while training: pass gen"
        return regularise.barred(len(x), x.shape[1] - self.cfg.extra, self.cfg.extra, gen)

    def forward(self, spec: Float[Tensor, "b 1 t f"], *, taps: bool = False, gen: Generator | None = None) -> Encoded:
        """Encode whole clips; `gen` as in `encode`."""
        return self.encode(self.tokens(spec)[0], taps=taps, gen=gen)


def _check(cfg: ViTConfig) -> None:
    if cfg.heads < 1 or cfg.width % cfg.heads or cfg.width % 4:
        raise ConfigError(f"width={cfg.width}: must be a multiple of 4 and of heads={cfg.heads}.")
    if cfg.patch[1] > cfg.mels:
        raise ConfigError(f"patch={cfg.patch}: wider than the {cfg.mels} mel bins.")
    if cfg.positions != "sincos" and cfg.table is None:
        raise ConfigError(f'positions="{cfg.positions}" needs table=(time, freq), the grid of its codes.')
