"""Two towers, one space: a clip and a sentence become vectors whose cosine says how well they fit (CLAP).

Elizalde et al. 2022 (arXiv 2206.04769) and 2023 (2309.05767), Wu et al. 2022 (LAION-CLAP, 2211.06687). Each tower's
output goes through a head into the joint space; vectors are compared by cosine, times a learned scale.

Instead of pooling, the audio tower's frames can be read in order by a small transformer with a token of its own, as
M2D-CLAP 2025 does with its semantic token (IEEE Access 11168481): then an encoder that stays as it is can still tell
"a dog barks, then it rains" from the reverse.

Axes: b clips, n texts, t frames, u columns of patches (or 1, pooled), f mel bins, d width, D width of what is read,
e joint width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from otic.core.config import from_dict, to_dict
from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.block import Block
from otic.models.init import init_linear
from otic.models.joint_heads import HEADS, HeadKind
from otic.models.positions import sincos
from otic.models.readout import SERIES, by_length, layers_of, read, width_read
from otic.models.regularise import Barred
from otic.models.text import TextConfig, fitted, text_tower
from otic.models.tokenizer import Tokenizer, Tokens


@dataclass(frozen=True, kw_only=True)
class ReaderConfig:
    """A small transformer over the frames (`pool="series"`); ours."""

    width: int = 192  # channels of a token
    depth: int = 1  # blocks
    heads: int = 3  # attention heads
    bands: Literal["mean", "concat"] = "mean"  # the mel bands of one frame: averaged, or side by side


@dataclass(frozen=True, kw_only=True)
class TwoTowerConfig:
    text: TextConfig = field(default_factory=TextConfig)  # the text tower
    dim: int = 1024  # width of the joint space
    head: HeadKind = "residual"  # MS-CLAP's head with a residual, LAION-CLAP's two layers, or one Linear
    dropout: float = 0.5  # inside the residual heads
    scale: float = math.log(1 / 0.07)  # first value of the learned log-scale
    scales: int = 1  # learned log-scales: one, or (LAION-CLAP) one for each tower
    max_scale: float = 100.0  # the scale is never larger (2022 paper; LAION-CLAP)
    bias: float | None = None  # first value of a learned bias (sigmoid loss); None: there is none
    pool: str = "mean"  # the audio tower's patches -> one vector: `cls`, a name of `models.pooling`, several joined
    # by `+`; or `series`: all frames, for the reader
    unit_text: bool = False  # the text tower's vectors are brought to length one first (sentence encoders)
    layers: tuple[int, ...] = ()  # of the audio tower, side by side; () = its output
    reader: ReaderConfig = field(default_factory=ReaderConfig)  # where pool="series"


class Reader(nn.Module):
    """A learned token looks at a series of frames, of any length, through a few pre-norm blocks."""

    def __init__(self, wide: int, cfg: ReaderConfig, gen: Generator):
        super().__init__()
        self.norm_in, self.into = nn.LayerNorm(wide), nn.Linear(wide, cfg.width)
        self.token = nn.Parameter(torch.empty(1, 1, cfg.width))
        self.blocks = nn.ModuleList(
            Block(cfg.width, cfg.heads, 4 * cfg.width, "pre", 1e-6, 0.0) for _ in range(cfg.depth)
        )
        self.norm = nn.LayerNorm(cfg.width)
        if not self.token.is_meta:
            init_linear(self, gen)
            self.into.weight.data.normal_(0.0, wide**-0.5, generator=gen)  # as loud as the positions
            self.token.data.normal_(0.0, 0.02, generator=gen)

    def forward(self, series: Float[Tensor, "b u D"], real: Bool[Tensor, "b u"]) -> Float[Tensor, "b d"]:
        frames = self.into(self.norm_in(series))
        keep = real.to(frames)[..., None]
        mean = (frames * keep).sum(1) / keep.sum(1)
        x = frames + sincos((frames.shape[1], 1), frames.shape[2]).to(frames)
        x = torch.cat((self.token.to(x).expand(len(x), -1, -1), x), 1)
        hidden = torch.cat((torch.zeros_like(real[:, :1]), ~real), 1)
        barred = Barred(hidden, "key") if bool(hidden.any()) else None
        for block in self.blocks:
            x, _ = block(x, None, barred)
        return self.norm(mean + x[:, 0])  # the mean is learned from at once, the order of the frames later


class TwoTower(nn.Module):
    """An audio tower, a text tower, and what brings both into one space.

    Args:
        encoder: The audio tower: a `ViT`, `HTSAT` or `Cnn14`.
        cfg: The rest.
        tokenizer: Of the text tower; None where it is not known (published weights come without): no text then.
        gen: Source of the first weights.

    Raises:
        ConfigError: when the config's vocabulary is smaller than the tokenizer's.
    """

    def __init__(
        self,
        encoder: nn.Module,
        cfg: TwoTowerConfig = TwoTowerConfig(),
        tokenizer: Tokenizer | None = None,
        gen: Generator | None = None,
    ):
        super().__init__()
        gen = gen or generator("two_tower")
        self.cfg, self.encoder, self.tokenizer = cfg, encoder, tokenizer
        if tokenizer is None and not cfg.text.vocab:
            raise ConfigError("text.vocab=0 (as many as the tokenizer has), but there is no tokenizer.")
        self.text = text_tower(cfg.text if tokenizer is None else fitted(cfg.text, tokenizer), gen)
        wide = width_read(encoder, cfg.pool, max(1, len(cfg.layers)), cfg.reader.bands)
        self.reader = Reader(wide, cfg.reader, gen) if cfg.pool == SERIES else None
        self.audio_head = HEADS[cfg.head](cfg.reader.width if self.reader else wide, cfg.dim, cfg.dropout, gen)
        self.text_head = HEADS[cfg.head](self.text.width, cfg.dim, cfg.dropout, gen)
        self.log_scale = nn.Parameter(torch.full((cfg.scales,), cfg.scale))
        self.bias = None if cfg.bias is None else nn.Parameter(torch.tensor(float(cfg.bias)))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with (with two scales: the audio tower's, which LAION-CLAP evaluates with)."""
        return self.log_scale[0].exp().clamp(max=self.cfg.max_scale)

    def audio(
        self,
        spec: Float[Tensor, "b c t f"],
        frames: Int[Tensor, " b"] | None = None,
        longer: Bool[Tensor, " b"] | None = None,
        gen: Generator | None = None,
    ) -> Float[Tensor, "b e"]:
        """Clips in the joint space, not normalised.

        Args:
            spec: Spectrograms of one length, padded at the end.
            frames: Real frames of each clip; a clip's vector does not depend on its padding. None: all.
            longer: Which clips are to be fused (`HTSAT` with fusion).
            gen: Source of dropout while training.
        """
        return self.place(self.hear(spec, frames, longer, gen), gen)

    def words(self, tokens: Tokens, gen: Generator | None = None) -> Float[Tensor, "n e"]:
        """Texts in the joint space, not normalised."""
        return self.text_head(self.understand(tokens, gen), gen)

    def understand(self, tokens: Tokens, gen: Generator | None = None) -> Float[Tensor, "n d"]:
        """What the text tower says of each text, before the head."""
        said = self.text(*tokens, gen)
        return F.normalize(said, dim=-1) if self.cfg.unit_text else said

    def hear(
        self,
        spec: Float[Tensor, "b c t f"],
        frames: Int[Tensor, " b"] | None = None,
        longer: Bool[Tensor, " b"] | None = None,
        gen: Generator | None = None,
    ) -> list[Float[Tensor, "_ D"]]:
        """What the audio tower says of each clip, before reader and head: its frames, or one pooled vector (u = 1).

        Clips that fill equally many patch columns go through the tower together, without padding.
        """
        cfg = self.cfg

        def values(part: Tensor, rows: list[int]) -> Tensor:
            more = {} if longer is None else {"longer": longer[rows]}
            found, grid = layers_of(self.encoder, part, cfg.layers, gen=gen, **more)
            return read(found, grid, cfg.pool, cfg.reader.bands)

        return by_length(self.encoder, spec, frames, values)

    def place(self, heard: Sequence[Float[Tensor, "_ D"]], gen: Generator | None = None) -> Float[Tensor, "b e"]:
        """From `hear` to the joint space."""
        if self.reader is None:
            return self.audio_head(torch.cat(list(heard)), gen)
        lengths = torch.tensor([len(h) for h in heard], device=heard[0].device)
        series = pad_sequence(list(heard), batch_first=True)
        real = torch.arange(series.shape[1], device=series.device) < lengths[:, None]
        return self.audio_head(self.reader(series, real), gen)


def to_file(towers: TwoTower) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a weights file keeps beside the encoder: tensors by name, and the config to build them again."""
    tensors = {f"towers.{n}": t for n, t in towers.state_dict().items() if not n.startswith("encoder.")}
    tokenizer = None if towers.tokenizer is None else towers.tokenizer.to_dict()
    return tensors, {"towers": {"config": to_dict(towers.cfg), "tokenizer": tokenizer}}


def from_file(encoder: nn.Module, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> TwoTower | None:
    """The towers that a weights file holds around its encoder; None when it holds none.

    Raises:
        ConfigError: when the config does not fit.
        RuntimeError: when the tensors are not those which it asks for.
    """
    if "towers" not in config:
        return None
    said = config["towers"]
    tokenizer = None if said["tokenizer"] is None else Tokenizer.from_dict(said["tokenizer"])
    towers = TwoTower(encoder, from_dict(TwoTowerConfig, said["config"]), tokenizer)
    own = {n.removeprefix("towers."): t for n, t in tensors.items() if n.startswith("towers.")}
    towers.load_state_dict(own | {f"encoder.{n}": t for n, t in encoder.state_dict().items()})
    return towers.eval()
