"""Windowed self-attention over the patch grid: a Swin-v2 block in the variant of Audio-MAE's local decoder.

The grid is cut into small windows and each attends to itself alone. Scores are cosines over a learned temperature plus
a bias that a small network reads from the log-spaced offset of two patches (Liu et al. 2022, Swin Transformer V2,
arXiv 2111.09883). Every second block moves the windows by half their length along time (arXiv 2207.06405, section 3.3;
its figure moves them in both directions, the published code along time alone, and so do we). Norms stand after
attention and feed-forward, inside the residual: x += norm1(attn(x)); x += norm2(mlp(x)).

A grid whose sides are no multiples of the window is padded, and nothing sees the padding.

Axes: b clips, n patches, d width, w windows, m patches of a window, h heads, e channels of a head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from otic.models.block import FeedForward

WRAPPED = -100.0  # added to the score of two patches which only the cyclic shift made neighbours


class WindowBlock(nn.Module):
    """One block.

    Args:
        width: Channels.
        heads: Attention heads.
        hidden: Channels inside the feed-forward.
        window: (time, freq) patches of a window.
        shift: Windows begin this many patches later, cyclically; not along an axis that one window spans.
        eps: Of the norms.
        bias_hidden: Channels inside the network of the relative bias.
        bias_dropout: After both of that network's layers, while training.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        window: tuple[int, int] = (4, 4),
        shift: tuple[int, int] = (0, 0),
        eps: float = 1e-6,
        bias_hidden: int = 384,
        bias_dropout: float = 0.1,
    ):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = WindowAttention(width, heads, window, bias_hidden, bias_dropout)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = FeedForward(width, hidden)

    def forward(
        self, x: Float[Tensor, "b n d"], grid: tuple[int, int], gen: Generator | None = None
    ) -> Float[Tensor, "b n d"]:
        """Args: patches of a (time, freq) grid, time-major; the source of dropout's coins while training."""
        x = x + self.norm1(self._attend(x, grid, gen))
        return x + self.norm2(self.mlp(x))

    def _attend(self, x: Tensor, grid: tuple[int, int], gen: Generator | None) -> Tensor:
        shift = self.shift_on(grid)
        rest = [-side % part for side, part in zip(grid, self.window, strict=True)]
        image = F.pad(x.unflatten(1, grid), (0, 0, 0, rest[1], 0, rest[0]))  # [b, t', f', d]
        whole = (image.shape[1], image.shape[2])
        windows = cut(image.roll((-shift[0], -shift[1]), (1, 2)), self.window)
        mask = window_mask(grid, self.window, shift, x.device)
        image = join(self.attn(windows, mask, gen), whole, self.window).roll(shift, (1, 2))
        return image[:, : grid[0], : grid[1]].flatten(1, 2)

    def shift_on(self, grid: tuple[int, int]) -> tuple[int, int]:
        """The shift on this grid: none along an axis which a single window spans."""
        time, freq = (0 if side <= part else s for side, part, s in zip(grid, self.window, self.shift, strict=True))
        return time, freq


class WindowAttention(nn.Module):
    """Cosine attention inside each window."""

    def __init__(
        self, width: int, heads: int, window: tuple[int, int], bias_hidden: int = 384, bias_dropout: float = 0.1
    ):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.tau = nn.Parameter(torch.ones(heads))  # temperature of each head
        self.bias = RelativeBias(heads, window, bias_hidden, bias_dropout)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "b w m d"],
        mask: Float[Tensor, "w m m"] | None = None,
        gen: Generator | None = None,
    ) -> Float[Tensor, "b w m d"]:
        """`mask` is added to the scores of each window."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(3, 0, 1, 4, 2, 5)  # each [b, w, h, m, e]
        lengths = q.norm(dim=-1)[..., :, None] * k.norm(dim=-1)[..., None, :]
        scores = (q @ k.mT) / lengths.clamp_min(1e-6) / self.tau.clamp_min(0.01)[:, None, None] + self.bias(gen)
        if mask is not None:
            scores = scores + mask[:, None].to(scores.dtype)
        return self.proj((scores.softmax(-1).to(v.dtype) @ v).transpose(2, 3).flatten(3))


class RelativeBias(nn.Module):
    """A network from the offset of two patches to a number for each head: Linear, ReLU, Linear, dropout after both."""

    coordinates: Tensor

    def __init__(self, heads: int, window: tuple[int, int], hidden: int, dropout: float):
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Linear(2, hidden)
        self.fc2 = nn.Linear(hidden, heads)
        self.register_buffer("coordinates", log_offsets(window), persistent=False)

    def forward(self, gen: Generator | None = None) -> Float[Tensor, "h m m"]:
        x = self._drop(F.relu(self.fc1(self.coordinates.to(self.fc1.weight))), gen)
        size = round(len(x) ** 0.5)
        return self._drop(self.fc2(x), gen).T.unflatten(1, (size, size))

    def _drop(self, x: Tensor, gen: Generator | None) -> Tensor:
        if not (self.training and self.dropout):
            return x
        assert gen is not None, "dropout draws from a generator while training: pass gen"
        keep = torch.rand(x.shape, generator=gen, device=gen.device) >= self.dropout
        return x * (keep / (1 - self.dropout)).to(x)


def log_offsets(window: tuple[int, int]) -> Float[Tensor, "mm 2"]:
    """sign(o) ln(1 + |o|) of the offset o = (time, freq) from patch j to patch i, row i m + j.

    >>> log_offsets((4, 4)).shape
    torch.Size([256, 2])
    """
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in window), indexing="ij")
    place = torch.stack(axes, -1).flatten(0, 1)  # [m, 2]
    offset = (place[:, None] - place[None]).flatten(0, 1)
    return offset.sign() * offset.abs().log1p()


def window_mask(
    grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int], device: torch.device | str = "cpu"
) -> Float[Tensor, "w m m"] | None:
    """What is added to scores: -100 between patches that only the shift brought together, -inf towards padding.

    Windows are numbered time-major, as `cut` makes them. None where there is nothing to hide.
    """
    if shift == (0, 0) and all(side % part == 0 for side, part in zip(grid, window, strict=True)):
        return None
    wrapped, padding = [], []
    for side, part, s in zip(grid, window, shift, strict=True):
        whole = side + -side % part
        at = torch.arange(whole, device=device)
        wrapped.append(at >= whole - s)
        padding.append((at + s) % whole >= side)
    region = 2 * wrapped[0].long()[:, None] + wrapped[1].long()[None]
    hidden = padding[0][:, None] | padding[1][None]
    region, hidden = (cut(image[None, :, :, None], window)[0, :, :, 0] for image in (region, hidden))  # [w, m]
    mask = torch.zeros(*region.shape, region.shape[1], device=device)
    mask = mask.masked_fill(region[:, :, None] != region[:, None], WRAPPED)
    # padding may look at padding: a row without anything to see would be 0 / 0
    return mask.masked_fill(hidden[:, None] & ~hidden[:, :, None], -torch.inf)


def cut(image: Tensor, window: tuple[int, int]) -> Tensor:
    """[b, t', f', d] -> [b, w, m, d]: windows and their patches, both time-major."""
    tiles = image.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0]))  # [b, wt, mt, wf, mf, d]
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def join(windows: Tensor, grid: tuple[int, int], window: tuple[int, int]) -> Tensor:
    """The inverse of `cut`."""
    tiles = windows.unflatten(2, window).unflatten(1, (grid[0] // window[0], grid[1] // window[1]))
    return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)
