"""MSPM: masked spectrogram patch modelling (SSAST; Gong et al. 2022, arXiv 2110.09784).

Most patches of a clip are replaced by a learned vector and the encoder sees the whole sequence. At the hidden places
discriminative  one head tells each hidden patch from the clip's other hidden patches (InfoNCE)
generative      another head predicts its pixels (mean squared error)

Where paper and published code disagree, we follow the code (YuanGongND/ssast @ a1a3eec), which made the weights.

Axes: b clips, t frames, f mel bins, n patches, m hidden patches, p pixels of a patch, d width.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from otic import masking
from otic.core.batch import Batch, Loss
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.block import Block
from otic.models.heads import patches
from otic.models.init import init_default, init_linear
from otic.models.vit import ViT
from otic.objectives.base import Objective

Side = Literal["predictions", "targets"]


@dataclass(frozen=True, kw_only=True)
class MSPMConfig:
    hidden: int | float = 400  # patches hidden in a clip; 0.5: a share of them
    sampler: Literal["legacy", "balanced", "random"] = "legacy"  # clusters as published, without its bias, or none
    cluster: tuple[int, int] = (3, 5)  # range of a cluster's side, in patches
    task: Literal["joint", "discriminative", "generative"] = "joint"  # which of the two terms
    weight: float = 10.0  # lambda of the generative term
    passes: Literal["two", "shared"] = "two"  # a mask and a pass for each term, as published; or one for both
    nce_norm: Side = "predictions"  # over what a softmax runs: predictions as published, targets as in equation 1
    visible_only: bool = False  # encoder sees visible patches alone, a small decoder all (MAE-AST, arXiv 2203.16691)
    decoder_depth: int = 2  # blocks of that decoder; nothing published in this place


class MSPM(Objective):
    """Joint discriminative and generative objective over any ViT whose patches do not overlap.

    Args:
        encoder: Trained in place.
        cfg: Settings; the defaults are the paper's base run.
        gen: Source of the initial weights of mask, heads and decoder.

    Raises:
        ConfigError: if the patches overlap.

    `Loss.parts`: `nce`, `mse`, `accuracy` (as the published code reports it), `retrieval` (share of the loss's
    softmaxes whose largest value is the right one).
    """

    def __init__(self, encoder: ViT, cfg: MSPMConfig = MSPMConfig(), gen: Generator | None = None):
        super().__init__()
        if encoder.cfg.step != encoder.patch:
            raise ConfigError(f"stride={encoder.cfg.step} with patch={encoder.patch}: hidden patches must not overlap.")
        gen, pixels = gen or generator("mspm"), encoder.patch[0] * encoder.patch[1]
        self.cfg, self.net = cfg, encoder
        self.mask = nn.Parameter(torch.zeros(encoder.width))
        if not self.mask.is_meta:
            nn.init.normal_(self.mask, std=encoder.width**-0.5, generator=gen)
        self.contrast = mlp(encoder.width, pixels, gen) if cfg.task != "generative" else None
        self.generate = mlp(encoder.width, pixels, gen) if cfg.task != "discriminative" else None
        self.decoder = Decoder(encoder, cfg.decoder_depth, gen) if cfg.visible_only else None

    @property
    def encoder(self) -> nn.Module:
        return self.net

    def forward(self, batch: Batch, gen: Generator) -> Loss:
        spec, cfg = batch.spec, self.cfg
        assert spec is not None, "the front-end has not filled the batch"
        grid = self.net.grid(spec.shape[2])
        first = self.draw(len(spec), grid, gen)
        both = cfg.task == "joint" and cfg.passes == "two"
        return self.losses(spec, first, self.draw(len(spec), grid, gen) if both else None, gen)

    def draw(self, count: int, grid: tuple[int, int], gen: Generator) -> Int[Tensor, "b m"]:
        """Which patches are hidden.

        Raises:
            ConfigError: if as many cannot be hidden on this grid.
        """
        n, cfg = grid[0] * grid[1], self.cfg
        share = isinstance(cfg.hidden, float) and cfg.hidden <= 1
        m = int(cfg.hidden * n if share else cfg.hidden)
        if not 0 < m < n:
            raise ConfigError(f"hidden={cfg.hidden:g} of {grid[0]}x{grid[1]} patches is {m}: expected 1..{n - 1}.")
        if cfg.sampler == "legacy":
            rng = random.Random(int(torch.randint(2**62, (), generator=gen, device=gen.device)))
            if grid[1] == 1:  # frame models: published without clusters
                visible = masking.frames_legacy(count, grid, hidden=m, rng=rng)
            else:
                visible = masking.clusters_legacy(count, grid, hidden=m, rng=rng, side=cfg.cluster)
        elif cfg.sampler == "balanced":
            visible = masking.clusters(count, grid, hidden=m, side=cfg.cluster, gen=gen)
        else:
            visible = masking.lowest(torch.rand(count, n, generator=gen, device=gen.device), n - m)
        return masking.positions(~visible.to(gen.device), m)

    def losses(
        self,
        spec: Float[Tensor, "b 1 t f"],
        first: Int[Tensor, "b m"],
        second: Int[Tensor, "b k"] | None = None,
        gen: Generator | None = None,
    ) -> Loss:
        """The loss for given hidden patches.

        Args:
            spec: Filled spectrograms.
            first: Hidden patches of the discriminative term, and of the other without `second`.
            second: Those of a pass of its own for the generative term.
            gen: For drop path alone.
        """
        cfg, parts, total = self.cfg, {}, torch.zeros((), device=spec.device)
        targets = patches(spec.float(), self.net.patch)  # [b, n, p]
        states = self.states(spec, first, gen)  # [b, m, d]
        if self.contrast is not None:
            scores = products(take(targets, first), self.contrast(states))
            total = parts["nce"] = info_nce(scores, cfg.nce_norm)
            parts |= {"accuracy": accuracy(scores, cfg.nce_norm), "retrieval": retrieval(scores, cfg.nce_norm)}
        if self.generate is not None:
            if second is not None:
                first, states = second, self.states(spec, second, gen)
            parts["mse"] = (self.generate(states).float() - take(targets, first)).square().mean()
            total = total + (cfg.weight if cfg.task == "joint" else 1.0) * parts["mse"]
        return Loss(total, {name: part.detach() for name, part in parts.items()})

    def states(
        self, spec: Float[Tensor, "b 1 t f"], hidden: Int[Tensor, "b m"], gen: Generator | None = None
    ) -> Float[Tensor, "b m d"]:
        """What stands at the hidden places after the last norm."""
        tokens = self.net.embed(spec)
        place = self.net.positions(self.net.grid(spec.shape[2]))
        visible = torch.ones(tokens.shape[:2], dtype=torch.bool, device=spec.device).scatter_(1, hidden, False)
        if self.decoder is None:
            tokens = torch.where(visible[..., None], tokens, self.mask.to(tokens.dtype))
            return take(self.net.encode(tokens + place, gen=gen).patches, hidden)
        seen = self.net.encode(tokens + place, visible, gen=gen).patches
        return take(self.decoder(masking.scatter(seen, visible, self.mask.expand_as(tokens)) + place), hidden)

    @torch.no_grad()
    def preview(self, batch: Batch, gen: Generator) -> dict[str, Tensor]:
        """For pictures: `spec` [b, t, f], `visible` [b, t', f'], and with the generative term `guess` [b, t, f], the
        clip with its hidden patches as predicted."""
        spec = batch.spec
        assert spec is not None, "the front-end has not filled the batch"
        grid = self.net.grid(spec.shape[2])
        hidden = self.draw(len(spec), grid, gen)
        visible = torch.ones(len(spec), grid[0] * grid[1], dtype=torch.bool, device=spec.device)
        shown = {"spec": spec[:, 0], "visible": visible.scatter_(1, hidden, False).unflatten(1, grid)}
        if self.generate is not None:
            tiles = patches(spec.float(), self.net.patch)
            guess = self.generate(self.states(spec, hidden, gen)).float()
            tiles = tiles.scatter(1, hidden[..., None].expand_as(guess), guess)
            tiles = tiles.unflatten(2, self.net.patch).unflatten(1, grid)  # [b, t', f', 16, 16]
            shown["guess"] = tiles.transpose(2, 3).flatten(3).flatten(1, 2)
        return shown


class Decoder(nn.Module):
    """Pre-norm blocks as wide as the encoder, and a norm."""

    def __init__(self, encoder: ViT, depth: int, gen: Generator):
        super().__init__()
        cfg = encoder.cfg
        hidden = int(cfg.width * cfg.mlp_ratio)
        self.blocks = nn.ModuleList(Block(cfg.width, cfg.heads, hidden, "pre", cfg.eps, 0.0) for _ in range(depth))
        self.norm = nn.LayerNorm(cfg.width, cfg.eps)
        if not self.norm.weight.is_meta:
            init_linear(self, gen)

    def forward(self, x: Float[Tensor, "b n d"]) -> Float[Tensor, "b n d"]:
        for block in self.blocks:
            x, _ = block(x)
        return self.norm(x)


def mlp(width: int, pixels: int, gen: Generator) -> nn.Sequential:
    """A head: Linear, ReLU, Linear to a patch's pixels (section 2.4 of the paper)."""
    head = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, pixels))
    if not head[0].weight.is_meta:
        init_default(head, gen)
    return head


def take(x: Float[Tensor, "b n e"], index: Int[Tensor, "b m"]) -> Float[Tensor, "b m e"]:
    """Rows of each clip."""
    return x.gather(1, index[..., None].expand(-1, -1, x.shape[2]))


def products(targets: Float[Tensor, "b m p"], guesses: Float[Tensor, "b m p"]) -> Float[Tensor, "b m m"]:
    """Inner product of each target i (rows) with each prediction j (columns) of its clip: no norm, no temperature.

    In float32 also under autocast: sums of 256 products reach hundreds, where bfloat16 counts in ones.
    """
    with torch.autocast(targets.device.type, enabled=False):
        return targets @ guesses.float().mT


def info_nce(scores: Float[Tensor, "b m m"], norm: Side = "predictions") -> Float[Tensor, ""]:
    """-log softmax of the right pairs, mean: over predictions for a fixed target (code), or reversed (equation 1)."""
    return -scores.log_softmax(_axis(norm)).diagonal(dim1=1, dim2=2).mean()


@torch.no_grad()
def accuracy(scores: Float[Tensor, "b m m"], norm: Side = "predictions") -> Float[Tensor, ""]:
    """What the published code reports: for each prediction, whether its target is the one with the largest softmax.

    The softmax runs over predictions, the comparison over targets: neither direction's usual accuracy.
    """
    return _right(scores.softmax(_axis(norm)).argmax(1))


@torch.no_grad()
def retrieval(scores: Float[Tensor, "b m m"], norm: Side = "predictions") -> Float[Tensor, ""]:
    """How often the right one of what the softmax runs over has the largest score."""
    return _right(scores.argmax(_axis(norm)))


def _axis(norm: Side) -> int:
    return 2 if norm == "predictions" else 1


def _right(best: Int[Tensor, "b m"]) -> Float[Tensor, ""]:
    return (best == torch.arange(best.shape[1], device=best.device)).float().mean()
