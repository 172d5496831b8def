"""Cnn14, the audio tower of MS-CLAP 2022: a plain convolutional network on log-mel decibels.

Kong et al. 2020 (PANNs, arXiv 1912.10211). Six pairs of 3 x 3 convolutions, averages over 2 x 2 cells between them;
then the mean over mel, maximum plus mean over time, and one more layer. Clips of any length.

Axes: b clips, t frames, f mel bins, n steps of time, d width, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.decibels import normalise, stripe
from otic.models.vit import Encoded


@dataclass(frozen=True, kw_only=True)
class Cnn14Config:
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024, 2048)  # channels of each pair of convolutions
    mels: int = 64  # mel bins of the input
    classes: int = 527  # of the tagging head; 0: there is none
    dropout: float = 0.2  # after each pair
    out_dropout: float = 0.5  # before and after the last layer
    stripes: int = 2  # SpecAugment: stripes of time, and as many of mel, set to the mean of the training data
    time_stripe: int = 64  # they are narrower than this, in frames; 0: none
    mel_stripe: int = 8  # and than this, in mel bins; 0: none


class Cnn14(nn.Module):
    """Decibels in; out come a vector (`cls`) and the steps of time that it was made of (`patches`).

    Args:
        cfg: Its shape.
        gen: Source of the initial weights; the same ones each time by default.

    Raises:
        ConfigError: if there are too few mel bins to be halved so often.

    >>> encoder = Cnn14(Cnn14Config(widths=(4, 8), mels=8, classes=0)).eval()
    >>> encoder(torch.zeros(2, 1, 50, 8)).patches.shape
    torch.Size([2, 25, 8])
    """

    bands, depth = 1, 1

    def __init__(self, cfg: Cnn14Config = Cnn14Config(), gen: Generator | None = None):
        super().__init__()
        self.cfg, self.width = cfg, cfg.widths[-1]
        self.frames_per_step = 2 ** (len(cfg.widths) - 1)
        if cfg.mels < self.frames_per_step:
            raise ConfigError(f"mels={cfg.mels}: {len(cfg.widths)} pairs of layers need {self.frames_per_step}.")
        self.input_norm = nn.BatchNorm2d(cfg.mels)
        inputs = (1, *cfg.widths)
        pairs = zip(inputs, cfg.widths, strict=False)
        self.blocks = nn.ModuleDict({str(i): Pair(*widths) for i, widths in enumerate(pairs, 1)})
        self.fc = nn.Linear(self.width, self.width)
        self.tagger = nn.Linear(self.width, cfg.classes) if cfg.classes else None
        self._init(gen or generator("cnn14"))

    @torch.no_grad()
    def _init(self, gen: Generator) -> None:
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear) and not layer.weight.is_meta:
                nn.init.xavier_uniform_(layer.weight, generator=gen)
                if layer.bias is not None:
                    layer.bias.zero_()

    def grid(self, frames: int) -> tuple[int, int]:
        """(time, freq) steps of that many frames; those that do not fill a step are dropped.

        Raises:
            ConfigError: if there is not one step.
        """
        if frames < self.frames_per_step:
            raise ConfigError(f"{frames} frames are less than one step of {self.frames_per_step}: pad the clip.")
        return frames // self.frames_per_step, 1

    def forward(self, spec: Float[Tensor, "b 1 t f"], *, gen: Generator | None = None, taps: bool = False) -> Encoded:
        """The clip's vector and its steps of time.

        Args:
            spec: Decibels.
            gen: Source of stripes and dropout while training.
            taps: Name the steps as a layer too.
        """
        cfg = self.cfg
        self.grid(spec.shape[2])
        x = normalise(self.input_norm, spec)
        if self.training:
            x = stripe(x, cfg.stripes, (cfg.time_stripe, cfg.mel_stripe), gen)
        x = x.to(self.fc.weight.dtype)
        for i, block in enumerate(self.blocks.values(), 1):
            x = block(x) if i == len(self.blocks) else F.avg_pool2d(block(x), 2)
            x = self._drop(x, cfg.dropout, gen)
        steps = x.mean(3).mT  # [b, n, d]
        pooled = self._drop(steps.amax(1) + steps.mean(1), cfg.out_dropout, gen)
        cls = self._drop(F.relu(self.fc(pooled)), cfg.out_dropout, gen)
        return Encoded(cls, steps, (steps,) if taps else ())

    def tag(self, encoded: Encoded) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b n k"]]:
        """Class scores in 0..1 of the clip; and, each step taken for a clip of its own, of each step of time (ours).

        Raises:
            ConfigError: without a tagging head.
        """
        if self.tagger is None:
            raise ConfigError("this encoder has no tagging head (classes=0): name the labels, or use another model.")
        assert encoded.cls is not None
        steps = F.relu(self.fc(2 * encoded.patches))  # maximum and mean of one step are the step
        return self.tagger(encoded.cls).sigmoid(), self.tagger(steps).sigmoid()

    def _drop(self, x: Tensor, rate: float, gen: Generator | None) -> Tensor:
        if not (self.training and rate):
            return x
        assert gen is not None, "dropout draws from a generator while training: pass gen"
        keep = torch.rand(x.shape, generator=gen, device=gen.device) >= rate
        return x * (keep / (1 - rate)).to(x)


class Pair(nn.Module):
    """Twice: convolution, batch norm, ReLU."""

    def __init__(self, inputs: int, width: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Float[Tensor, "b i t f"]) -> Float[Tensor, "b d t f"]:
        return F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
