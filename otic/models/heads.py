"""What reads an encoder out: class logits, pixels.

Axes: b clips, r rows (masked views, a multiple of b), n patches, d width, c classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models.init import init_default
from otic.models.vit import Encoded


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    classes: int = 2  # logits
    read: Literal["cls", "mean", "cls_dist", "lin_softmax"] = "cls"  # CLS, mean patch, mean of both tokens, lin_softmax
    eps: float = 1e-6  # of its LayerNorm (AST, SSAST and the Hugging Face variant of EAT: 1e-5)
    std: float = 0.02  # of the initial weights, a normal cut at two


class Head(nn.Module):
    """LayerNorm and Linear on one vector for each clip (EAT section 3.4; AST; Audio-MAE).

    Args:
        width: The encoder's.
        cfg: Settings.
        gen: Source of the initial weights.
    """

    def __init__(self, width: int, cfg: HeadConfig = HeadConfig(), gen: Generator | None = None):
        super().__init__()
        self.cfg = cfg
        self.norm = nn.LayerNorm(width, cfg.eps)
        self.linear = nn.Linear(width, cfg.classes)
        if not self.linear.weight.is_meta:
            nn.init.trunc_normal_(self.linear.weight, std=cfg.std, a=-2, b=2, generator=gen or generator("head"))
            nn.init.zeros_(self.linear.bias)

    def forward(self, encoded: Encoded) -> Float[Tensor, "b c"]:
        """Logits.

        Raises:
            ConfigError: if a token is to be read that the encoder does not have.
        """
        if self.cfg.read == "cls":
            if encoded.cls is None:
                raise ConfigError('read="cls", but this encoder has no CLS token: use read="mean".')
            return self.linear(self.norm(encoded.cls))
        if self.cfg.read == "cls_dist":
            if encoded.cls is None or encoded.dist is None:
                raise ConfigError('read="cls_dist", but this encoder lacks one of the tokens: use read="mean".')
            return self.linear(self.norm((encoded.cls + encoded.dist) / 2))
        if self.cfg.read == "mean":
            return self.linear(self.norm(encoded.patches.mean(1)))
        return self.linear(self.norm(lin_softmax(encoded.patches)))


def lin_softmax(x: Float[Tensor, "b n d"]) -> Float[Tensor, "b d"]:
    """Linear-softmax pooling: the logit of sum(p^2) / sum(p) with p = sigmoid(x), in the log domain and float32.

    Upstream's code adds 1e-6 to the logarithms in the denominator; kept.
    """
    log = F.logsigmoid(x.float())
    log = (torch.logsumexp(2 * log, 1) - torch.logsumexp(log + 1e-6, 1)).clamp(max=0)
    return torch.nan_to_num(log - torch.log(-torch.expm1(log)), nan=0.0, posinf=0.0, neginf=0.0).to(x)


class PixelHead(nn.Module):
    """Predicts a patch's pixels, normalised by the patch's own mean and std (MAE section 3; Audio-MAE).

    Args:
        width: Channels of the tokens.
        patch: (frames, mel bins) of a patch; patches must not overlap.
        gen: Source of the initial weights.
    """

    def __init__(self, width: int, patch: tuple[int, int], gen: Generator | None = None):
        super().__init__()
        self.patch = patch
        self.linear = nn.Linear(width, patch[0] * patch[1])
        init_default(self.linear, gen or generator("pixels"))

    def forward(self, tokens: Float[Tensor, "r n d"]) -> Float[Tensor, "r n p"]:
        return self.linear(tokens)

    def paint(
        self, tokens: Float[Tensor, "b n d"], spec: Float[Tensor, "b 1 t f"], grid: tuple[int, int]
    ) -> Float[Tensor, "b t2 f"]:
        """The predicted spectrogram, each patch brought to the true patch's mean and std, for pictures."""
        return paint(self(tokens), spec, grid, self.patch)

    def loss(
        self, tokens: Float[Tensor, "r n d"], spec: Float[Tensor, "b 1 t f"], visible: Bool[Tensor, "r n"]
    ) -> Float[Tensor, ""]:
        """Mean squared error over hidden patches, float32."""
        return pixel_loss(self(tokens), normalised_patches(spec, self.patch), visible)


def pixel_loss(
    guess: Float[Tensor, "r n p"], target: Float[Tensor, "b n p"], visible: Bool[Tensor, "r n"]
) -> Float[Tensor, ""]:
    """Mean squared error over hidden patches, float32; the views of a clip share its target."""
    views = guess.float().unflatten(0, (len(target), -1))  # [b, c, n, p]
    error = (views - target[:, None]).square().mean(-1).flatten(0, 1)
    return (error * ~visible).sum() / (~visible).sum()


def paint(
    guess: Float[Tensor, "b n p"],
    spec: Float[Tensor, "b 1 t f"],
    grid: tuple[int, int],
    patch: tuple[int, int],
    normalised: bool = True,
) -> Float[Tensor, "b t2 f2"]:
    """Predicted patches side by side; normalised ones are brought to the true patch's mean and std."""
    pixels = guess.float()
    if normalised:
        std, mean = torch.std_mean(patches(spec.float(), patch), -1, keepdim=True)
        pixels = pixels * std + mean
    tiles = pixels.unflatten(2, patch).unflatten(1, grid)  # [b, t', f', 16, 16]
    return tiles.transpose(2, 3).flatten(3).flatten(1, 2)


def normalised_patches(
    spec: Float[Tensor, "b 1 t f"], patch: tuple[int, int], step: tuple[int, int] | None = None
) -> Float[Tensor, "b n p"]:
    """Each patch's pixels (time-major), less their mean, over their (unbiased) std; float32."""
    x = patches(spec.float(), patch, step)
    var, mean = torch.var_mean(x, -1, keepdim=True)
    return (x - mean) * (var + 1e-6).rsqrt()


def patches(
    spec: Float[Tensor, "b 1 t f"], patch: tuple[int, int], step: tuple[int, int] | None = None
) -> Float[Tensor, "b n p"]:
    """Cut into patches; frames and bins that do not fill one are dropped.

    Args:
        spec: What is cut.
        patch: (frames, mel bins) of a patch.
        step: From one patch to the next; None: they do not overlap.

    >>> patches(torch.zeros(2, 1, 33, 128), (16, 16)).shape
    torch.Size([2, 16, 256])
    """
    time, freq = step or patch
    tiles = spec[:, 0].unfold(1, patch[0], time).unfold(2, patch[1], freq)  # [b, t', f', 16, 16]
    return tiles.flatten(3).flatten(1, 2)
