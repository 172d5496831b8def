"""What travels from data to objective: a `Batch` in, a `Loss` out.

Axes: b clips, s samples, t frames, f mel bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """A batch of clips of one length, shorter ones zero-padded at the end.

    Attributes:
        wave: Mono samples at the recipe's rate, float32, full scale 1.
        lengths: Real samples of each clip, the rest of its row is padding.
        spec: The front-end's output once `Frontend.fill` has run.
        frames: Real frames of each clip, the rest of its spectrogram is padding; set with `spec`.
        labels: Class indices `[b]` or multi-hot rows `[b, c]`, where the data has labels.
        text: One caption (or target text) for each clip, where the data has captions.
        prompts: What is asked of each clip, where the data says so ("what emotion is this?").
        negatives: A caption that is nearly right, for each clip that has one ("" else), where the data has such.
        ids: Where each clip comes from (`file@start`, the file's id and seconds).
        starts: Seconds at which each crop begins in its clip, where that is known.
    """

    wave: Float[Tensor, "b s"]
    lengths: Int[Tensor, " b"]
    spec: Float[Tensor, "b 1 t f"] | None = None
    frames: Int[Tensor, " b"] | None = None
    labels: Tensor | None = None
    text: Sequence[str] | None = None
    prompts: Sequence[str] | None = None
    negatives: Sequence[str] | None = None
    ids: Sequence[str] = ()
    starts: Float[Tensor, " b"] | None = None

    def __len__(self) -> int:
        return len(self.wave)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        tensors: dict[str, Any] = {k: v for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **{k: v.to(device, non_blocking=True) for k, v in tensors.items()})


@dataclass(frozen=True)
class Loss:
    """What an objective returns.

    Attributes:
        total: The number to minimise.
        parts: What is worth logging, detached.
        weight: How many things `total` is the mean of, where batches of as many clips have unequally many (tokens,
            labels): the pieces of a batch, and the processes, count by it.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Any] = field(default_factory=dict)
    weight: float | Float[Tensor, ""] = 1.0
