import pytest
import torch
import torch.nn.functional as F

from otic.core.errors import ConfigError
from otic.core.seeds import generator
from otic.models import CNNDecoder


@torch.no_grad()
@pytest.mark.parametrize(("dim", "kernel"), [(None, 3), (16, 3), (None, 4), (None, 5)])
def test_decoder_is_its_formula(dim, kernel):
    """Written again on (b, d, t', f') images, as eat.md section 5 step 4 lists it."""
    width, grid = 32, (6, 4)
    decoder = CNNDecoder(width, dim, layers=3, kernel=kernel, groups=4, gen=generator(0))
    x = torch.randn(2, 24, width, generator=generator(1))
    y = x.mT.reshape(2, width, *grid)
    for conv in decoder.convs:
        u = F.conv2d(y, conv.weight, conv.bias, padding=kernel // 2, groups=4)
        if kernel % 2 == 0:
            u = u[:, :, :-1, :-1]
        mean, var = u.mean(1, keepdim=True), u.var(1, keepdim=True, correction=0)
        u = F.gelu((u - mean) / (var + 1e-5).sqrt())
        y = u + y if u.shape == y.shape else u
    want = decoder.proj(y.flatten(2).mT)
    torch.testing.assert_close(decoder(x, grid), want, atol=1e-5, rtol=1e-5)


def test_published_sizes():
    with torch.device("meta"):
        base, large = CNNDecoder(768), CNNDecoder(1024, layers=3, kernel=5)
    assert sum(p.numel() for p in base.parameters()) == 2_585_856
    assert sum(p.numel() for p in large.parameters()) == 5_967_872


def test_groups_must_divide():
    with pytest.raises(ConfigError, match="groups=16"):
        CNNDecoder(40)
