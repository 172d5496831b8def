import pytest
import torch

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import POOLINGS, frames, pool

GRID = (5, 3)
TOKENS = torch.randn(2, 15, 4, generator=generator("pooling"))
WIDTHS = {"mean": 4, "max": 4, "mean_std": 8, "mean_std_patches": 8, "bands": 12, "bands_std": 24}


def test_every_pooling_has_its_width():
    assert POOLINGS.keys() == WIDTHS.keys()
    for name, width in WIDTHS.items():
        assert pool(TOKENS, GRID, name).shape == (2, width)
        assert pool(TOKENS[:, :3], (1, 3), name).isfinite().all()  # a single time step


def test_against_loops():
    at = TOKENS.view(2, 5, 3, 4)
    by_band = torch.cat([at[:, :, f].mean(1) for f in range(3)], 1)
    assert torch.allclose(pool(TOKENS, GRID, "bands"), by_band)
    series = torch.stack([(at[:, t, 0] + at[:, t, 1] + at[:, t, 2]) / 3 for t in range(5)], 1)
    assert torch.allclose(frames(TOKENS, GRID), series, atol=1e-6)
    std = ((series - series.mean(1, keepdim=True)) ** 2).mean(1).sqrt()
    assert torch.allclose(pool(TOKENS, GRID, "mean_std"), torch.cat((series.mean(1), std), 1), atol=1e-6)
    assert torch.equal(frames(TOKENS, GRID, "concat")[:, 2, 4:8], at[:, 2, 1])
    assert torch.allclose(pool(TOKENS, GRID, "bands_std")[:, 12:], frames(TOKENS, GRID, "concat").std(1, correction=0))


def test_order_of_time_does_not_matter_but_bands_do():
    later = TOKENS.view(2, 5, 3, 4).roll(2, 1).flatten(1, 2)
    higher = TOKENS.view(2, 5, 3, 4).roll(1, 2).flatten(1, 2)
    for name in WIDTHS:
        assert torch.allclose(pool(later, GRID, name), pool(TOKENS, GRID, name), atol=1e-6)
        assert torch.allclose(pool(higher, GRID, name), pool(TOKENS, GRID, name), atol=1e-6) != ("bands" in name)


def test_unknown_pooling():
    with pytest.raises(ConfigError, match="Did you mean 'mean_std'"):
        pool(TOKENS, GRID, "meanstd")
