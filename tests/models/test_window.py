"""Windowed attention against the formula over all pairs of patches, where windows and padding do not exist."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from otic.core.seeds import generator
from otic.models.window import WRAPPED, RelativeBias, WindowBlock, cut, join, log_offsets, window_mask


def block(shift=(0, 0), window=(4, 4), **more):
    made = WindowBlock(16, 2, 24, window, shift, bias_hidden=8, **more)
    gen = generator("block")
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=gen))
        made.attn.tau.uniform_(0.2, 2.0, generator=gen)
    return made.eval()


def places(grid):
    return [(t, f) for t in range(grid[0]) for f in range(grid[1])]


def neighbours(grid, window, shift):
    """Which patches meet: the same window after the shift, and no wrap between them. Plain loop."""
    size = [math.ceil(side / part) * part for side, part in zip(grid, window, strict=True)]

    def home(place):
        moved = [(p - s) % n for p, s, n in zip(place, shift, size, strict=True)]
        wrapped = [p < s for p, s in zip(place, shift, strict=True)]
        return [m // part for m, part in zip(moved, window, strict=True)], wrapped

    homes = [home(place) for place in places(grid)]
    return torch.tensor([[a == b for b in homes] for a in homes])


def all_pairs(made, x, grid, shift):
    """The block's formula as one attention over the clip, in which patches of other windows are barred."""
    attn = made.attn
    b, n, d = x.shape
    q, k, v = attn.qkv(x).view(b, n, 3, attn.heads, -1).permute(2, 0, 3, 1, 4)
    scores = F.cosine_similarity(q[:, :, :, None], k[:, :, None], dim=-1) / attn.tau.clamp_min(0.01)[:, None, None]
    at = torch.tensor(places(grid)).float()
    offset = at[:, None] - at[None]
    bias = attn.bias.fc2(F.relu(attn.bias.fc1(offset.sign() * torch.log1p(offset.abs())))).permute(2, 0, 1)
    scores = (scores + bias).masked_fill(~neighbours(grid, made.window, shift), -torch.inf)
    y = attn.proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d))
    x = x + F.layer_norm(y, (d,), made.norm1.weight, made.norm1.bias, 1e-6)
    y = made.mlp.fc2(F.gelu(made.mlp.fc1(x)))
    return x + F.layer_norm(y, (d,), made.norm2.weight, made.norm2.bias, 1e-6)


@pytest.mark.parametrize("grid", [(8, 8), (24, 8), (13, 8), (6, 5), (3, 2), (5, 9)])
@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (2, 2), (1, 3)])
def test_formula_over_all_pairs(grid, shift):
    made = block(shift)
    x = torch.randn(2, grid[0] * grid[1], 16, generator=generator("x"))
    moved = tuple(0 if side <= 4 else s for side, s in zip(grid, shift, strict=True))
    assert made.shift_on(grid) == moved
    assert torch.allclose(made(x, grid), all_pairs(made, x, grid, moved), atol=2e-5)


def test_other_windows():
    made = block((1, 2), window=(2, 4))
    x = torch.randn(1, 7 * 6, 16, generator=generator("x"))
    assert torch.allclose(made(x, (7, 6)), all_pairs(made, x, (7, 6), (1, 2)), atol=2e-5)


@pytest.mark.parametrize("grid", [(8, 4), (7, 5)])
def test_gradients_are_finite_beside_padding(grid):
    made = block((2, 0))
    x = torch.randn(1, grid[0] * grid[1], 16, generator=generator("x")).requires_grad_()
    made(x, grid).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in (x, *made.parameters()))


def test_a_temperature_never_falls_below_a_hundredth():
    made = block()
    x = torch.randn(1, 16, 16, generator=generator("x"))
    with torch.no_grad():
        made.attn.tau.fill_(0.01)
        floor = made(x, (4, 4))
        made.attn.tau.fill_(-3.0)
    assert torch.equal(made(x, (4, 4)), floor)


# --- the mask


def test_nothing_to_hide():
    assert window_mask((8, 4), (4, 4), (0, 0)) is None


@pytest.mark.parametrize("grid", [(8, 8), (9, 6), (13, 8)])
@pytest.mark.parametrize("shift", [(0, 0), (2, 0), (2, 1)])
def test_mask_shows_a_patch_itself_and_its_true_neighbours(grid, shift):
    mask = window_mask(grid, (4, 4), shift)
    if mask is None:
        return
    assert set(mask.unique().tolist()) <= {0.0, WRAPPED, -torch.inf}
    assert (mask.diagonal(dim1=1, dim2=2) == 0).all()  # no row is empty: softmax has no 0 / 0
    assert int((mask == 0).any(1).sum()) == mask.shape[0] * mask.shape[1]
    seen = int(neighbours(grid, (4, 4), shift).sum())
    padding = mask.shape[0] * 16 - grid[0] * grid[1]
    assert seen <= int((mask == 0).sum()) <= seen + 16 * padding


def test_published_mask_of_the_last_windows_alone():
    """Shifted along time by two of four: only the windows of the last step mix both ends of the clip."""
    mask = window_mask((64, 8), (4, 4), (2, 0)).view(16, 2, 16, 16)
    assert not mask[:-1].any()
    half = torch.arange(16) < 8
    assert torch.equal(mask[-1] == WRAPPED, (half[:, None] != half[None]).expand(2, -1, -1))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_join_undoes_cut(wt, wf, mt, mf):
    grid, window = (wt * mt, wf * mf), (mt, mf)
    image = torch.arange(2 * grid[0] * grid[1] * 3).view(2, *grid, 3)
    windows = cut(image, window)
    assert windows.shape == (2, wt * wf, mt * mf, 3)
    assert torch.equal(windows[1, wf * (wt - 1), 0], image[1, grid[0] - mt, 0])
    assert torch.equal(join(windows, grid, window), image)


# --- the relative bias


def test_offsets():
    table = log_offsets((3, 2)).view(6, 6, 2)
    for i, a in enumerate(places((3, 2))):
        for j, b in enumerate(places((3, 2))):
            for axis in (0, 1):
                delta = a[axis] - b[axis]
                assert table[i, j, axis].item() == pytest.approx(math.copysign(math.log(1 + abs(delta)), delta))


def test_dropout_follows_its_generator():
    bias = RelativeBias(4, (4, 4), 64, 0.25)
    plain = bias.eval()()
    assert torch.equal(plain, bias(generator(1)))
    bias.train()
    state = torch.get_rng_state()
    first, again, other = (bias(generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert (first == 0).float().mean().item() == pytest.approx(0.25, abs=0.04)
    mean = torch.stack([bias(generator("mean", i)) for i in range(300)]).mean(0)
    assert (mean - plain).abs().mean() < 0.1 * plain.abs().mean() + 0.01
    with pytest.raises(AssertionError, match="pass gen"):
        bias()
