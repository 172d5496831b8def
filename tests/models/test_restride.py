"""Another stride for the same weights: consecutive rows of the position table, or the codes of each place."""

from dataclasses import replace

import pytest
import torch

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import ViT, ViTConfig
from otic.models.restride import resample, restride

CFG = ViTConfig(width=16, depth=1, heads=2, norm="pre", dist=True, positions="learned", table=(8, 8))


def ramp(grid, step):
    """A table whose codes are the patch's place in frames and bands."""
    t, f = torch.meshgrid(torch.arange(grid[0]) * step[0], torch.arange(grid[1]) * step[1], indexing="ij")
    return torch.stack((t, f), -1).flatten(0, 1).float()


@pytest.mark.parametrize(
    ("grid", "have", "want"),
    [((8, 8), (16, 16), (10, 10)), ((50, 1), (2, 128), (1, 128)), ((9, 12), (10, 10), (16, 5))],
)
def test_each_place_keeps_its_code(grid, have, want):
    rows, new = resample(ramp(grid, have), grid, have, want)
    assert new == tuple((n - 1) * a // b + 1 for n, a, b in zip(grid, have, want, strict=True))
    assert torch.allclose(rows, ramp(new, want), atol=1e-3)


def test_the_weights_stay_and_the_grid_grows():
    encoder = ViT(CFG, generator(0)).eval()
    spec = torch.randn(1, 1, 128, 128, generator=generator(1))
    published, physical = restride(encoder, (10, 10)), restride(encoder, (10, 10), physical=True)
    assert published.cfg == replace(CFG, stride=(10, 10)) and physical.cfg.table == (12, 12)
    assert published(spec).patches.shape == physical(spec).patches.shape == (1, 144, 16)
    assert torch.equal(published.position_table, encoder.position_table)
    assert not published.training and torch.equal(published.proj.weight, encoder.proj.weight)
    again = restride(published, (16, 16))
    assert again.cfg == CFG and torch.equal(again(spec).patches, encoder(spec).patches)
    for other in (published, physical):
        table = other.positions((12, 12)).view(12, 12, 16)
        kept = torch.allclose(table[8, 8], encoder.position_table[5 * 8 + 5], atol=1e-5)  # 80 frames, 80 bands
        assert kept == (other is physical)


def test_codes_by_formula_and_codes_of_a_file():
    made = ViT(replace(CFG, positions="sincos", table=None), generator(0))
    assert restride(made, (8, 8)).grid(128) == (15, 15)
    stored = ViT(replace(CFG, positions="table"), generator(0))
    with pytest.raises(ConfigError, match="no stored codes"):
        restride(stored, (8, 8))
    with pytest.raises(ConfigError, match=r"stride=\(0, 8\)"):
        restride(made, (0, 8))
