"""HTS-AT, the audio tower of MS-CLAP 2023 and LAION-CLAP (Chen et al. 2022, arXiv 2202.00874).

The log-mel's time axis is stretched to a fixed length, cut into as many pieces as fill a square picture when stacked
along frequency, and read by a Swin transformer. Afterwards the stack is undone: what comes out are tokens over time,
each a few bands high. A tagging head (unused by CLAP) turns them into class scores over time.

Where code and papers differ, code (microsoft/CLAP @ e8a6467, LAION-AI/CLAP @ 1fd4c37). Its `infer_mode`, which
repeats short clips and is reached by neither program, is left out: waves are brought to a length (`audio.cliplen`).

Axes: b clips, t frames, f mel bins, c channels (fused input: the whole and three parts), n tokens, d width, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.decibels import crop, need, normalise, stripe
from otic.models.fusion import Fusion
from otic.models.init import init_default
from otic.models.swin import Stage, SwinAttention, full_precision
from otic.models.vit import Encoded

WINDOW, HOP = 689, 344  # frames of a window of long input, and from one to the next: MS-CLAP's 5 s every 2.5


@dataclass(frozen=True, kw_only=True)
class HTSATConfig:
    width: int = 96  # channels of the first stage; each further stage doubles them
    depths: tuple[int, ...] = (2, 2, 6, 2)  # blocks of each stage
    heads: tuple[int, ...] = (4, 8, 16, 32)  # attention heads of each stage
    window: int = 8  # side of a window, in tokens
    patch: int = 4  # side of a patch, in pixels of the picture
    stride: int | None = None  # pixels between patches; None: they do not overlap
    image: int = 256  # side of the picture
    mels: int = 64  # mel bins of the input; image // mels pieces of time are stacked
    mlp_ratio: float = 4.0  # hidden width of the feed-forward, in widths
    drop_path: float = 0.1  # stochastic depth of the last block; the first has none
    eps: float = 1e-5  # of every LayerNorm
    classes: int = 527  # of the tagging head; 0: there is none
    fusion: bool = False  # whether long clips come with three parts of them, to be fused (LAION-CLAP)
    reduction: int = 4  # of the fusing gate's inner channels
    long: Literal["windows", "cut"] = "windows"  # input longer than the picture: overlapping windows, or its beginning
    stripes: int = 2  # SpecAugment: stripes of time, and as many of mel, set to the mean of the training data
    time_stripe: int = 64  # they are narrower than this, in frames; 0: none
    mel_stripe: int = 8  # and than this, in mel bins; 0: none

    @property
    def step(self) -> int:
        """Pixels from one patch to the next."""
        return self.stride or self.patch

    @property
    def chunks(self) -> int:
        """Pieces of time stacked along frequency."""
        return self.image // self.mels

    @property
    def frames(self) -> int:
        """Frames that fill the picture."""
        return self.image * self.chunks


class HTSAT(nn.Module):
    """Decibels in, tokens out; its input normalisation is inside.

    Args:
        cfg: Its shape.
        gen: Source of the initial weights; the same ones each time by default.

    Raises:
        ConfigError: if picture, patches, windows and stages do not fit together.

    >>> cfg = HTSATConfig(width=8, depths=(2, 2), heads=(2, 2), window=4, image=32, mels=8, classes=0)
    >>> HTSAT(cfg).eval()(torch.zeros(1, 1, 100, 8)).patches.shape
    torch.Size([1, 16, 16])
    """

    def __init__(self, cfg: HTSATConfig = HTSATConfig(), gen: Generator | None = None):
        super().__init__()
        _check(cfg)
        self.cfg, self.depth = cfg, 1
        side, last = cfg.image // cfg.step, len(cfg.depths) - 1
        self.width, self.side = cfg.width << last, side >> last  # of the output, and of its picture
        self.input_norm = nn.BatchNorm2d(cfg.mels)
        self.patch = Patch(cfg)
        self.fusion = Fusion(cfg.width, cfg.patch, cfg.step, cfg.reduction) if cfg.fusion else None
        drops = torch.linspace(0, cfg.drop_path, sum(cfg.depths), device="cpu").tolist()
        self.stages = nn.ModuleList()
        for s, (depth, heads) in enumerate(zip(cfg.depths, cfg.heads, strict=True)):
            width, begin = cfg.width << s, sum(cfg.depths[:s])
            leave = unstacked(self.side, cfg.chunks) if s == last else None
            self.stages.append(
                Stage(
                    side >> s,
                    width,
                    heads,
                    int(width * cfg.mlp_ratio),
                    cfg.window,
                    drops[begin : begin + depth],
                    cfg.eps,
                    leave,
                )
            )
        self.norm = nn.LayerNorm(self.width, cfg.eps)
        self.tagger = nn.Conv2d(self.width, cfg.classes, (self.bands, 3), padding=(0, 1)) if cfg.classes else None
        self._init(gen or generator("htsat"))

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        if self.norm.weight.is_meta:
            return
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                init_default(layer, gen)
            elif isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02, generator=gen)
                if layer.bias is not None:
                    layer.bias.zero_()
            elif isinstance(layer, SwinAttention):
                nn.init.trunc_normal_(layer.rel_bias, std=0.02, generator=gen)

    @property
    def bands(self) -> int:
        """Tokens along frequency."""
        return self.side // self.cfg.chunks

    @property
    def steps(self) -> int:
        """Tokens along time, of one picture."""
        return self.side * self.cfg.chunks

    def grid(self, frames: int) -> tuple[int, int]:
        """(time, freq) tokens of that many frames: always the same, but windows of long input stand one by one.

        Raises:
            ConfigError: if there is no frame.
        """
        if frames < 1:
            raise ConfigError(f"{frames} frames: expected at least one.")
        return len(self._starts(frames)) * self.steps, self.bands

    def forward(
        self,
        spec: Float[Tensor, "b c t f"],
        longer: Bool[Tensor, " b"] | None = None,
        *,
        gen: Generator | None = None,
        taps: bool = False,
    ) -> Encoded:
        """Tokens after the last norm, time-major; their mean is what CLAP calls the clip's embedding.

        Args:
            spec: Decibels; with fusion four channels (of which one is enough where no clip is `longer`).
            longer: The clips whose parts are fused with the whole.
            gen: Source of stripes, crops and drop path while training.
            taps: Name the output as a layer too.
        """
        cfg = self.cfg
        if spec.shape[3] != cfg.mels:
            raise ConfigError(f"the spectrogram has {spec.shape[3]} mel bins, but this encoder wants {cfg.mels}.")
        x = normalise(self.input_norm, spec)
        if self.training:
            x = stripe(x, cfg.stripes, (cfg.time_stripe, cfg.mel_stripe), gen)
            x = x if x.shape[2] <= cfg.frames else crop(x, cfg.frames, gen)
            longer = self._one_longer(longer, x, gen)
        size = x.shape[2] if x.shape[2] <= cfg.frames else self._window
        windows = [self._encode(x[:, :, a : a + size], longer, gen) for a in self._starts(x.shape[2])]
        patches = windows[0] if len(windows) == 1 else torch.cat(windows, 1)
        return Encoded(None, patches, (patches,) if taps else ())

    def image(self, x: Float[Tensor, "b c t f"]) -> Float[Tensor, "b c side side"]:
        """Time stretched to fill the picture (bicubic, ends fixed), its pieces stacked along frequency."""
        cfg, b, c = self.cfg, x.shape[0], x.shape[1]
        high = cfg.image // cfg.chunks  # rows of a piece
        with torch.autocast(x.device.type, enabled=False):
            if x.shape[3] < high:
                x = x @ stretch(x.shape[3], high, x.device).to(x).mT
            if x.shape[2] == cfg.frames:
                return x.unflatten(2, (cfg.chunks, -1)).mT.reshape(b, c, cfg.image, cfg.image)
            pieces = [x[:, :, first:end].mT @ w.to(x).mT for first, end, w in pieces_of(x.shape[2], cfg, x.device)]
            return torch.cat(pieces, 2)

    def _encode(self, x: Tensor, longer: Tensor | None, gen: Generator | None) -> Float[Tensor, "b n d"]:
        """Tokens of one picture."""
        dtype = self.patch.proj.weight.dtype
        with full_precision(x):
            y = self.patch.proj(self.image(x[:, :1]).to(dtype))
        if self.fusion is not None and longer is not None and bool(longer.any()):
            which = longer.nonzero().flatten()
            parts = self.image(x[which, 1:]).to(dtype)
            y = y.index_copy(0, which, self.fusion(y[which], parts).to(y))
        y = self.patch(y)
        for stage in self.stages:
            y = stage(y, gen)
        return self.norm(y)

    def tag(self, encoded: Encoded) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b steps k"]]:
        """Class scores in 0..1 of the clip, and of each step of time (upstream repeats them for every frame).

        Windows of a long clip are averaged.

        Raises:
            ConfigError: without a tagging head.
        """
        if self.tagger is None:
            raise ConfigError("this encoder has no tagging head (classes=0): name the labels, or use another model.")
        windows = encoded.patches.unflatten(1, (-1, self.steps, self.bands))  # [b, w, t', f', d]
        logits = self.tagger(windows.flatten(0, 1).permute(0, 3, 2, 1))[:, :, 0].unflatten(0, windows.shape[:2]).mT
        return logits.mean(2).sigmoid().mean(1), logits.sigmoid().mean(1)

    @property
    def _window(self) -> int:
        """Frames of a window of long input; `cut` takes all that fit."""
        return self.cfg.frames if self.cfg.long == "cut" else self._measure(WINDOW)

    def _measure(self, frames: int) -> int:
        """MS-CLAP's constants are frames, whatever the picture; one that cannot hold them has them in its measure."""
        return frames if self.cfg.frames >= WINDOW else frames * self.cfg.frames // 1024

    def _starts(self, frames: int) -> list[int]:
        """First frames of the windows."""
        if frames <= self.cfg.frames or self.cfg.long == "cut":
            return [0]
        return list(range(0, frames - self._window - 1, self._measure(HOP)))

    def _one_longer(self, longer: Tensor | None, x: Tensor, gen: Generator | None) -> Tensor | None:
        """A batch without a long clip still trains the fusion: on one clip, drawn at random."""
        if self.fusion is None or x.shape[1] == 1 or (longer is not None and bool(longer.any())):
            return longer
        gen = need(gen)
        drawn = torch.randint(len(x), (1,), generator=gen, device=gen.device).to(x.device)
        return torch.arange(len(x), device=x.device) == drawn


class Patch(nn.Module):
    """Patch embedding; tokens leave in the order of the first stage's windows."""

    def __init__(self, cfg: HTSATConfig):
        super().__init__()
        side = cfg.image // cfg.step
        self.window = min(cfg.window, side)
        self.proj = nn.Conv2d(1, cfg.width, cfg.patch, cfg.step, (cfg.patch - cfg.step) // 2)
        self.norm = nn.LayerNorm(cfg.width, cfg.eps)

    def forward(self, y: Float[Tensor, "b d y x"]) -> Float[Tensor, "b n d"]:
        """Args: what `proj` made."""
        tiles = y.unflatten(3, (-1, self.window)).unflatten(2, (-1, self.window))  # [b, d, wy, my, wx, mx]
        tokens = self.norm(tiles.permute(0, 2, 4, 3, 5, 1).flatten(1, 4))
        return tokens.to(self.norm.weight.dtype)  # under autocast, too, what blocks add to is float32


def unstacked(side: int, chunks: int) -> Int[Tensor, " n"]:
    """Row-major numbers of the last picture's tokens, time-major once the pieces stand one after the other.

    >>> unstacked(4, 2).tolist()
    [0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15]
    """
    return torch.arange(side * side).view(chunks, side // chunks, side).mT.flatten()


def stretch(old: int, new: int, device: torch.device) -> Float[Tensor, "new old"]:
    """Bicubic interpolation with fixed ends as a matrix: its gradient is a product too, the same each time.

    The kernel's own backward adds in random order on GPUs.
    """
    return _matrix(old, new).to(device)


@lru_cache(maxsize=16)
def _matrix(old: int, new: int) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():
        eye = torch.eye(old, device="cpu")[None, None]
        return F.interpolate(eye, (new, old), mode="bicubic", align_corners=True)[0, 0]


def pieces_of(frames: int, cfg: HTSATConfig, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """(first frame, end, matrix) of each piece of the picture, with only the frames that it sees."""
    return _pieces(frames, cfg.frames, cfg.chunks, str(device))


@lru_cache(maxsize=16)
def _pieces(frames: int, total: int, chunks: int, device: str) -> list[tuple[int, int, Tensor]]:
    found, size, step = [], total // chunks, (frames - 1) / max(1, total - 1)
    whole = _matrix(frames, total)
    with torch.inference_mode(False):  # what is kept may be trained with later
        for i in range(chunks):
            first = max(0, int(i * size * step) - 2)  # the kernel reaches two frames, and one more for rounding
            end = min(frames, int(((i + 1) * size - 1) * step) + 4)
            matrix = whole[i * size : (i + 1) * size, first:end]
            found.append((first, end, matrix.contiguous().to(device)))
    return found


def _check(cfg: HTSATConfig) -> None:
    last = len(cfg.depths) - 1
    if len(cfg.heads) != len(cfg.depths) or any((cfg.width << s) % h for s, h in enumerate(cfg.heads)):
        raise ConfigError(f"heads={cfg.heads}: one number for each of depths={cfg.depths}, a divisor of its width.")
    if not 0 < cfg.mels <= cfg.image:
        raise ConfigError(f"mels={cfg.mels}: expected 1 to image={cfg.image}.")
    side = cfg.image // cfg.step
    sides = [side >> s for s in range(last + 1)]
    if cfg.image % cfg.step or side % (1 << last) or sides[-1] % cfg.chunks or cfg.image % cfg.chunks:
        raise ConfigError(
            f"image={cfg.image}: does not divide into patches of {cfg.step}, {last} mergings, {cfg.chunks} pieces."
        )
    if any(s > cfg.window and s % cfg.window for s in sides):
        raise ConfigError(f"window={cfg.window}: does not fill the pictures of {sides} tokens a side.")
