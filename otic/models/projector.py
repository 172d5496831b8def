"""What a contrastive loss is made of: a projector, features of all processes, and NT-Xent (SimCLR, arXiv 2002.05709).

Axes: b clips of this process, m clips of all processes, d width, e the projection's width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Generator, Tensor, nn

from otic.core.seeds import generator


@dataclass(frozen=True, kw_only=True)
class ProjectorShape:
    hidden: int = 512  # width of the hidden layer
    out: int = 128  # width of what is compared
    eps: float = 1e-6  # of the LayerNorm before it


class Projector(nn.Module):
    """LayerNorm, Linear, BatchNorm, ReLU, Linear, BatchNorm; thrown away after training (AudioMosaic).

    Its batch statistics are those of the rows it is given: give it all processes' (`everyone`), and they agree.

    Args:
        width: Of the features.
        shape: Settings.
        gen: Source of the initial weights, N(0, 0.02) cut at two.
    """

    def __init__(self, width: int, shape: ProjectorShape = ProjectorShape(), gen: Generator | None = None):
        super().__init__()
        self.norm = nn.LayerNorm(width, shape.eps, bias=False)  # a bias would vanish in the batch norm
        self.fc1, self.bn1 = nn.Linear(width, shape.hidden, bias=False), nn.BatchNorm1d(shape.hidden)
        self.fc2, self.bn2 = nn.Linear(shape.hidden, shape.out, bias=False), nn.BatchNorm1d(shape.out)
        self.bn2.bias.requires_grad_(False)
        gen = gen or generator("projector")
        for layer in (self.fc1, self.fc2):
            if not layer.weight.is_meta:
                nn.init.trunc_normal_(layer.weight, std=0.02, a=-2, b=2, generator=gen)

    def forward(self, features: Float[Tensor, "m d"]) -> Float[Tensor, "m e"]:
        hidden = F.relu(self.bn1(self.fc1(self.norm(features))))
        return self.bn2(self.fc2(hidden))


def everyone(x: Shaped[Tensor, "b ..."]) -> Shaped[Tensor, "m ..."]:
    """The rows of all processes, this one's at `rank * b`; without a process group, `x` itself.

    Gradients come back from every process, so that the mean over processes which data parallelism takes is that of
    one process with all the clips. Every process must have equally many rows.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return x
    rows: Tensor = _Gather.apply(x.contiguous())
    return rows


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(rows, x)
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]


def nt_xent(
    first: Float[Tensor, "m e"], second: Float[Tensor, "m e"], temperature: float, own: slice = slice(None)
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """(loss, share of anchors whose nearest is their partner): normalised temperature-scaled cross-entropy.

    Each view of each clip must find the clip's other view among all other rows of both views; float32.

    Args:
        first: One view of each clip.
        second: The other view, in the same order.
        temperature: Cosines are divided by it.
        own: The clips whose views are anchors, this process's; all are compared with.
    """
    rows = F.normalize(torch.cat((first, second)).float(), dim=-1)  # [2m, e]
    place = torch.arange(len(rows), device=rows.device).unflatten(0, (2, -1))[:, own].flatten()
    logits = rows[place] @ rows.T / temperature
    logits = logits.scatter(1, place[:, None], float("-inf"))  # not with itself
    partner = (place + len(first)) % len(rows)
    return F.cross_entropy(logits, partner), (logits.argmax(1) == partner).float().mean()
