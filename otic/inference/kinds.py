"""What inference must know of an encoder's kind: what it takes, and at what cost (how it is read: `models.readout`).

`ViT`    any number; the last column of patches is filled up
`Cnn14`  any number; what does not fill the last step is heard by its neighbours alone
`HTSAT`  stretches whatever it gets to one picture, so all its waves must be brought to one length first
"""

from __future__ import annotations

from typing import Any

from otic.models.cnn14 import Cnn14
from otic.models.htsat import HTSAT


def stretches(encoder: Any) -> bool:
    """Whether a clip's tokens are the same number whatever its length."""
    return isinstance(encoder, HTSAT)


def step(encoder: Any) -> int:
    """Frames from one column of tokens to the next, where these do not stretch."""
    return int(encoder.frames_per_step if isinstance(encoder, Cnn14) else encoder.cfg.step[0])


def cost(frames: int, encoder: Any) -> int:
    """The memory that a clip of so many frames takes, in patches of a ViT, roughly."""
    if isinstance(encoder, HTSAT):
        return (encoder.cfg.image // encoder.cfg.step) ** 2 // 8
    if isinstance(encoder, Cnn14):
        return frames * encoder.cfg.mels // 64
    time, freq = encoder.grid(frames)
    return int(time * freq)
