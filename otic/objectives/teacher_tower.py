"""CLAP's audio towers as teachers: what HTS-AT (or Cnn14) says of a clip, each token placed in seconds and hertz.

HTS-AT stretches the frames of a window, ends fixed, over a picture of more columns, and its last tokens are equal
pieces of that picture (`models.htsat`): undoing the stretch gives their place in time. Short sounds are repeated or
padded to the window, as the tower was trained; tokens past the end of all clips are dropped. The pooled vector is the
clip's place in the space shared with words, where the text tower's head is there, else the mean of the tokens.

Axes: b clips, s samples, n tokens of a (time, freq) grid.
"""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from otic.audio.cliplen import Short, lengthen
from otic.audio.frontend import Frontend, FrontendConfig
from otic.core.errors import ConfigError
from otic.models.cells import Cells, Ruler, patch_cells
from otic.models.cnn14 import Cnn14
from otic.models.htsat import HTSAT
from otic.models.two_tower import TwoTower
from otic.objectives.teacher import Lesson, WindowTeacher, fingerprint


class TowerTeacher(WindowTeacher):
    """An `HTSAT` or a `Cnn14` with its front-end.

    Args:
        encoder: Frozen in place.
        frontend: What it was trained with.
        name: For logs and cards.
        bank: The mel matrix of its file, where there is one.
        towers: The joint space around the encoder; None: pooled vectors are the mean of the tokens.
        window: Seconds that it hears at once.
        short: What shorter sounds are brought to the window by.
        labels_used: Whether it learned from human labels.

    Raises:
        ConfigError: if the window is longer than the picture.
    """

    def __init__(
        self,
        encoder: HTSAT | Cnn14,
        frontend: FrontendConfig,
        name: str = "teacher",
        *,
        bank: Float[Tensor, "bins mels"] | None = None,
        towers: TwoTower | None = None,
        window: float | int = 7.0,
        short: Short = "repeat",
        labels_used: bool = False,
    ):
        super().__init__()
        self.name, self.window, self.short, self.labels_used = name, float(window), short, labels_used
        self.encoder, self.frontend = encoder.requires_grad_(False), Frontend(frontend, bank=bank)
        self.heads = None if towers is None else _without_text(towers.requires_grad_(False))
        self.rate, self.width = frontend.sample_rate, encoder.width
        self.pooled_width = encoder.width if towers is None else towers.cfg.dim
        self.ruler = Ruler.of(frontend)
        self.target = round(self.window * self.rate)  # samples
        frames = self.frontend.frames(self.target)
        if isinstance(encoder, HTSAT) and frames > encoder.cfg.frames:
            raise ConfigError(
                f"{name}: window={window:g} gives {frames} frames, its picture holds {encoder.cfg.frames}."
            )
        self.eval()

    @torch.no_grad()
    def hear(self, wave: Float[Tensor, "b s"], lengths: Int[Tensor, " b"]) -> Lesson:
        rows = zip(wave, lengths.tolist(), strict=True)
        spec = self.frontend(torch.stack([lengthen(row[:n], self.target, self.short) for row, n in rows]))
        seen = self.encoder(spec)
        cells = tower_cells(self.encoder, self.ruler, spec.shape[2])
        pooled = seen.patches.mean(1) if self.heads is None else self.heads.audio(spec)
        return _until(seen.patches, cells, pooled, wave.shape[1] / self.rate)

    def identity(self) -> str:
        about = (type(self).__name__, self.encoder.cfg, self.frontend.cfg, self.window, self.short, self.heads is None)
        return fingerprint(self, hashlib.sha256(repr(about).encode()))


def _without_text(towers: TwoTower) -> TwoTower:
    """The same towers without the text's, which a teacher of sounds need not carry along."""
    out = copy.copy(towers)
    out._modules = {name: part for name, part in towers._modules.items() if name not in ("text", "text_head")}
    return out


def tower_cells(encoder: Any, ruler: Ruler, frames: int) -> Cells:
    """Where the tokens of a window of so many frames lie, time-major."""
    grid = encoder.grid(frames)
    if isinstance(encoder, Cnn14):
        patch = (encoder.frames_per_step, encoder.cfg.mels)
        return patch_cells(ruler, grid, patch, patch)
    cfg = encoder.cfg
    time = ruler.seconds(_unstretched(grid[0], cfg.frames, frames))
    bins = _unstretched(grid[1], cfg.image // cfg.chunks, cfg.mels)
    freq = np.interp(bins, np.arange(cfg.mels + 1), ruler.hertz())
    times, freqs = (torch.from_numpy(np.stack([edge[:-1], edge[1:]], 1)) for edge in (time, freq))
    return Cells(times.repeat_interleave(grid[1], 0), freqs.repeat(grid[0], 1))


def _unstretched(count: int, total: int, real: int) -> np.ndarray:
    """The edges of `count` equal pieces of `total` positions, among the `real` ones that were stretched to them:
    position j shows j * (real - 1) / (total - 1), and each reaches half a step to both sides."""
    edge = np.arange(count + 1) * (total / count) - 0.5
    return edge * (real - 1) / (total - 1) + 0.5


def _until(tokens: Float[Tensor, "b n d"], cells: Cells, pooled: Float[Tensor, "b p"], seconds: float) -> Lesson:
    """Without what lies past the longest clip; the last cell ends with it."""
    inside = cells.time[:, 0] < seconds
    time = cells.time[inside]
    last = time[:, 0] == time[:, 0].max()
    time[last, 1] = seconds
    return Lesson(tokens[:, inside.to(tokens.device)], Cells(time, cells.freq[inside]), pooled)
