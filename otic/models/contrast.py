"""Contrastive losses between paired rows of two towers, as functions of plain tensors.

Axes: m clips (and as many texts), e joint width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def symmetric(logits: Float[Tensor, "m m"], weight: Float[Tensor, " m"] | None = None) -> Float[Tensor, ""]:
    """Mean of the cross-entropies over rows and columns, the pairs on the diagonal (arXiv 2206.04769, section 2).

    Args:
        logits: Scaled similarities, a row for each clip.
        weight: Of each pair (LAION-CLAP's weighted loss); None: all the same.
    """
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target, weight) + F.cross_entropy(logits.mT, target, weight)) / 2


def crossed(
    audio: Float[Tensor, "m e"],
    text: Float[Tensor, "m e"],
    audio_mlp: Float[Tensor, "m e"],
    text_mlp: Float[Tensor, "m e"],
    scale_audio: Float[Tensor, ""],
    scale_text: Float[Tensor, ""],
    kappa: float | None = None,
) -> Float[Tensor, ""]:
    """LAION-CLAP's loss with further heads: each tower's vectors against the other's behind its head.

    Args:
        audio: Clips in the joint space.
        text: Their captions.
        audio_mlp: The clips behind `audio_transform`.
        text_mlp: The captions behind `text_transform`.
        scale_audio: Of the clips against `text_mlp`.
        scale_text: Of the captions against `audio_mlp`.
        kappa: Pairs in crowded regions weigh more, by exp(mean similarity to all others / kappa); None: all the same.
    """
    weights = (None, None) if kappa is None else (crowding(audio, kappa), crowding(text, kappa))
    first = symmetric(scale_audio * audio @ text_mlp.mT, weights[0])
    second = symmetric(scale_text * audio_mlp @ text.mT, weights[1])
    return (first + second) / 2


def crowding(x: Float[Tensor, "m e"], kappa: float) -> Float[Tensor, " m"]:
    """exp of each row's mean similarity to all rows, over kappa; without gradient (LAION-AI/CLAP, ClipLoss)."""
    x = x.detach()
    return ((x @ x.mT).mean(1) / kappa).exp()


def sigmoid(logits: Float[Tensor, "m m"], counted: Bool[Tensor, "m m"] | None = None) -> Float[Tensor, ""]:
    """SigLIP (arXiv 2303.15343, equation 1): each pair by itself; summed over pairs, divided by the clips.

    Args:
        logits: scale * cosine + bias.
        counted: Pairs that count; None: all.
    """
    sign = 2 * torch.eye(len(logits), device=logits.device) - 1
    each = F.logsigmoid(sign * logits)
    return -(each if counted is None else each * counted).sum() / len(logits)


def hardness(logits: Float[Tensor, "m m"], beta: float) -> Float[Tensor, "m m"]:
    """What is added to the logits so that negatives count by exp(beta logit), 1 on average in each row.

    Radenovic et al. 2023 (arXiv 2301.02280), used by MGA-CLAP (2408.12021) with beta 0.15. The pairs themselves, and
    what is hidden (-inf), get 0. Without gradient.
    """
    logits = logits.detach()
    own = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    log = (beta * logits).masked_fill(own, -torch.inf)
    count = log.isfinite().sum(1, keepdim=True).clamp(min=1)
    weight = log - log.logsumexp(1, keepdim=True) + count.log()
    return weight.where(log.isfinite(), torch.zeros_like(weight))
