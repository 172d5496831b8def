"""MS-CLAP's own way to hear a file, for comparing numbers with it (microsoft/CLAP @ e8a6467).

Channels are not mixed but stand one after the other, so six seconds of stereo are twelve; what is longer than a window
is cropped at random, so a file has many vectors. Ours is the same each time: the draws begin anew with every file.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32

from otic.audio.cliplen import clips, mono, starts
from otic.audio.read import CHUNK, decoded
from otic.audio.sinc import sinc_resample
from otic.core.errors import AudioError
from otic.inference.sources import Src


def heard(
    src: Src, rate: int, target: int, draw: Callable[[int], int]
) -> tuple[Float32[np.ndarray, " s"], tuple[float, float]]:
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


def draws(seed: int) -> Callable[[int], int]:
    """Python's own generator, as upstream uses it."""
    return random.Random(seed).randrange
