"""EAT's layouts at other sizes, from random weights; the golden files are in tests/parity."""

import json

import pytest
import torch
from safetensors.torch import save_file

from otic.core.errors import WeightsError
from otic.core.seeds import generator
from otic.models import CNNDecoder, ViT, ViTConfig
from otic.models.heads import Head, HeadConfig
from otic.weights.upstream import eat

IMAGE = "modality_encoders.IMAGE."


def layout(encoder, decoder=None, head=None, style="fairseq"):
    """Upstream's names for our tensors, written again without the converter's table."""
    tensors = {}
    for name, tensor in encoder.state_dict().items():
        place, local = (
            (("", "context_encoder.norm"), IMAGE) if style == "fairseq" else (("model.", "pre_norm"), "model.")
        )
        if name.startswith("blocks."):
            tensors[place[0] + name] = tensor
        elif name == "extra_tokens":
            tensors[local + name] = tensor
        elif name == "position_table":
            tensors[local + "fixed_positional_encoder.positions"] = tensor[None]
        elif name.startswith("proj."):
            tensors[local + "local_encoder." + name] = tensor
        else:
            tensors[local + name.replace("embed_norm", place[1])] = tensor
    for name, tensor in ({} if decoder is None else decoder.state_dict()).items():
        i = name.split(".")[1]
        tensors[IMAGE + "decoder." + (name.replace(f"convs.{i}", f"blocks.{i}.0") if "convs" in name else name)] = (
            tensor
        )
    for name, tensor in ({} if head is None else head.state_dict()).items():
        tensors["model." + name.replace("norm.", "fc_norm.").replace("linear.", "head.")] = tensor
    return {name: tensor.clone() for name, tensor in tensors.items()}


def encoder(width=48, depth=3, heads=6, table=(7, 8), **more):
    return ViT(ViTConfig(width=width, depth=depth, heads=heads, table=table, **more), generator(width, depth))


@pytest.mark.parametrize(("dim", "layers", "kernel", "groups"), [(48, 2, 3, 16), (32, 1, 5, 8), (96, 4, 4, 48)])
def test_fairseq_round_trip(tmp_path, dim, layers, kernel, groups):
    net, decoder = encoder(mlp_ratio=2.0), CNNDecoder(48, dim, layers, kernel, groups)
    tensors = {name: t.half() for name, t in layout(net, decoder).items()}
    tensors["_ema"] = {name: t + 1 for name, t in layout(net).items()}
    path = tmp_path / "any.pt"
    torch.save({"cfg": {"model": {"num_heads": 6}}, "model": tensors}, path)
    read = eat.read(path)
    assert (read.encoder.width, read.encoder.depth, read.encoder.heads, read.encoder.mlp_ratio) == (48, 3, 6, 2.0)
    assert read.encoder.table == (7, 8) and read.encoder.positions == "sincos"
    shape = read.decoder
    assert (shape.dim, shape.layers, shape.kernel, shape.groups) == (dim, layers, kernel, groups)
    again = ViT(read.encoder)
    again.load_state_dict(read.state)
    CNNDecoder(48, dim, layers, kernel, groups).load_state_dict(read.decoder_state)
    for name, tensor in net.state_dict().items():
        assert torch.equal(read.state[name], tensor.half().float())
    assert torch.equal(read.teacher["proj.bias"], net.proj.bias + 1)


@pytest.mark.parametrize(("width", "hidden"), [(44, 120), (28, 244), (48, 129), (96, 96)])
def test_any_width_of_the_feed_forward(width, hidden):
    net = encoder(width, 1, 4, mlp_ratio=(hidden + 0.5) / width)
    assert len(net.blocks[0].mlp.fc1.weight) == hidden
    read = eat.convert(layout(net), {"num_heads": 4})
    ViT(read.encoder).load_state_dict(read.state)


def test_hugging_face_round_trip(tmp_path):
    net, head = encoder(mels=64, table=(5, 4)), Head(48, HeadConfig(classes=7))
    save_file(layout(net, head=head, style="hf"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"num_heads": 6, "mel_bins": 64, "stride": 16}))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        read = eat.read(path)
        assert (read.encoder.mels, read.encoder.table, read.head.classes, read.head.eps) == (64, (5, 4), 7, 1e-5)
        again = ViT(read.encoder)
        again.load_state_dict(read.state)
        Head(48, read.head).load_state_dict(read.head_state)
    (tmp_path / "config.json").unlink()
    assert eat.convert(layout(encoder(width=128, heads=2)), {}).encoder.heads == 2  # 64 channels a head


def test_codes_in_bfloat16_are_still_those_of_the_formula():
    net = encoder()
    read = eat.convert({name: t.bfloat16() for name, t in layout(net).items()}, {"num_heads": 6})
    assert (read.encoder.positions, read.encoder.table) == ("sincos", (7, 8))
    assert torch.equal(read.state["position_table"], net.position_table.bfloat16().float())


def test_codes_that_follow_no_formula_are_kept():
    net = encoder()
    tensors = layout(net)
    name = IMAGE + "fixed_positional_encoder.positions"
    tensors[name] = torch.randn(tensors[name].shape, generator=generator(1))
    read = eat.convert(tensors, {"model": {"num_heads": 6}})
    assert read.encoder.positions == "table"
    again = ViT(read.encoder)
    again.load_state_dict(read.state)
    assert torch.equal(again.positions((3, 8)), tensors[name][0, :24])


def test_other_files_are_told_apart(tmp_path):
    path = tmp_path / "any.pt"
    for content, says in (
        ([1], "holds a list"),
        ({"a": 1}, "no 'model'"),
        ({"model": {"a": torch.ones(1)}}, "not an EAT"),
    ):
        torch.save(content, path)
        with pytest.raises(WeightsError, match=says):
            eat.read(path)
    (tmp_path / "model.safetensors").write_bytes(b"not tensors at all")
    with pytest.raises(WeightsError, match="cannot be read"):
        eat.read(tmp_path)
    torch.save(layout(encoder(width=128, heads=2)), path)  # a bare state dict
    assert eat.read(path).encoder.width == 128


def test_settings_that_no_published_model_has():
    tensors = layout(encoder())
    with pytest.raises(WeightsError, match="layer_norm_first"):
        eat.convert(tensors, {"model": {"layer_norm_first": True}})
    with pytest.raises(WeightsError, match="heads=5"):
        eat.convert(tensors, {"model": {"num_heads": 5}})
