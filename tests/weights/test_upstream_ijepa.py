"""I-JEPA's layout with sizes that no published model has."""

import pytest
import torch
from safetensors.torch import save_file

from otic.core.errors import WeightsError
from otic.models import ViT, ViTConfig
from otic.models.positions import sincos
from otic.models.predictor import Predictor, PredictorConfig
from otic.weights import anyfile
from otic.weights.upstream import ijepa

SMALL = PredictorConfig(width=16, depth=1, heads=2)


def written(grid, width=32, heads=2, predictor=SMALL):
    """Two different encoders and a predictor, named as upstream names them; and the first encoder."""
    cfg = ViTConfig(
        width=width, depth=1, heads=heads, mels=16 * grid[1], norm="pre", cls=False, positions="sincos", table=grid
    )
    encoders = [ViT(cfg, torch.Generator().manual_seed(k)).eval() for k in range(2)]
    tensors = {f"predictor.{_upstream(k)}": t for k, t in Predictor(width, predictor).state_dict().items()}
    tensors["predictor.predictor_pos_embed"] = sincos(grid, predictor.width)[None]
    for part, encoder in zip(("target_encoder", "encoder"), encoders, strict=True):
        for name, tensor in encoder.state_dict().items():
            name = name.replace("proj.", "patch_embed.proj.") if name.startswith("proj.") else name
            name, tensor = ("pos_embed", tensor[None]) if name == "position_table" else (name, tensor)
            tensors[f"{part}.{name}"] = tensor
    return {name: tensor.clone().contiguous() for name, tensor in tensors.items()}, encoders[0]


def _upstream(name):
    return name if name == "mask_token" else f"predictor_{name}"


@pytest.mark.parametrize("grid", [(16, 4), (4, 9), (6, 6), (5, 8), (3, 1)])
def test_the_grid_is_read_off_the_positions(tmp_path, grid):
    tensors, encoder = written(grid)
    found = ijepa.convert(tensors, {"num_heads": 2})
    assert (found.encoder.table, found.encoder.mels, found.encoder.positions) == (grid, 16 * grid[1], "sincos")
    save_file(tensors, tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_text('{"num_heads": 2}')
    read = anyfile.read(tmp_path / "x.safetensors")
    spec = torch.randn(2, 1, 16 * grid[0], 16 * grid[1], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(read.encoder(spec).patches, encoder(spec).patches)
    assert "heads" not in read.card


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("grid", [(16, 4), (4, 9), (6, 6)])
def test_a_copy_in_half_precision_keeps_its_rounded_codes(dtype, grid):
    tensors = {name: t.to(dtype) for name, t in written(grid)[0].items()}
    found = ijepa.convert(tensors, {"num_heads": 2})
    assert (found.encoder.table, found.encoder.positions) == (grid, "sincos")
    assert torch.equal(found.target["position_table"], tensors["target_encoder.pos_embed"][0].float())


@pytest.mark.parametrize(("dtype", "off"), [(torch.float32, 6e-4), (torch.float16, 2e-3), (torch.bfloat16, 8e-3)])
def test_other_codes_are_refused(dtype, off):
    tensors = written((16, 4))[0]
    tensors["predictor.predictor_pos_embed"] = (tensors["predictor.predictor_pos_embed"] + off).to(dtype)
    with pytest.raises(WeightsError, match="not the sin-cos codes"):
        ijepa.convert(tensors, {"num_heads": 2})


def test_heads_nobody_tells_are_guessed_so_that_they_fit(tmp_path):
    tensors, _ = written((4, 4), width=208, heads=4, predictor=PredictorConfig(width=40, depth=1, heads=4))
    save_file(tensors, tmp_path / "x.safetensors")
    read = anyfile.read(tmp_path / "x.safetensors")
    assert (read.encoder.cfg.heads, read.card["heads"]) == (2, "guessed: 2")  # of 208 // 64 = 3, which do not divide it
    with pytest.raises(WeightsError, match="heads=3"):
        ijepa.convert(tensors, {"num_heads": 3})
