from dataclasses import replace

import pytest
import torch

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import Encoded
from otic.models.heads import Head, HeadConfig, PixelHead, lin_softmax, normalised_patches, patches

PATCHES = torch.randn(3, 6, 8, generator=generator("heads"))
CLS = torch.randn(3, 8, generator=generator("heads", 1))


def test_what_each_mode_reads():
    cfg = HeadConfig(classes=5)
    for read, vector in (("cls", CLS), ("mean", PATCHES.mean(1)), ("lin_softmax", lin_softmax(PATCHES))):
        head = Head(8, replace(cfg, read=read), generator(0))
        want = head.linear(torch.nn.functional.layer_norm(vector, (8,), eps=1e-6))
        assert torch.allclose(head(Encoded(CLS, PATCHES)), want)
    with pytest.raises(ConfigError, match="no CLS token"):
        Head(8, cfg)(Encoded(None, PATCHES))


def test_linear_softmax_is_its_definition():
    p = PATCHES.double().sigmoid()
    pooled = p.square().sum(1) / p.sum(1)
    assert torch.allclose(lin_softmax(PATCHES).double(), torch.logit(pooled), atol=1e-4)
    assert lin_softmax(torch.full((1, 2, 3), 200.0)).isfinite().all()


def test_patches_are_cut_in_token_order():
    spec = torch.arange(48 * 32, dtype=torch.float32).view(1, 1, 48, 32)
    cut = patches(spec, (16, 8))
    assert cut.shape == (1, 12, 128)
    assert torch.equal(cut[0, 4 * 2 + 3].view(16, 8), spec[0, 0, 32:48, 24:32])
    normal = normalised_patches(torch.randn(2, 1, 48, 32, generator=generator(2)), (16, 8))
    assert normal.mean(-1).abs().max() < 1e-6
    assert torch.allclose(normal.var(-1), torch.ones(2, 12), atol=1e-4)


def test_pixel_loss_counts_hidden_patches_only():
    spec, tokens = torch.randn(1, 1, 32, 32, generator=generator(3)), torch.randn(2, 4, 8, generator=generator(4))
    head = PixelHead(8, (16, 16), generator(5))
    visible = torch.tensor([[True, False, True, False], [False, False, True, True]])
    want, hidden = normalised_patches(spec, (16, 16)), []
    for row in range(2):
        hidden += [(head(tokens)[row, p] - want[0, p]).square().mean() for p in range(4) if not visible[row, p]]
    assert torch.allclose(head.loss(tokens, spec, visible), torch.stack(hidden).mean())
