"""How CLAP systems bring a clip to the one length that they hear.

MS-CLAP    7 s: shorter clips are repeated and cut, longer ones cropped at random
LAION-CLAP 10 s: shorter ones are repeated while they fit, then silence; longer ones cropped, or fused: the whole
           spectrogram shrunk to 10 s, and 10 s from each third of the clip

Both draw anew each time, so that a file has another vector whenever it is asked for. Here nothing is random unless a
source of draws is passed in. Sources: microsoft/CLAP @ e8a6467, LAION-AI/CLAP @ 1fd4c37, transformers 5.23.0.

Axes: k channels, s samples, w windows, t frames, f mel bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from otic.audio import windows
from otic.audio.frontend import Frontend
from otic.core.errors import ConfigError

Short = Literal["repeat", "repeatpad", "pad"]
Crop = Literal["random", "start", "center", "windows"]
Draw = Callable[[int], int]  # n -> a number from 0 to n - 1; `random.Random(seed).randrange` is MS-CLAP's


def mono(wave: Float[Tensor, "k s"], channels: Literal["mean", "concat"] = "mean") -> Float[Tensor, " s2"]:
    """One channel of several: their mean, or one after the other, as MS-CLAP's loader reads stereo files.

    >>> mono(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), "concat").tolist()
    [1.0, 2.0, 3.0, 4.0]
    """
    return wave.mean(0) if channels == "mean" else wave.reshape(-1)


def lengthen(wave: Float[Tensor, " s"], target: int, short: Short = "repeat") -> Float[Tensor, " s2"]:
    """A wave below `target` samples brought to it; longer ones stay as they are.

    Args:
        wave: At least one sample.
        target: Samples.
        short: `repeat` the wave and cut it, repeat it while it fits and `pad` the rest, or pad alone.

    >>> [lengthen(torch.tensor([1.0, 2.0]), 5, how).tolist() for how in ("repeat", "repeatpad")]
    [[1.0, 2.0, 1.0, 2.0, 1.0], [1.0, 2.0, 1.0, 2.0, 0.0]]
    """
    if len(wave) >= target:
        return wave
    if not len(wave):
        raise ConfigError(f"a wave without samples cannot be brought to {target} of them.")
    if short == "repeat":
        return wave.repeat(-(-target // len(wave)))[:target]
    wave = wave.repeat(target // len(wave)) if short == "repeatpad" else wave
    return F.pad(wave, (0, target - len(wave)))


def starts(total: int, target: int, crop: Crop = "windows", *, hop: int = 0, draw: Draw | None = None) -> list[int]:
    """First samples of what is heard of a clip of `total` samples; [0] where it is not longer than `target`.

    Args:
        total: Samples of the clip.
        target: Samples that are heard at once.
        crop: One piece, from the `start`, the `center` or a `random` place (never the last possible one: MS-CLAP's
            rule); or all of it in `windows`, whose vectors are then averaged.
        hop: Samples from one window to the next; 0: none overlap, but the last ends with the clip.
        draw: Source of random places.

    Raises:
        ConfigError: if a place is to be drawn from nowhere.

    >>> starts(25, 10), starts(25, 10, "center")
    ([0, 10, 15], [7])
    """
    if total <= target:
        return [0]
    if crop == "random":
        return [_source(draw)(total - target)]
    if crop == "windows":
        return windows.starts(total, target, hop or target)
    return [0 if crop == "start" else (total - target) // 2]


def clips(
    wave: Float[Tensor, " s"],
    target: int,
    *,
    short: Short = "repeat",
    crop: Crop = "windows",
    hop: int = 0,
    draw: Draw | None = None,
) -> Float[Tensor, "w target"]:
    """What is heard of a clip, every row `target` samples long; the defaults are ours, the arguments as above.

    >>> clips(torch.arange(25.0), 10)[:, 0].tolist()
    [0.0, 10.0, 15.0]
    """
    first = starts(len(wave), target, crop, hop=hop, draw=draw)
    wave = lengthen(wave, target, short)
    return torch.stack([wave[a : a + target] for a in first])


def fused(
    frontend: Frontend,
    wave: Float[Tensor, " s"],
    target: int,
    *,
    short: Short = "repeatpad",
    parts: tuple[int, int, int] | None = None,
    draw: Draw | None = None,
) -> tuple[Float[Tensor, "4 t f"], bool]:
    """The input of an encoder that fuses, and whether there is something to fuse (`longer`).

    A clip that gives no more frames than `target` samples is there four times.

    Args:
        frontend: Of the model.
        wave: The clip.
        target: Samples that are heard at once.
        short: As for `lengthen`.
        parts: First frames of the three parts; None: as `thirds` says.
        draw: Source of their places; None: the middle of each third.
    """
    spec = frontend(lengthen(wave, target, short)[None])[0, 0]
    frames = frontend.frames(target)
    if len(spec) <= frames:
        return spec.expand(4, -1, -1), False
    first = parts or thirds(len(spec), frames, draw)
    return torch.stack([shrink(spec, frames), *(spec[a : a + frames] for a in first)]), True


def thirds(total: int, frames: int, draw: Draw | None = None) -> tuple[int, int, int]:
    """Where the three parts of a clip of `total` frames start: one in each third of all places where `frames` fit.

    The first thirds are the larger ones; one that is empty starts at 0, as upstream has it.

    >>> thirds(20, 10)
    (2, 6, 9)
    """
    begin, found = 0, []
    for i in range(3):
        size = (total - frames + 1 + 2 - i) // 3
        at = size // 2 if draw is None else draw(size) if size else 0
        found.append(begin + at if size else 0)
        begin += size
    return found[0], found[1], found[2]


def shrink(spec: Float[Tensor, "t f"], frames: int) -> Float[Tensor, "frames f"]:
    """A spectrogram interpolated in time, linearly and without a filter: frames in between are not seen."""
    return F.interpolate(spec[None, None], (frames, spec.shape[1]), mode="bilinear", align_corners=False)[0, 0]


def drawn(gen: Generator) -> Draw:
    """Draws from a torch generator."""
    return lambda n: int(torch.randint(n, (), generator=gen, device=gen.device))


def _source(draw: Draw | None) -> Draw:
    if draw is None:
        raise ConfigError('crop="random" needs a source of draws: pass draw=drawn(generator(seed)).')
    return draw
