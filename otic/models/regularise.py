"""Regularised masking: in every layer other patches are barred from giving their attention (A-JEPA, 2311.15830, 4).

The paper says that 10 % of the patches, chosen at random in each layer, are "barred from contributing to attention" and
that "their attention score is entirely supplied by others", while fine-tuning only; it leaves the exact matrix open.
Here are the three readings; they agree where nothing is barred.

key         no query sees a barred token, nor does it itself: its row is made of others (our default; it is DropKey on
            whole tokens)
self        a barred token does not see itself, all others do
query_mean  a barred token's row of attention is the mean row of the others

Axes: b clips, h heads, m tokens (extra ones first), n patches, e channels of a head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from otic.core.errors import ConfigError
from otic.masking.uniform import draw, lowest

Mode = Literal["key", "self", "query_mean"]


@dataclass(frozen=True, kw_only=True)
class Regularise:
    ratio: float = 0.1  # share of the patches that are barred, drawn anew for each layer and clip; 0: plain attention
    mode: Mode = "key"  # what barring means; the paper leaves it open

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1:
            raise ConfigError(f"rm.ratio={self.ratio}: the share of barred patches lies in 0..1, 1 excluded.")

    def barred(self, rows: int, patches: int, extra: int, gen: Generator) -> Barred | None:
        """One layer's draw; extra tokens are never barred, and never all patches.

        Args:
            rows: Clips.
            patches: Patches of each.
            extra: Tokens before them.
            gen: Source of the draw, on the model's device.
        """
        count = min(round(self.ratio * patches), patches - 1)
        if count < 1:
            return None
        return Barred(F.pad(lowest(draw((rows, patches), gen), count), (extra, 0)), self.mode)


@dataclass(frozen=True)
class Barred:
    """Which tokens are barred in a layer, and what that means there."""

    tokens: Bool[Tensor, "b m"]
    mode: Mode

    @property
    def mask(self) -> Float[Tensor, "b 1 q m"] | None:
        """What is added to the logits, of one row for all queries (`key`) or a row for each (`self`)."""
        if self.mode == "query_mean":
            return None
        bars = self.tokens[:, None] if self.mode == "key" else torch.diag_embed(self.tokens)
        return torch.zeros_like(bars, dtype=torch.float32).masked_fill(bars, -torch.inf)[:, None]

    def finish(self, x: Float[Tensor, "b h m e"]) -> Float[Tensor, "b h m e"]:
        """The values which attention gathered; `query_mean` gives barred tokens the mean of the others' (a mean of
        rows of attention, applied to the values, is the mean of what the rows gathered)."""
        if self.mode != "query_mean":
            return x
        free = (~self.tokens).to(x)[:, None, :, None]
        mean = (x * free).sum(2, keepdim=True) / free.sum(2, keepdim=True)
        return torch.where(self.tokens[:, None, :, None], mean, x)
