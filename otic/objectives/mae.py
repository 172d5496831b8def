"""Masked autoencoders that listen: Audio-MAE (Huang et al. 2022, arXiv 2207.06405).

Most patches of a spectrogram are hidden. The encoder sees the few that are left; a small decoder is given their
encodings with one learned token in every hidden place, attends within shifted windows (local) or over the clip
(global), and predicts the hidden patches' pixels, each patch normalised by its own mean and std.

Where paper and published code disagree, we follow the code (facebookresearch/AudioMAE, bd60e29), which made the
weights: windows move along time alone, and a clip of 512 patches shows int(512 x (1 - 0.8)) = 102 of them.

Axes: b clips, t frames, f mel bins, n patches, k visible patches, d width, p pixels of a patch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from otic import masking
from otic.core.batch import Batch, Loss
from otic.core.errors import ConfigError
from otic.models.heads import normalised_patches, paint, patches, pixel_loss
from otic.models.vit import Encoded, ViT
from otic.models.vit_decoder import DecoderShape, TransformerDecoder
from otic.objectives.base import Objective


@dataclass(frozen=True, kw_only=True)
class MAEConfig:
    mask: Literal["random", "strips"] = "random"  # hide single patches, or whole time steps and frequency rows
    hide: float = 0.8  # random: share of hidden patches
    hide_time: float = 0.7  # strips: share of hidden time steps
    hide_freq: float = 0.3  # strips: share of hidden frequency rows
    decoder: DecoderShape = field(default_factory=lambda: DecoderShape(decoder="local", depth=16))  # 8 blocks if global
    normalise: bool = True  # predict patches less their mean, over their std; False paints better pictures


@dataclass(frozen=True)
class Guess:
    """One pass, before the loss.

    Attributes:
        seen: The encoding of the visible patches, in ascending order.
        pixels: The prediction for each patch, (time-in-patch, bin-in-patch) flattened.
    """

    seen: Encoded
    pixels: Float[Tensor, "b n p"]


class MAE(Objective):
    """Masked autoencoder over a ViT.

    Args:
        encoder: Trained in place.
        cfg: Settings; the defaults are the paper's base run.
        gen: Source of the decoder's initial weights.

    Raises:
        ConfigError: if the settings hide nothing.

    `Loss.parts`: `pixels` (the loss), `explained` (the share of the hidden patches' variance which the prediction
    explains: 0 for a constant) and `guess_std` (of the predicted pixels: near 0 means blurred).
    """

    def __init__(self, encoder: ViT, cfg: MAEConfig = MAEConfig(), gen: Generator | None = None):
        super().__init__()
        _check(cfg)
        self.cfg, self.net = cfg, encoder
        self.decoder = TransformerDecoder(encoder.width, cfg.decoder, encoder.patch[0] * encoder.patch[1], gen)

    @property
    def encoder(self) -> nn.Module:
        return self.net

    def forward(self, batch: Batch, gen: Generator) -> Loss:
        spec = batch.spec
        assert spec is not None, "the front-end has not filled the batch"
        visible = self.draw(len(spec), self.net.grid(spec.shape[2]), gen)
        return self.loss(spec, visible, self.guess(spec, visible, gen))

    def draw(self, count: int, grid: tuple[int, int], gen: Generator) -> Bool[Tensor, "b n"]:
        """Masks of the configured kind.

        Raises:
            ConfigError: if the settings hide everything on this grid.
        """
        cfg = self.cfg
        if cfg.mask == "random":
            return masking.random(count, grid, keep=1 - cfg.hide, gen=gen)
        return masking.strips(count, grid, keep_time=1 - cfg.hide_time, keep_freq=1 - cfg.hide_freq, gen=gen)

    def guess(
        self, spec: Float[Tensor, "b 1 t f"], visible: Bool[Tensor, "b n"], gen: Generator | None = None
    ) -> Guess:
        """Encoder and decoder for given masks (`gen` is for drop path and dropout alone)."""
        tokens, grid = self.net.tokens(spec)
        seen = self.net.encode(tokens, visible, gen=gen)
        return Guess(seen, self.decoder(seen.patches, visible, grid, seen.cls, gen))

    def targets(self, spec: Float[Tensor, "b 1 t f"]) -> Float[Tensor, "b n p"]:
        """What is to be predicted: each patch's pixels, normalised if so configured; float32."""
        cut = normalised_patches if self.cfg.normalise else patches
        return cut(spec.float(), self.net.patch, self.net.cfg.step)

    def loss(self, spec: Float[Tensor, "b 1 t f"], visible: Bool[Tensor, "b n"], guess: Guess) -> Loss:
        """Mean squared error of a pixel, over hidden patches alone, in float32."""
        targets = self.targets(spec)
        error = pixel_loss(guess.pixels, targets, visible)
        with torch.no_grad():
            parts = {
                "pixels": error.detach(),
                "explained": 1 - error / _variance(targets, ~visible).clamp_min(1e-12),
                "guess_std": _variance(guess.pixels.float(), ~visible).sqrt(),
            }
        return Loss(error, parts)

    @torch.no_grad()
    def preview(self, batch: Batch, gen: Generator) -> dict[str, Tensor]:
        """For pictures: `spec` [b, t, f], `visible` [b, t', f'], and the predicted pixels `guess` [b, t, f], unless
        patches overlap."""
        spec = batch.spec
        assert spec is not None, "the front-end has not filled the batch"
        grid = self.net.grid(spec.shape[2])
        visible = self.draw(len(spec), grid, gen)
        result = {"spec": spec[:, 0], "visible": visible.unflatten(1, grid)}
        if self.net.cfg.step == self.net.patch:
            pixels = self.guess(spec, visible, gen).pixels
            result["guess"] = paint(pixels, spec, grid, self.net.patch, self.cfg.normalise)
        return result


def _variance(x: Float[Tensor, "b n p"], hidden: Bool[Tensor, "b n"]) -> Float[Tensor, ""]:
    """Of all values in hidden patches; selecting them would wait for the device."""
    weight = hidden[..., None] / (hidden.sum() * x.shape[-1])
    return (weight * (x - (weight * x).sum()).square()).sum()


def _check(cfg: MAEConfig) -> None:
    if cfg.mask == "random" and not 0 < cfg.hide < 1:
        raise ConfigError(f"hide={cfg.hide}: the share of hidden patches must lie between 0 and 1.")
    if cfg.mask == "strips" and not (min(cfg.hide_time, cfg.hide_freq) >= 0 and cfg.hide_time + cfg.hide_freq > 0):
        raise ConfigError(f"hide_time={cfg.hide_time}, hide_freq={cfg.hide_freq}: at least one must be above 0.")
