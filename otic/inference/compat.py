"""The published CLAP systems' own ways to hear a file, for comparing numbers with them.

MS-CLAP     channels are not mixed but stand one after the other, so six seconds of stereo are twelve; what is longer
            than a window is cropped at random (microsoft/CLAP @ e8a6467)
LAION-CLAP  what is longer than a window is cropped at random or, by a model with fusion, heard as a whole beside three
            random parts of it (LAION-AI/CLAP @ 1fd4c37); rounding samples to 16 bits is up to the model's front-end

So there a file has many vectors. Ours is the same each time: the draws begin anew with every file.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from jaxtyping import Float32

from otic.audio.cliplen import Draw, clips, mono, starts
from otic.audio.read import CHUNK, decoded, read
from otic.audio.sinc import sinc_resample
from otic.core.errors import AudioError
from otic.inference.sources import Src

Heard = tuple[Float32[np.ndarray, " s"], tuple[float, float]]  # a wave, and its seconds in the sound


def heard(src: Src, rate: int, target: int, draw: Draw) -> Heard:
    """What MS-CLAP hears of a sound: `target` samples at `rate`, and their seconds in the channels joined together.

    Args:
        src: As for `otic.audio.read`.
        rate: Hz.
        target: Samples.
        draw: n -> a number below n.

    Raises:
        AudioError: when it cannot be read.
    """
    with decoded(src) as sound:
        blocks = list(sound.decoder.blocks(0, None, CHUNK))
        if not sum(map(len, blocks)):
            raise AudioError(f"{sound.name}: no samples.", "empty_file")
        wave = torch.from_numpy(np.concatenate(blocks).T.copy())
        wave = mono(sinc_resample(wave, sound.decoder.rate, rate), "concat")
    first = starts(len(wave), target, "random", draw=draw)[0]
    end = min(first + target, len(wave))
    return clips(wave[first:end], target)[0].numpy(), (first / rate, end / rate)


def cropped(src: Src, rate: int, target: int, draw: Draw) -> Heard:
    """The random crop of LAION-CLAP's models without fusion, any place of which is possible; shorter sounds whole.

    Raises:
        AudioError: when it cannot be read.
    """
    wave = read(src, rate=rate).wave
    first = starts(len(wave), target, "random", draw=lambda n: draw(n + 1))[0]
    end = min(first + target, len(wave))
    return wave[first:end], (first / rate, end / rate)


def draws(seed: int) -> Draw:
    """Python's own generator, as MS-CLAP uses it."""
    return random.Random(seed).randrange
